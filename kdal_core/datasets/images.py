"""Which way up an image is, and how large: one rule for every reader of data sets and for the plugin.

Cameras that are held upright store the picture lying on its side, and note in EXIF how to turn it. People see it
turned, and so their labels mean the turned picture.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.TiffImagePlugin import TiffImageFile

from kdal_core.errors import ConfigError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
Image.init()
WANTED_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
IMAGE_FORMATS = [name for name in WANTED_FORMATS if name in Image.OPEN]
"""What is opened. Pillow knows more, EPS among them, for which it would start Ghostscript on a stranger's file."""
ORIENTATION = 0x0112
"""EXIF's tag of how a camera was held."""
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""Its values, and what sets such an image upright; 1 is upright already."""
SIDEWAYS = (5, 6, 7, 8)
"""Its values for images that are shown turned by a quarter: width and height change places."""


def upright(image: Image.Image) -> Image.Image:
    """The decoded image as people see it. May be the image itself: use it before its file is closed.

    Damaged EXIF is no reason to refuse an image: browsers show it as it is stored, and so does this.

    Raises:
        Exception: whatever Pillow's parsers trip over in a damaged image.
    """
    image.load()
    # A TIFF is turned by Pillow as it is loaded.
    turn = None if image.format == "TIFF" else TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in pixels of an opened image as people see it, that is of `upright`.

    Only the head of the file is needed, unless a PNG has its EXIF at the end.
    """
    # An opened TIFF has the size that it will have when it is loaded, unless only its XMP says that it is to be turned.
    turned = isinstance(image, TiffImageFile) and image.tag_v2.get(ORIENTATION) in SIDEWAYS
    return image.size[::-1] if _orientation(image) in SIDEWAYS and not turned else image.size


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF: Pillow raises whatever its parser trips over
        return 1
    return found if isinstance(found, int) else 1


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels of an image file as people see it; only its head is read.

    Raises:
        ConfigError: it is not there, or it is no image.
    """
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            return upright_size(image)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such image") from error
    except UnidentifiedImageError as error:
        why = "it is empty" if path.stat().st_size == 0 else "it is no image that can be read"
        raise ConfigError(f"{path}: {why}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ConfigError(f"{path}: it has too many pixels ({error})") from error
    except Exception as error:  # on damaged bytes Pillow raises whatever its parsers trip over
        raise ConfigError(f"{path}: it is no image that can be read ({error or type(error).__name__})") from error
