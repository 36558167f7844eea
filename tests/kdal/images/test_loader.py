import base64
import io
import os
import secrets
import struct
import zlib
from urllib.parse import quote

import boto3
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image

from kdal.images.loader import ImageLoader, ImageRef, LazyImages
from kdal.labelstudio.client import LabelStudioClient
from kdal_core.datasets.images import upright_size
from kdal_core.errors import AssetError
from tests.kdal.conftest import TOKEN
from tests.kdal.servers import Answer
from tests.kdal.values import outcome

PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((64, 48))
"""A real photograph, 64 x 48."""


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def data_uri(data):
    return "data:application/octet-stream;base64," + base64.b64encode(data).decode()


@pytest.fixture
def make_loader(make_settings):
    def make(label_studio=None, **fields):
        chosen = make_settings(**fields)
        client = LabelStudioClient(chosen.label_studio_url, TOKEN) if label_studio is None else label_studio
        return ImageLoader(chosen, client)

    return make


@pytest.fixture
def loader(make_loader):
    return make_loader()


@pytest.fixture
def photo(web):
    web.answers["/photo.png"] = Answer(encode(PHOTO))
    return f"{web.url}/photo.png"


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


# ---------------------------------------------------------------------- where images are


def test_a_web_address_is_fetched(loader, photo):
    np.testing.assert_array_equal(pixels(read(loader, photo)), pixels(PHOTO))


def test_a_file_comes_as_it_is_stored_and_is_fetched_once(loader, web, photo):
    for _ in range(2):
        assert loader.file(ImageRef(1, photo)) == web.answers["/photo.png"].body
    assert len(web.seen) == 1


