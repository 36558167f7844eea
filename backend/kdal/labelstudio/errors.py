"""What goes wrong between kdal and Label Studio."""

from __future__ import annotations

from kdal_core.errors import KdalError


class LabelStudioError(KdalError):
    """Label Studio is down, refuses us, or answers what we cannot use."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether the same call may work later: no answer at all, too busy, a fault of the server's, a detour."""
        return self.status is None or self.status in (302, 303, 307, 408, 409, 429) or self.status >= 500
