"""``<Vector>``: polylines without labels, all of them lanes."""

from __future__ import annotations

from typing import ClassVar

from kdal.labelstudio.formats.vectors import VectorLabelsFormat


class VectorFormat(VectorLabelsFormat):
    """Reads and writes polylines of the one class "lane"."""

    tag: ClassVar[str] = "Vector"
    region_type: ClassVar[str] = "vector"
    default_classes: ClassVar[tuple[str, ...]] = ("lane",)


FORMAT = VectorFormat
