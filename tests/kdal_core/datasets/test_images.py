"""The size of an image is that of the picture as people see it, whatever the format and however the camera was held."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from kdal_core.datasets.images import image_size, upright_size
from kdal_core.errors import ConfigError
from kdal_core.simulation.images import decoded, own_size

TURNABLE = [(kind, {}) for kind in ("JPEG", "PNG", "TIFF", "WEBP")] + [("TIFF", {"compression": "tiff_lzw"})]


def saved(path, kind="JPEG", orientation=6, **options):
    """An image of 48 x 32 pixels, its left half white."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (48, 32))
    image.paste((255, 255, 255), (0, 0, 24, 32))
    image.save(path, kind, exif=exif.tobytes(), **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), TURNABLE)
def test_the_size_is_that_of_the_turned_picture(kind, options, orientation, tmp_path):
    path = saved(tmp_path / "a", kind, orientation, **options)
    with Image.open(path) as image:
        wanted = ImageOps.exif_transpose(image).size
    with Image.open(path) as image:
        assert upright_size(image) == image_size(path) == wanted
        image.load()
        assert upright_size(image) == wanted
    assert own_size(path) == wanted[::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), TURNABLE)
def test_campaigns_see_the_turned_picture(kind, options, orientation, tmp_path):
    path = saved(tmp_path / "a", kind, orientation, **options)
    with Image.open(path) as image:
        wanted = np.array(ImageOps.exif_transpose(image).convert("L")) > 128
    pixels, own = decoded(path, wanted.shape)
    assert own == wanted.shape
    assert np.mean((pixels[0].numpy() > 128) == wanted) > 0.97


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "there is no such image"),
        (b"", "it is empty"),
        (b"no image", "it is no image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no image that can be read"),
    ],
)
def test_what_is_no_image_is_refused_by_name(data, message, tmp_path):
    if data is not None:
        (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ConfigError, match=rf"a\.jpg: {message}"):
        image_size(tmp_path / "a.jpg")


def test_a_truncated_image_is_refused_when_it_is_decoded(tmp_path):
    path = saved(tmp_path / "a.png", "PNG")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ConfigError, match=r"a\.png.* cannot be read"):
        decoded(path, (8, 8))
