"""Images of cameras that were held upright: every reader means the picture as people see it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from kdal_core.datasets import BOX_FOLDERS
from kdal_core.simulation.images import decoded, own_size

SIDES = [("a.jpg", "JPEG", {"quality": 95, "subsampling": 0}), ("a.png", "PNG", {}), ("a.tif", "TIFF", {})]


def store(folder, name, form, options, pixels, orientation=6):
    """The picture as such a camera stores it: lying on its left side (a quarter against the clock)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(folder / "images" / name, form, exif=exif, **options)


@pytest.fixture
def seen():
    """30 wide and 50 high, as people see it: the upper half dark, the lower half bright."""
    pixels = np.zeros((50, 30, 3), dtype=np.uint8)
    pixels[25:] = 250
    return pixels


def coco(folder, name):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 25, 30, 25]}
    images, categories = [{"id": 1, "file_name": name}], [{"id": 1, "name": "bright"}]
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_text(
        json.dumps({"images": images, "annotations": [box], "categories": categories})
    )


def voc(folder, name):
    (folder / "Annotations").mkdir()
    corners = "<xmin>1</xmin><ymin>26</ymin><xmax>30</xmax><ymax>50</ymax>"
    (folder / "Annotations" / "a.xml").write_text(
        f"<annotation><filename>{name}</filename><object><name>bright</name><bndbox>{corners}</bndbox></object>"
        "</annotation>"
    )
    (folder / "images").rename(folder / "JPEGImages")


@pytest.mark.parametrize("form", [coco, voc])
@pytest.mark.parametrize(("name", "kind", "options"), SIDES)
def test_a_label_that_gives_no_size_means_the_image_that_people_see(tmp_path, seen, form, name, kind, options):
    store(tmp_path, name, kind, options, seen)
    form(tmp_path, name)
    (scene,) = BOX_FOLDERS[form.__name__].read(tmp_path, [])
    assert scene.size == (30, 50)
    (mark,) = scene.marks
    assert mark.corners == pytest.approx((0, 0.5, 1, 1), abs=0.04)


@pytest.mark.parametrize(("name", "kind", "options"), SIDES)
def test_a_campaigns_image_stands_upright_in_its_own_form(tmp_path, seen, name, kind, options):
    store(tmp_path, name, kind, options, seen)
    path = tmp_path / "images" / name
    image, own = decoded(path, (25, 15))
    assert own == own_size(path) == (50, 30)
    assert image.shape == (3, 25, 15)
    assert image[:, :11].max() < 20
    assert image[:, 14:].min() > 230


def test_a_large_photo_is_decoded_at_a_part_of_its_size_and_stands_upright_all_the_same(tmp_path):
    """JPEG's own reduction works on the stored picture, before it is turned."""
    pixels = np.zeros((1600, 800, 3), dtype=np.uint8)
    pixels[800:] = 250
    store(tmp_path, "a.jpg", "JPEG", {}, pixels)
    image, own = decoded(tmp_path / "images" / "a.jpg", (160, 80))
    assert own == (1600, 800)
    assert image[:, :70].max() < 20
    assert image[:, 90:].min() > 230


def test_a_folder_of_classes_is_read_upright(tmp_path, seen):
    from kdal_core.simulation.datasets import DATASETS

    for label in ("bright", "dark"):
        for number in range(5):
            store(tmp_path / label, f"{number}.png", "PNG", {}, seen)
    images = DATASETS["folder"](tmp_path).training.resized(None).images
    columns = images.float().mean((0, 1, 2))
    rows = images.float().mean((0, 1, 3))
    assert torch.equal(columns, columns.flip(0))  # left and right alike
    assert rows[20] < 20
    assert rows[-20] > 140  # the square is filled up with black at both sides