def test_a_file_that_is_no_image_is_refused(loader, web):
    web.answers["/page"] = Answer(b"<html>")
    with pytest.raises(AssetError, match=r"task 1: image .*: not an image"):
        loader.file(ImageRef(1, f"{web.url}/page"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_is_that_of_the_decoded_image(loader, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(PHOTO, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        size = upright_size(image)
    assert read(loader, data_uri(data)).size == size
    assert loader.load([ImageRef(1, data_uri(data))], (8, 8)).sizes == [size]


def test_a_data_address_is_decoded(loader):
    np.testing.assert_array_equal(pixels(decode(loader, encode(PHOTO))), pixels(PHOTO))


@pytest.mark.parametrize("uri", ["data:image/png,abc", "data:image/png;base64,@@@", "data:;base64,abc", "data:"])
def test_a_data_address_that_is_not_base64_is_refused(loader, uri):
    assert "base64" in refused(loader, uri)


@pytest.mark.parametrize("uri", ["ftp://host/a.png", "gs://bucket/a.png", "a.png", "C:\\a.png", "javascript:alert(1)"])
def test_an_unknown_kind_of_address_is_refused_with_the_known_ones(loader, uri):
    assert "kdal reads s3://, http(s)://, file://" in refused(loader, uri)


def test_a_task_without_an_address_is_refused(loader):
    assert "no image address" in refused(loader, "")


def test_label_studios_own_files_are_fetched_with_the_token(make_loader, web):
    web.answers["/data/upload/1/a.png"] = Answer(encode(PHOTO))
    loader = make_loader(label_studio_url=web.url)
    assert read(loader, "/data/upload/1/a.png").size == (64, 48)
    assert web.seen[0].headers["Authorization"] == f"Token {TOKEN}"


def test_the_token_goes_to_no_other_host(make_loader, web, photo):
    loader = make_loader(label_studio_url="http://127.0.0.1:1")
    read(loader, photo)
    assert "Authorization" not in web.seen[0].headers


def test_the_token_goes_to_no_host_whose_name_only_begins_like_label_studios(make_loader, web, photo):
    loader = make_loader(label_studio_url=web.url[:-1])
    read(loader, photo)
    assert "Authorization" not in web.seen[0].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_does_not_follow_a_redirect_to_another_host(make_loader, web, other_web, status):
    """Another port is another host; so it is under another name of this machine."""
    other_web.answers["/a.png"] = Answer(encode(PHOTO))
    elsewhere = [f"{other_web.url}/a.png", f"{other_web.url}/a.png".replace("127.0.0.1", "localhost")]
    for i, target in enumerate(elsewhere):
        web.answers[f"/data/upload/{i}.png"] = Answer(status=status, headers={"Location": target})
        read(make_loader(label_studio_url=web.url), f"/data/upload/{i}.png")
        assert web.seen[-1].headers["Authorization"] == f"Token {TOKEN}"
    assert len(other_web.seen) == 2
    assert [seen.headers.get("Authorization") for seen in other_web.seen] == [None, None]


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_an_answer_that_is_an_error_is_told_with_its_number(loader, web, status):
    web.answers["/a.png"] = Answer(b"<h1>sorry</h1>", status)
    assert f": {status} " in refused(loader, f"{web.url}/a.png")


def test_a_server_that_cannot_be_reached_is_said_so(loader):
    assert "its server cannot be reached" in refused(loader, "http://127.0.0.1:1/a.png")


def test_a_presigned_signature_does_not_get_into_the_message(loader):
    uri = f"http://127.0.0.1:1/{'a' * 100}?X-Amz-Signature=5ec4e7{'b' * 20}"
    assert "5ec4e7" not in refused(loader, uri)


def test_an_endless_redirect_is_said_so(loader, web):
    web.answers["/a.png"] = Answer(status=302, headers={"Location": "/a.png"})
    assert "redirected without end" in refused(loader, f"{web.url}/a.png")


def test_a_redirect_to_what_is_no_address_is_refused(loader, web):
    for i, location in enumerate(["http://[", "file:///etc/passwd", "http://127.0.0.1:99999/", "ftp://host/x"]):
        web.answers[f"/{i}.png"] = Answer(status=302, headers={"Location": location})
        refused(loader, f"{web.url}/{i}.png")


def test_a_web_page_is_no_image(loader, web):
    web.answers["/a.png"] = Answer(b"<!doctype html><title>Log in</title>")
    assert "not an image" in refused(loader, f"{web.url}/a.png")


def test_an_answer_that_breaks_off_is_refused(loader, web):
    web.answers["/a.png"] = Answer(encode(PHOTO)[:100], headers={"Content-Length": "5000"}, with_length=False)
    refused(loader, f"{web.url}/a.png")


@pytest.mark.parametrize("with_length", [True, False])
def test_a_file_of_too_many_bytes_is_refused_whether_it_says_so_or_not(make_loader, web, with_length):
    web.answers["/a.png"] = Answer(os.urandom(3_000_000), with_length=with_length)
    loader = make_loader(max_image_bytes=100_000)
    assert "more than KDAL_MAX_IMAGE_BYTES = 100,000" in refused(loader, f"{web.url}/a.png")


def test_a_compressed_answer_counts_by_what_it_unpacks_to(make_loader, web):
    bomb = zlib.compress(bytes(50_000_000))
    web.answers["/a.png"] = Answer(bomb, headers={"Content-Encoding": "deflate"})
    assert "KDAL_MAX_IMAGE_BYTES" in refused(make_loader(max_image_bytes=100_000), f"{web.url}/a.png")


def test_a_data_address_of_too_many_bytes_is_refused(make_loader):
    assert "KDAL_MAX_IMAGE_BYTES" in refused(make_loader(max_image_bytes=1000), data_uri(bytes(2000)))


# ---------------------------------------------------------------------- files of this machine


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a photo.png").write_bytes(encode(PHOTO))
    (tmp_path / "secret.png").write_bytes(encode(PHOTO))
    return folder


@pytest.fixture
def local(make_loader, root):
    return make_loader(local_files_root=root)


def test_a_file_inside_the_root_is_read(local, root):
    assert read(local, f"file://{root}/sub/a%20photo.png").size == (64, 48)


def test_label_studios_local_files_are_read_from_the_root(local):
    assert read(local, "/data/local-files/?d=sub/a%20photo.png").size == (64, 48)


def test_local_files_are_off_without_a_root(loader, root):
    assert "set KDAL_LOCAL_FILES_ROOT" in refused(loader, f"file://{root}/sub/a%20photo.png")


def test_nothing_outside_the_root_is_read(local, root, tmp_path):
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    outside = [
        f"file://{tmp_path}/secret.png",
        f"file://{root}/../secret.png",
        f"file://{root}/sub/%2e%2e/%2e%2e/secret.png",
        f"file://{root}/link.png",
        f"file://{root}/up/secret.png",
        "file:///etc/passwd",
        "/data/local-files/?d=../secret.png",
        "/data/local-files/?d=link.png",
        f"/data/local-files/?d={quote(str(tmp_path / 'secret.png'))}",
        f"FILE://{tmp_path}/secret.png",
    ]
    assert ["outside KDAL_LOCAL_FILES_ROOT" in refused(local, uri) for uri in outside] == [True] * len(outside)
    assert "no such file" in refused(local, f"file://{root}/loop")


def test_a_folder_next_to_the_root_whose_name_begins_alike_is_outside(local, root, tmp_path):
    (tmp_path / "images-of-others").mkdir()
    (tmp_path / "images-of-others" / "a.png").write_bytes(encode(PHOTO))
    assert "outside" in refused(local, f"file://{tmp_path}/images-of-others/a.png")


def test_what_is_not_a_plain_file_is_refused(local, root):
    os.mkfifo(root / "pipe")
    assert "not a file" in refused(local, f"file://{root}/sub")
    assert "not a file" in refused(local, f"file://{root}/pipe")
    assert "no such file" in refused(local, f"file://{root}/missing.png")
    assert "not an address" in refused(local, f"file://{root}/%00.png")


def test_a_local_file_that_changes_is_read_anew(local, root):
    uri = f"file://{root}/a.png"
    for size in ((8, 8), (5, 4)):
        (root / "a.png").write_bytes(encode(PHOTO.resize(size)))
        assert read(local, uri).size == size


def test_a_large_file_is_refused_before_it_is_read(make_loader, root):
    loader = make_loader(local_files_root=root, max_image_bytes=100)
    assert "KDAL_MAX_IMAGE_BYTES" in refused(loader, f"file://{root}/sub/a%20photo.png")


# ---------------------------------------------------------------------- S3


@pytest.fixture
def bucket(s3_server, env):
    for name, value in s3_server.env.items():
        env.setenv(name, value)
    name = f"kdal-{secrets.token_hex(8)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.mark.parametrize("key", ["a.png", "deep/er/a.png", "a photo?x=1&y=2#z.png", "100%25.png", "größe.png"])
def test_an_object_is_read_whatever_its_key(bucket, make_loader, key):
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=encode(PHOTO))
    assert read(make_loader(), f"s3://{bucket}/{key}").size == (64, 48)


def test_a_large_object_is_refused(bucket, make_loader):
    boto3.client("s3").put_object(Bucket=bucket, Key="a.png", Body=os.urandom(5000))
    assert "KDAL_MAX_IMAGE_BYTES" in refused(make_loader(max_image_bytes=1000), f"s3://{bucket}/a.png")


def test_what_s3_refuses_is_asked_of_label_studio(bucket, make_loader, web):
    """It answers with a redirect to a presigned address, as measured on Label Studio 1.23.2."""
    uri = f"s3://{bucket}/only label studio knows it?.png"
    web.answers["/tasks/7/resolve/"] = Answer(status=303, headers={"Location": "/presigned.png"})
    web.answers["/presigned.png"] = Answer(encode(PHOTO))
    loader = make_loader(label_studio_url=web.url)
    assert read(loader, uri, task=7).size == (64, 48)
    asked = web.seen[0].path.partition("fileuri=")[2]
    assert base64.urlsafe_b64decode(asked).decode() == uri
    assert web.seen[0].headers["Authorization"] == f"Token {TOKEN}"


def test_when_label_studio_cannot_help_either_both_reasons_are_told(bucket, make_loader, web):
    message = refused(make_loader(label_studio_url=web.url), f"s3://{bucket}/missing.png")
    assert "S3 says: " in message
    assert "through Label Studio: 404" in message


@pytest.mark.parametrize("uri", ["s3://", "s3://bucket", "s3:///key", "s3://not a bucket/key", "s3://UPPER/\ud800"])
def test_what_is_no_object_is_refused(s3_server, env, make_loader, uri):
    for name, value in s3_server.env.items():
        env.setenv(name, value)
    with pytest.raises(AssetError, match="task 41"):
        read(make_loader(label_studio_url="http://127.0.0.1:1"), uri, task=41)


# ---------------------------------------------------------------------- what they hold


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG", "WEBP", "JPEG2000"])
def test_the_usual_formats_are_decoded(loader, kind):
    found = decode(loader, encode(PHOTO, kind))
    assert (found.mode, found.size) == ("RGB", (64, 48))
    assert np.abs(pixels(found) - pixels(PHOTO)).mean() < 12  # GIF has 256 colours, JPEG loses some


def test_a_format_that_runs_other_programs_is_not_decoded(loader):
    """Pillow hands EPS to Ghostscript."""
    assert "not an image" in refused(loader, data_uri(encode(PHOTO, "EPS")))


def test_a_file_by_another_name_is_decoded_by_what_it_holds(loader, web):
    web.answers["/a.png"] = Answer(encode(PHOTO, "JPEG"), headers={"Content-Type": "image/png"})
    assert read(loader, f"{web.url}/a.png").size == (64, 48)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_damaged(loader, kind, share):
    whole = encode(PHOTO, kind)
    message = refused(loader, data_uri(whole[: int(len(whole) * share)]))
    assert "damaged" in message or "not an image" in message


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"text", "not an image"), (bytes(1000), "not an image")])
def test_what_is_no_image_is_said_so(loader, data, reason):
    assert reason in refused(loader, data_uri(data))


