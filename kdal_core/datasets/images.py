"""How large an image file is as people see it: the one rule for every reader of data sets and for the plugin."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from kdal_core.errors import ConfigError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
Image.init()
WANTED_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
IMAGE_FORMATS = [name for name in WANTED_FORMATS if name in Image.OPEN]
"""What is opened. Pillow knows more, EPS among them, for which it would start Ghostscript on a stranger's file."""
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""EXIF's tag of how a camera was held, and its values for images that are shown turned by a quarter."""
TURNED_BY_PILLOW = ("TIFF",)
"""Formats whose size Pillow already tells as it is shown."""


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in pixels of an opened image as people see it: as EXIF says it is to be turned.

    Only the head of the file is needed. It is the size of ``PIL.ImageOps.exif_transpose(image)``.
    """
    if image.format in TURNED_BY_PILLOW:
        return image.size
    return image.size[::-1] if image.getexif().get(ORIENTATION) in SIDEWAYS else image.size


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
