import io

import numpy as np
import pytest
import torch
from PIL import Image

from kdal.images.errors import NoReadableImageError, UnreachableError
from kdal.images.loader import LazyImages
from kdal.images.refs import ImageRef
from tests.kdal.images.files import PHOTO, data_uri, encode, pixels, read, refused
from tests.kdal.servers import Answer

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


# ---------------------------------------------------------------------- not one of them


@pytest.mark.parametrize("count", [1, 3, 8, 20])
def test_images_that_are_all_missing_leave_a_step_without_anything_and_it_says_why(loader, web, count):
    loaded = loader.load([ImageRef(40 + i, f"{web.url}/{i}.png") for i in range(count)], (8, 8))
    assert loaded.kept == []
    with pytest.raises(NoReadableImageError, match=rf"one of the {count} labelled images .* task 40: image .*404"):
        loaded.required("labelled images")


@pytest.mark.parametrize("uri", ["", "nonsense", "http://127.0.0.1:1/a.png", data_uri(b"<html>"), "file:///a.png"])
def test_for_whatever_reason_not_one_is_readable(loader, uri):
    with pytest.raises(NoReadableImageError, match="task 1: image "):
        loader.load([ImageRef(1, uri)], (8, 8)).required()


def test_one_readable_image_is_enough_and_no_images_are_none_that_fail(loader):
    refs = [ImageRef(1, "nonsense"), ImageRef(2, data_uri(encode(PHOTO)))]
    assert loader.load(refs, (8, 8)).required().kept == [1]
    assert loader.load([], (8, 8)).required().kept == []


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_many_images_that_are_all_out_of_reach_are_an_outage(loader, web, status):
    for i in range(8):
        web.answers[f"/{i}.png"] = Answer(b"", status)
    refs = [ImageRef(i, f"{web.url}/{i}.png") for i in range(8)]
    with pytest.raises(UnreachableError, match=rf"one of 8 images can be reached, for example task 0: .*{status}"):
        loader.load(refs, (8, 8))


def test_a_missing_image_among_those_out_of_reach_is_no_outage_yet_no_image_either(loader, web):
    for i in range(1, 10):
        web.answers[f"/{i}.png"] = Answer(b"", 503)
    loaded = loader.load([ImageRef(i, f"{web.url}/{i}.png") for i in range(10)], (8, 8))
    with pytest.raises(NoReadableImageError):
        loaded.required()


# ---------------------------------------------------------------------- the cache


def test_label_studios_of_one_home_do_not_share_files_of_the_same_path(make_loader, web, other_web):
    for server, size in ((web, (8, 8)), (other_web, (5, 4))):
        server.answers["/data/upload/1/a.png"] = Answer(encode(PHOTO.resize(size)))
        assert read(make_loader(label_studio_url=server.url), "/data/upload/1/a.png").size == size


def test_a_file_is_fetched_once_under_all_of_label_studios_names(make_loader, web):
    web.answers["/data/upload/1/a.png"] = Answer(encode(PHOTO))
    loader = make_loader(label_studio_url=web.url, label_studio_public_url="http://localhost:8080/ls")
    for uri in ("/data/upload/1/a.png", f"{web.url}/data/upload/1/a.png", "/ls/data/upload/1/a.png"):
        read(loader, uri)
    assert len(web.seen) == 1


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