def png_of(width, height):
    """A PNG file that claims a size and holds next to nothing: a decompression bomb's head."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(8000, 8000), (11_000, 11_000), (100_000, 100_000), (2**31 - 1, 1)])
def test_huge_dimensions_are_refused_before_decoding(loader, width, height):
    """Decoded, the head alone would be damaged: that it is not called so shows that nobody tried."""
    message = refused(loader, data_uri(png_of(width, height)))
    assert "more" in message
    assert "KDAL_MAX_IMAGE_PIXELS = 50,000,000" in message


def test_an_image_just_within_the_limit_of_pixels_is_decoded(make_loader):
    loader = make_loader(max_image_pixels=64 * 48)
    assert decode(loader, encode(PHOTO)).size == (64, 48)
    assert "64 x 49 pixels" in refused(loader, data_uri(encode(PHOTO.resize((64, 49)))))


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_no_image(loader, width, height):
    assert "not an image" in refused(loader, data_uri(b"P6 %d %d 255\n" % (width, height)))


def test_sixteen_bits_of_grey_become_eight(loader):
    """The closed form: v * 255 / 65535, rounded. Pillow's own conversion clips everything above 255 to white."""
    values = np.array([[0, 128, 257, 1000], [30_000, 40_000, 65_000, 65_535]], dtype=np.uint16)
    found = pixels(decode(loader, encode(Image.fromarray(values))))
    np.testing.assert_array_equal(found, np.repeat(np.round(values / 257)[:, :, None], 3, axis=2))


