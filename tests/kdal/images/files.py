"""What the tests of images share: a photograph, files of it, and loaders that read them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kdal.images.refs import ImageRef
from kdal_core.errors import AssetError

PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((64, 48))
"""A real photograph, 64 x 48."""


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def data_uri(data):
    return "data:application/octet-stream;base64," + base64.b64encode(data).decode()


def read(loader, uri, task=1):
    return loader.image(ImageRef(task, uri))


def decode(loader, data):
    return read(loader, data_uri(data))


def pixels(image):
    return np.asarray(image).astype(int)


def refused(loader, uri):
    """Why an address is refused; it is always named, with its task."""
    with pytest.raises(AssetError) as caught:
        read(loader, uri, task=41)
    message = str(caught.value)
    assert message.startswith(f"task 41: image {uri[:100]}")
    return message
