"""What names an image, and what many of them are once they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from kdal.aliases import Json
from kdal.images.errors import NoReadableImageError
from kdal.labelstudio.task_data import image_address, why_no_address
from kdal_core.errors import AssetError

if TYPE_CHECKING:  # torch is slow to import, and a name needs none
    import torch


@dataclass(frozen=True)
class ImageRef:
    """A task's image: the task's id and the address in its data."""

    task_id: int
    uri: str
    """Empty where the data holds none."""
    missing: str = ""
    """Why there is no address."""

    @classmethod
    def of(cls, task: Json, key: str) -> Self:
        """The image of a task as Label Studio's API shows it.

        Args:
            task: ``{"id": 7, "data": {...}}``.
            key: `kdal.labelstudio.formats.Format.image_key`.
        """
        address = image_address(task, key)
        return cls(int(task["id"]), address or "", "" if address else why_no_address(task, key))

    def as_json(self) -> Json:
        """What its constructor takes, without what says nothing: a project has many of them."""
        found: Json = {"task_id": self.task_id, "uri": self.uri}
        return found | {"missing": self.missing} if self.missing else found


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """Images of those tasks of a list whose images can be read: M of them."""

    images: Sequence[torch.Tensor] | torch.Tensor
    """uint8 (M, 3, H, W), or a lazy sequence of as many when they would fill the memory."""
    kept: list[int]
    """(M,) their positions in the list."""
    sizes: list[tuple[int, int]]
    """(M,) width and height in pixels before they were resized, as people see them."""
    digests: list[bytes]
    """(M,) 16 bytes that stand for the content of each file."""
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

    def complete(self) -> Self:
        """The same, for a step that has read these images before and goes by their positions.

        Raises:
            AssetError: one of them cannot be read any more.
        """
        if self.reasons:
            raise AssetError(
                f"an image that could be read cannot be read any more: {next(iter(self.reasons.values()))}"
            )
        return self


def nothing_readable(what: str, count: int, example: str) -> str:
    """A sentence for people: not one of the images can be used, with one of the reasons."""
    return f"not one of the {count:,} {what} can be used, for example {example}"