def test_a_sixteen_bit_tiff_looks_like_the_same_picture_as_png(loader):
    values = np.arange(0, 65_536, 257, dtype=np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(
        pixels(decode(loader, encode(Image.fromarray(values), "TIFF"))),
        pixels(decode(loader, encode(Image.fromarray(values), "PNG"))),
    )


@pytest.mark.parametrize("flat", [False, True])
def test_a_picture_of_fractions_is_stretched_to_its_own_range(loader, flat):
    values = np.full((2, 2), 3.5, np.float32) if flat else np.array([[-1, 0], [0.5, 1]], np.float32)
    found = pixels(decode(loader, encode(Image.fromarray(values), "TIFF")))[:, :, 0]
    np.testing.assert_array_equal(found, np.zeros((2, 2)) if flat else [[0, 128], [191, 255]])


def test_a_picture_of_fractions_that_are_no_numbers_is_an_image_or_refused(loader):
    values = np.array([[np.nan, np.inf], [0, 1]], np.float32)
    found = outcome(AssetError, lambda: decode(loader, encode(Image.fromarray(values), "TIFF")))
    assert isinstance(found, AssetError) or found.size == (2, 2)


def test_grey_is_grey_in_three_channels(loader):
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(
        pixels(decode(loader, encode(Image.fromarray(values)))), np.repeat(values[:, :, None], 3, axis=2)
    )


def test_black_and_white_is_0_and_255(loader):
    bits = Image.fromarray(np.eye(8, dtype=bool))
    np.testing.assert_array_equal(pixels(decode(loader, encode(bits)))[:, :, 1], 255 * np.eye(8, dtype=int))


def test_a_palette_gives_its_colours(loader):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 150, 100])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(pixels(decode(loader, encode(image))), [[[10, 20, 30], [200, 150, 100]]])


