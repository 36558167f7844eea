"""Handing files and tasks over to Label Studio, which refuses all of a request for one thing that it does not take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from kdal.aliases import Json
from kdal.datasets.source import SourceImage
from kdal.datasets.tasks import origin_of
from kdal.labelstudio.client import LabelStudioClient, LabelStudioError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

REFUSED = (400, 413, 415, 422)
"""Statuses by which Label Studio refuses what a request holds, and not the request as such."""


class Upload:
    """Hands files and tasks over to Label Studio. What it refuses is left out by name, and the rest goes on."""

    def __init__(self, client: LabelStudioClient, project: int, left_out: list[str]) -> None:
        self._client, self._project, self._left_out = client, project, left_out
        self._refused_suffixes: dict[str, str] = {}

    def files(self, images: Sequence[SourceImage]) -> list[tuple[SourceImage, str]]:
        """Upload images; returns those that were taken with their addresses."""
        taken = []
        for image in images:
            reason = self._refused_suffixes.get(PurePosixPath(image.scene.path).suffix.lower())
            if reason is None:
                taken.append(image)
            else:
                self._leave_out(image.scene.path, reason)

        def send(some: Sequence[SourceImage]) -> list[tuple[SourceImage, str]]:
            files = [(PurePosixPath(image.scene.path).name, image.data) for image in some]
            return list(zip(some, self._client.upload_files(self._project, files), strict=True))

        def refuse(image: SourceImage, error: LabelStudioError) -> None:
            suffix = PurePosixPath(image.scene.path).suffix.lower()
            if suffix and f"{suffix} extension" in str(error).lower():
                self._refused_suffixes[suffix] = str(error)
            self._leave_out(image.scene.path, str(error))

        return send_all(taken, send, refuse)

    def tasks(self, tasks: Sequence[Json]) -> int:
        """Make tasks; returns how many there are more."""

        def send(some: Sequence[Json]) -> list[int]:
            return [self._client.import_tasks(self._project, some)]

        def refuse(task: Json, error: LabelStudioError) -> None:
            origin = origin_of(task)
            self._leave_out("a task" if origin is None else origin.path, str(error))

        return sum(send_all(tasks, send, refuse))

    def _leave_out(self, path: str, reason: str) -> None:
        self._left_out.append(f"{path}: Label Studio refuses it: {reason}")


def send_all(
    items: Sequence[Item],
    send: Callable[[Sequence[Item]], Sequence[Answer]],
    refuse: Callable[[Item, LabelStudioError], None],
) -> list[Answer]:
    """Send items, those that are refused apart from the others: a refused half is sent in halves.

    Args:
        items: what to send.
        send: sends several; returns an answer for each.
        refuse: told of an item that is refused on its own, and why.

    Raises:
        LabelStudioError: Label Studio cannot be reached, or refuses us.
    """
    if not items:
        return []
    try:
        return list(send(items))
    except LabelStudioError as error:
        if error.status not in REFUSED:
            raise
        if len(items) == 1:
            refuse(items[0], error)
            return []
    half = len(items) // 2
    return send_all(items[:half], send, refuse) + send_all(items[half:], send, refuse)
