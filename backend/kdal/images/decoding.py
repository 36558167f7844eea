"""From the bytes of an image file to its pixels."""

from __future__ import annotations

import io
from contextlib import nullcontext
from threading import BoundedSemaphore

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from kdal_core.datasets.images import IMAGE_FORMATS, upright
from kdal_core.errors import AssetError

LARGE = 16_000_000
"""Pixels above which images are decoded two at a time: each takes up to 8 bytes a pixel meanwhile."""
STRIP = 1_000_000
"""Pixels converted at once."""
_FEW_LARGE = BoundedSemaphore(2)


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The RGB image of a file, upright, as an annotator sees it.

    Args:
        data: the file.
        max_pixels: an image of more is refused before it is decoded.

    Raises:
        AssetError: too many pixels, damaged, or no image.
    """
    limit = f"KDAL_MAX_IMAGE_PIXELS = {max_pixels:,}"
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise AssetError(f"{image.width} x {image.height} pixels, more than {limit}")
            with _FEW_LARGE if image.width * image.height > LARGE else nullcontext():
                return _as_rgb(upright(image))
    except AssetError:
        raise
    except UnidentifiedImageError as error:
        raise AssetError("not an image that can be decoded" if data else "empty") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise AssetError(f"more pixels than {limit} ({error})") from error
    except Exception as error:  # on damaged bytes Pillow raises whatever its parsers trip over
        raise AssetError(f"damaged ({error or type(error).__name__})") from error


def to_tensor(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """uint8 (3, H, W) of an RGB image, resized to ``size`` = (H, W)."""
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _as_rgb(image: Image.Image) -> Image.Image:
    """What the annotator sees: 16 bits as 8, transparent places white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _of_deep_grey(image).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        upper = image.convert("RGBA")
        del image
        found = Image.new("RGB", upper.size, "white")
        found.paste(upper, mask=upper)
        return found
    return image.convert("RGB")


def _of_deep_grey(image: Image.Image) -> Image.Image:
    """8 bits of an image with one number a pixel, a strip at a time: as floats, 50 million would take gigabytes."""
    low, high = 0.0, 65535.0  # whole numbers are 16 bits deep
    if image.mode == "F":  # for fractions nothing says which is white but the image itself
        low, high = (float(str(value)) for value in image.getextrema())
    found = np.zeros((image.height, image.width), dtype=np.uint8)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height if high > low else 0, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        values = np.asarray(strip, dtype=np.float64)
        found[top : top + rows] = ((values - low) * (255 / (high - low))).clip(0, 255).round()
    return Image.fromarray(found)