def test_transparent_places_are_white_as_the_annotator_sees_them(loader):
    values = np.zeros((1, 3, 4), dtype=np.uint8)
    values[0, :, 0] = 200
    values[0, :, 3] = (255, 0, 128)
    found = pixels(decode(loader, encode(Image.fromarray(values))))
    np.testing.assert_array_equal(found[0, 0], [200, 0, 0])
    np.testing.assert_array_equal(found[0, 1], [255, 255, 255])
    # half of 200 and half of 255, half of 0 and half of 255
    np.testing.assert_allclose(found[0, 2], [227, 127, 127], atol=1)


def test_a_palettes_transparent_colour_is_white(loader):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 150, 100])
    image.putpixel((1, 0), 1)
    for transparency in (0, b"\x00\xff"):
        found = pixels(decode(loader, encode(image, transparency=transparency)))
        np.testing.assert_array_equal(found, [[[255, 255, 255], [200, 150, 100]]])


def test_an_animation_is_its_first_picture(loader):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    found = decode(loader, encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert found.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(("ink", "colour"), [((0, 0, 0, 0), 255), ((255, 255, 255, 255), 0), ((0, 0, 0, 255), 0)])
def test_printers_inks_become_light(loader, ink, colour):
    found = decode(loader, encode(Image.new("CMYK", (8, 8), ink), "JPEG"))
    np.testing.assert_allclose(pixels(found), colour, atol=3)


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: lambda a: np.rot90(a),
}
"""The EXIF standard's eight orientations: how the stored picture is turned to stand upright."""


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_image_stands_upright_as_its_camera_says(loader, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(decode(loader, encode(PHOTO, exif=exif)))
    np.testing.assert_array_equal(found, UPRIGHT[orientation](pixels(PHOTO)))


def test_a_tensor_has_the_size_that_was_asked_for(loader):
    tensor = loader.tensor(ImageRef(1, data_uri(encode(PHOTO))), (10, 20))
    assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == ((3, 10, 20), torch.uint8, True)


def test_a_tensor_of_the_images_own_size_holds_its_pixels(loader):
    tensor = loader.tensor(ImageRef(1, data_uri(encode(PHOTO))), (48, 64))
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), pixels(PHOTO))


