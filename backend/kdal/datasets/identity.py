"""Which images of a folder are tasks of a project already: known by what they hold and where they came from.

An image is the same when it has the same path in its folder, the same bytes, and came from the same folder; where the
folder has moved, its label tells it from another folder's image of the same name. An image that Label Studio reads
itself is the same when it has the same address.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdal.aliases import Json
from kdal.datasets.tasks import META, ORIGIN, Origin, origin_of, path_said
from kdal.images.loader import ImageLoader
from kdal.images.refs import ImageRef
from kdal.labelstudio.task_data import image_address
from kdal_core.errors import AssetError

LETTERS = 32
"""Letters of a digest that are kept: 128 bits."""


@dataclass(frozen=True)
class _Known:
    """A task of the project."""

    task: int
    address: str
    origin: Origin | None
    """None at all of a task that an older kdal imported, which told its path only."""


class Present:
    """The tasks of a project, to ask whether an image is one of them.

    Args:
        tasks: of the project, with data and meta.
        image_key: key of a task's data that holds the image's address.
        images: reads images of tasks whose origin nobody told.
    """

    def __init__(self, tasks: Iterable[Json], image_key: str, images: ImageLoader) -> None:
        self._images = images
        self._by_path: dict[str, list[_Known]] = {}
        for task in tasks:
            if (path := path_said(task, image_key)) is not None:
                known = _Known(int(task["id"]), image_address(task, image_key) or "", origin_of(task))
                self._by_path.setdefault(path, []).append(known)

    def holds(self, path: str, file: Path, folder: str, label: str, address: str | None) -> bool:
        """Whether an image of a folder is a task already.

        Args:
            path: of the image in the folder.
            file: the image itself, which may not be there.
            folder: `digest_of_folder`.
            label: digest of its label.
            address: where Label Studio reads it, if it is not uploaded.
        """
        candidates = self._by_path.get(path, ())
        if address is not None and any(known.address == address for known in candidates):
            return True
        image = digest_of_file(file) if candidates else ""
        return any(self._is(known, image, folder, label, address) for known in candidates)

    def _is(self, known: _Known, image: str, folder: str, label: str, address: str | None) -> bool:
        if known.origin is not None:
            here = known.origin.folder == folder
            return here if not image else known.origin.image == image and (here or known.origin.label == label)
        if address is not None:
            return False
        try:  # an older kdal told the path only
            return not image or digest(self._images.file(ImageRef(known.task, known.address))) == image
        except AssetError:
            return True


def add_origin(task: Json, origin: Origin) -> Json:
    """The task with its origin in its meta."""
    meta = task.get("meta") or {}
    return task | {"meta": meta | {META: {**meta.get(META, {}), ORIGIN: origin.model_dump()}}}


def digest(data: bytes) -> str:
    """Of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:LETTERS]


def digest_of_file(file: Path) -> str:
    """Of a file's bytes; empty when it cannot be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()[:LETTERS]
    except (OSError, ValueError):
        return ""


def digest_of_folder(folder: Path, address: str | None) -> str:
    """Of where a folder is: on this computer, else where Label Studio reads it."""
    return digest((address.rstrip("/") if address is not None else str(folder.resolve())).encode())


def digest_of_label(label: Any) -> str:
    """Of a label as JSON."""
    return digest(json.dumps(label, sort_keys=True).encode())
