"""Label Studio regions <-> labels of the core: one file per control tag, one registry.

To serve a new tag, write a module in this package with a class that follows `Format`, and assign it to ``FORMAT``; or
offer one from another package as an entry point of the group ``kdal.formats``.
"""

from __future__ import annotations

from kdal.labelstudio.formats.base import Control, Format, controls
from kdal.labelstudio.formats.registry import FORMATS, format_for, format_of, notes

__all__ = ["FORMATS", "Control", "Format", "controls", "format_for", "format_of", "notes"]