# ---------------------------------------------------------------------- many at once


def test_a_bad_image_never_fails_the_batch_and_is_named_with_its_task(make_loader, web, root):
    web.answers["/good.png"] = Answer(encode(PHOTO))
    web.answers["/bad.png"] = Answer(encode(PHOTO)[:100])
    uris = [
        f"{web.url}/good.png",
        f"{web.url}/bad.png",
        f"{web.url}/missing.png",
        "",
        "nonsense",
        "http://[",
        "http://" + "a" * 300,
        "http://.example.com/",
        "http://127.0.0.1:99999/",
        "http://user:pass@:0/",
        "\ud800",
        "/\ud800",
        "s3://\0/\0",
        "file://\0",
        f"file://{root}/\0",
        "data:;base64,\ud800",
        data_uri(encode(PHOTO)),
    ]
    loader = make_loader(local_files_root=root, label_studio_url=web.url)
    refs = [ImageRef(100 + i, uri) for i, uri in enumerate(uris)]
    loaded = loader.load(refs, (48, 64))
    images, kept, reasons = loaded.images, loaded.kept, loaded.reasons
    assert loaded.sizes == [PHOTO.size] * 2
    assert kept == [0, len(uris) - 1]
    assert sorted(reasons) == list(range(1, len(uris) - 1))
    assert [position for position, why in reasons.items() if f"task {100 + position}: image " not in why] == []
    assert "/bad.png" in reasons[1]
    assert images.shape == (2, 3, 48, 64)
    np.testing.assert_array_equal(images[0].permute(1, 2, 0).numpy(), pixels(PHOTO))


def test_the_order_of_a_batch_is_the_order_of_its_tasks(loader):
    refs = [ImageRef(i, data_uri(encode(Image.new("RGB", (8, 8), (i, i, i))))) for i in range(100)]
    loaded = loader.load(refs, (8, 8))
    assert (loaded.kept, loaded.reasons) == (list(range(100)), {})
    assert loaded.images[:, 0, 0, 0].tolist() == list(range(100))


def test_the_size_of_an_image_is_the_one_that_people_see(loader):
    turned = PHOTO.getexif()
    turned[0x0112] = 6  # held upright
    file = io.BytesIO()
    PHOTO.save(file, "JPEG", exif=turned)
    refs = [ImageRef(1, data_uri(encode(PHOTO))), ImageRef(2, data_uri(file.getvalue()))]
    assert loader.load(refs, (8, 8)).sizes == [PHOTO.size, PHOTO.size[::-1]]


def test_no_images_are_no_images(loader):
    loaded = loader.load([], (8, 8))
    assert (loaded.images.shape, loaded.kept, loaded.sizes, loaded.reasons) == ((0, 3, 8, 8), [], [], {})


def test_the_progress_of_a_batch_grows_up_to_one(loader):
    uri = data_uri(encode(PHOTO))
    shares = []
    loader.load([ImageRef(i, uri) for i in range(128)], (8, 8), shares.append)
    assert shares == [0.5, 1.0]


def test_images_that_are_read_when_asked_for_are_the_same_as_those_in_memory(loader):
    refs = [ImageRef(i, data_uri(encode(Image.new("RGB", (8, 8), (i, 0, 0))))) for i in range(5)]
    lazy = LazyImages(loader, refs, (8, 8))
    images = loader.load(refs, (8, 8)).images
    assert len(lazy) == 5
    assert all(torch.equal(a, b) for a, b in zip(lazy, images, strict=True))
    assert [int(image[0, 0, 0]) for image in lazy[1:3]] == [1, 2]


# ---------------------------------------------------------------------- the cache


def test_an_image_is_fetched_once(loader, web, photo):
    for _ in range(3):
        read(loader, photo)
    assert len(web.seen) == 1


