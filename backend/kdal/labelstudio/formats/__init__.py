"""Label Studio regions <-> labels of the core: one file per control tag, one registry.

To serve a new tag, write a module with a class that follows `Format` and name it in `FORMATS`.
"""

from __future__ import annotations

from kdal.labelstudio.formats.base import Control, Format, controls
from kdal.labelstudio.formats.brushes import BrushLabelsFormat
from kdal.labelstudio.formats.choices import ChoicesFormat
from kdal.labelstudio.formats.keypoints import KeyPointLabelsFormat
from kdal.labelstudio.formats.polygons import PolygonLabelsFormat
from kdal.labelstudio.formats.rectangles import RectangleLabelsFormat
from kdal.labelstudio.formats.vectors import VectorFormat, VectorLabelsFormat
from kdal_core.errors import ConfigError

FORMATS: dict[str, type[Format]] = {
    "Choices": ChoicesFormat,
    "VectorLabels": VectorLabelsFormat,
    "Vector": VectorFormat,
    "KeyPointLabels": KeyPointLabelsFormat,
    "PolygonLabels": PolygonLabelsFormat,
    "BrushLabels": BrushLabelsFormat,
    "RectangleLabels": RectangleLabelsFormat,
}
"""Control tag -> how its regions are read and written."""


def format_for(label_config: str) -> Format:
    """How the labels of a labelling config are read and written.

    Raises:
        ConfigError: the config has no control tag that kdal serves, several of them, or one that is
            not bound to an image; the message names the tag.
    """
    found = controls(label_config)
    served = [control for control in found if control.tag in FORMATS]
    names = ", ".join(f"<{tag}>" for tag in FORMATS)
    if not served:
        others = ", ".join(f'<{c.tag} name="{c.name}">' for c in found) or "no control tag at all"
        raise ConfigError(f"labelling config: kdal serves {names} on an <Image>, found {others}")
    if len(served) > 1:
        several = " and ".join(f'<{c.tag} name="{c.name}">' for c in served)
        raise ConfigError(
            f"labelling config: kdal serves one control tag a project, found {several}: keep one of them, "
            "or give each a project of its own"
        )
    return FORMATS[served[0].tag](served[0])


__all__ = ["FORMATS", "Control", "Format", "controls", "format_for"]
