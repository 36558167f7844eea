"""Images as files, and where they stand in a request."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from kdal.teachers.config import IMAGE, IMAGES, PictureSettings


def encoded(image: Tensor, settings: PictureSettings) -> bytes:
    """uint8 (3, H, W) -> an image file."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    if settings.mode == "L":
        # Of three equal channels each one is the grey; Pillow's own weights would round.
        picture = picture.getchannel(1) if bool((image == image[1]).all()) else picture.convert("L")
    file = io.BytesIO()
    if settings.format == "png":
        picture.save(file, "PNG", compress_level=1)  # the default takes four times as long for a tenth of the size
    else:
        picture.save(file, "JPEG", quality=settings.quality, subsampling=0)
    return file.getvalue()


def media_type(settings: PictureSettings) -> str:
    """What HTTP calls such a file."""
    return f"image/{settings.format}"


def text_of(file: bytes) -> str:
    """A file in base64."""
    return base64.b64encode(file).decode()


def data_address(file: bytes, settings: PictureSettings) -> str:
    """A file as an address that holds it whole: data:image/png;base64,..."""
    return f"data:{media_type(settings)};base64,{text_of(file)}"


def filled(template: Any, item: Any, files: Sequence[bytes]) -> Any:
    """A request's JSON template with its images.

    >>> filled({"model": "big", "inputs": "$images"}, {"b64": "$image"}, [b"a", b"b"])
    {'model': 'big', 'inputs': [{'b64': 'YQ=='}, {'b64': 'Yg=='}]}
    >>> filled({"url": "data:image/png;base64,$image"}, None, [b"a"])
    {'url': 'data:image/png;base64,YQ=='}
    """
    if template == IMAGES:
        return [filled(item, None, [file]) for file in files]
    if isinstance(template, str):
        return template.replace(IMAGE, text_of(files[0])) if IMAGE in template else template
    if isinstance(template, dict):
        return {key: filled(value, item, files) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [filled(value, item, files) for value in template]
    return template