def test_a_later_loader_finds_what_an_earlier_one_fetched(make_loader, web, photo):
    read(make_loader(), photo)
    read(make_loader(), photo)
    assert len(web.seen) == 1


def test_what_could_not_be_used_is_fetched_again(loader, web):
    """A login page or half a file today may be the image tomorrow."""
    uri = f"{web.url}/a.png"
    web.answers["/a.png"] = [Answer(b"<html>"), Answer(encode(PHOTO)[:200]), Answer(b"", 500), Answer(encode(PHOTO))]
    for _ in range(3):
        refused(loader, uri)
    assert read(loader, uri).size == (64, 48)


def test_a_cached_file_that_was_damaged_on_disk_is_fetched_again(loader, web, photo, tmp_path):
    read(loader, photo)
    (cached,) = (tmp_path / "kdal" / "cache" / "images").glob("*/*")
    cached.write_bytes(cached.read_bytes()[:50])
    assert read(loader, photo).size == (64, 48)
    assert len(web.seen) == 2


def test_a_full_disk_makes_it_slower_not_wrong(make_loader, web, photo, tmp_path):
    loader = make_loader()
    (tmp_path / "kdal" / "cache").mkdir(parents=True, exist_ok=True)
    (tmp_path / "kdal" / "cache" / "images").write_text("in the way")
    assert read(loader, photo).size == (64, 48)
    assert read(loader, photo).size == (64, 48)
    assert len(web.seen) == 2


# ---------------------------------------------------------------------- anything at all

TURNED = bytes.fromhex("4578696600004d4d002a00000008000101120003000000010006000000000000")
"""EXIF that says orientation 6."""


@pytest.fixture
def nowhere(make_loader, root):
    """A loader that reaches nothing but the files of `root`."""
    return make_loader(local_files_root=root, label_studio_url="http://127.0.0.1:1")


FILES = [encode(PHOTO.resize((16, 12)), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000")]
FILES += [
    encode(PHOTO.resize((16, 12)).convert("P"), "PNG", transparency=3),
    encode(PHOTO.resize((16, 12)), "JPEG", exif=TURNED),
    encode(PHOTO.resize((16, 12)), "TIFF", compression="tiff_lzw"),
    encode(PHOTO.resize((16, 12)), "JPEG", progressive=True),
    encode(PHOTO.resize((8, 6)), "GIF", save_all=True, append_images=[PHOTO.resize((8, 6)).rotate(90)]),
]
HEADS = [file[:n] for file in FILES for n in (4, 12, 24)]


def an_image_or_an_asset_error(loader, data):
    found = outcome(AssetError, lambda: decode(loader, data))
    if isinstance(found, AssetError):
        assert str(found).startswith("task 1: image data:")
    else:
        assert found.mode == "RGB"
        assert found.width * found.height > 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=500) | st.builds(lambda head, tail: head + tail, st.sampled_from(HEADS), st.binary()))
@example(b"GIF89a\0\0\0\0\0\0\0")
def test_any_bytes_are_an_image_or_an_asset_error(loader, data):
    an_image_or_an_asset_error(loader, data)


@settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0.2, 1),
)
def test_a_corrupted_file_is_an_image_or_an_asset_error(loader, file, changes, share):
    data = bytearray(file)
    for place, value in changes:
        data[int(place * len(data))] = value
    an_image_or_an_asset_error(loader, bytes(data[: int(share * len(data))]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.text()
    | st.builds(
        lambda scheme, rest: scheme + rest,
        st.sampled_from(
            ["file://", "file:", "data:", "data:;base64,", "gs://", "//", "s3:", "http:", "/data/local-files/?d="]
        ),
        st.text(max_size=20),
    )
)
def test_any_text_as_an_address_is_an_asset_error(nowhere, text):
    found = outcome(AssetError, lambda: read(nowhere, text, task=5))
    assert str(found).startswith("task 5: image ")
    assert str(found).encode()  # fit to be stored and shown
