"""From the bytes of an image file to its pixels."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from kdal_core.datasets.images import IMAGE_FORMATS, upright
from kdal_core.errors import AssetError


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
        values = np.asarray(image, dtype=np.float64)
        # Whole numbers are 16 bits deep; for fractions nothing says which is white but the image itself.
        low, high = (0.0, 65535.0) if image.mode != "F" else (float(values.min()), float(values.max()))
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        upper = image.convert("RGBA")
        white = Image.new("RGBA", upper.size, "white")
        return Image.alpha_composite(white, upper).convert("RGB")
    return image.convert("RGB")
