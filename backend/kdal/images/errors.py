"""Why images cannot be used."""

from __future__ import annotations

from kdal_core.errors import AssetError


class UnreachableError(AssetError):
    """Where an image is cannot be reached now: no answer, a fault of the server's, or no permission."""


class NoReadableImageError(AssetError):
    """There are images, and not one of them can be used, whatever the reasons: nothing should be concluded from it."""
