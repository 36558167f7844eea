"""``<BrushLabels>``: a lane is painted. Read only."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.formats.centre_lines import centre_of_mask
from kdal.labelstudio.formats.lanes import LaneFormat
from kdal.labelstudio.formats.regions import size_of
from kdal_core.errors import LabelFormatError

Floats = NDArray[np.float64]

CHANNELS = 4
"""Values of a pixel in Label Studio's masks; the last says how much it is painted."""
MOST_PIXELS = 50_000_000
"""A mask of more is refused unread, as images are."""
LENGTH_BYTES = 4
"""Bytes at the start of a mask that say how many values it holds."""


class BrushLabelsFormat(LaneFormat):
    """Reads the centre line of what is painted, one region a lane; writes nothing.

    A mask must have the size of its image, which a prediction does not know, and nobody could drag a vertex of it:
    projects that want pre-annotations to correct take ``<VectorLabels>``.
    """

    tag: ClassVar[str] = "BrushLabels"
    on_request: ClassVar[bool] = True
    region_type: ClassVar[str] = "brushlabels"

    def _points(self, region: Json, value: Json) -> Floats:
        size = size_of(region)
        if size is None:
            raise LabelFormatError("it does not say how large its image is (original_width, original_height)")
        if value.get("format") != "rle":
            raise LabelFormatError(f"its mask is no run-length code, its format is {str(value.get('format'))[:60]!r}")
        return centre_of_mask(decode(value.get("rle"), size))

    def _values(self, points: Floats, region: str) -> list[tuple[Json, Json]]:
        return []


FORMAT = BrushLabelsFormat


def decode(code: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W): what Label Studio's run-length code of an image of `size` (width, height) paints.

    Raises:
        LabelFormatError: the code is damaged, or is of another size.
    """
    # Imported here: it takes two seconds, and few projects paint.
    from label_studio_sdk.converter.brush import decode_rle

    width, height = size
    if width * height > MOST_PIXELS:
        raise LabelFormatError(f"its mask of {width} x {height} is larger than {MOST_PIXELS:,} pixels")
    if not isinstance(code, list) or not all(isinstance(byte, int) and 0 <= byte < 256 for byte in code):
        raise LabelFormatError("its mask is no list of bytes")
    count = int.from_bytes(bytes(code[:LENGTH_BYTES]))
    if count != width * height * CHANNELS:
        raise LabelFormatError(f"its mask holds {count:,} values where an image of {width} x {height} needs 4 a pixel")
    try:
        values = decode_rle(code)
    except (ValueError, IndexError, OverflowError) as error:
        raise LabelFormatError(f"its mask is damaged ({error})") from error
    painted: NDArray[np.bool_] = values.reshape(height, width, CHANNELS)[:, :, -1] > 0
    return painted
