"""What names an image, and what many of them are once they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from kdal.images.errors import NoReadableImageError

if TYPE_CHECKING:  # torch is slow to import, and a name needs none
    import torch


@dataclass(frozen=True)
class ImageRef:
    """A task's image: the task's id and the address in its data."""

    task_id: int
    uri: str


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """Images of those tasks of a list whose images can be read: M of them."""

    images: Sequence[torch.Tensor] | torch.Tensor
    """uint8 (M, 3, H, W), or a lazy sequence of as many when they would fill the memory."""
    kept: list[int]
    """(M,) their positions in the list."""
    sizes: list[tuple[int, int]]
    """(M,) width and height in pixels before they were resized, as people see them."""
    reasons: dict[int, str]
    """Position in the list -> why its image cannot be read, for all others."""

    def required(self, what: str = "images") -> Self:
        """The same, for a step that has nothing to work with when it gets no image at all.

        Args:
            what: the images, in the plural, for the message.

        Raises:
            NoReadableImageError: the list named images, one or many, and not one of them can be used.
        """
        if self.reasons and not self.kept:
            raise NoReadableImageError(nothing_readable(what, len(self.reasons), next(iter(self.reasons.values()))))
        return self


def nothing_readable(what: str, count: int, example: str) -> str:
    """A sentence for people: not one image of so many can be used, with one of the reasons."""
    return f"not one of the {count:,} {what} can be used, for example {example}"
