import secrets

import boto3
import pytest

from kdal.images.loader import ImageLoader
from kdal.labelstudio.client import LabelStudioClient
from tests.kdal.conftest import TOKEN
from tests.kdal.images.files import PHOTO, encode
from tests.kdal.servers import Answer


@pytest.fixture
def make_loader(make_settings):
    def make(label_studio=None, sources=None, **fields):
        chosen = make_settings(**fields)
        client = LabelStudioClient(chosen.label_studio_url, TOKEN) if label_studio is None else label_studio
        return ImageLoader(chosen, client, sources)

    return make


@pytest.fixture
def loader(make_loader):
    return make_loader()


@pytest.fixture
def photo(web):
    web.answers["/photo.png"] = Answer(encode(PHOTO))
    return f"{web.url}/photo.png"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a photo.png").write_bytes(encode(PHOTO))
    (tmp_path / "secret.png").write_bytes(encode(PHOTO))
    return folder


@pytest.fixture
def bucket(s3_server, env):
    for name, value in s3_server.env.items():
        env.setenv(name, value)
    name = f"kdal-{secrets.token_hex(8)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name
