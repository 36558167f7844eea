"""Labelled data sets as folders: lanes in TuSimple's and CULane's form, boxes in COCO's, Pascal VOC's and YOLO's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from kdal_core.datasets import voc
from kdal_core.datasets.box_scene import BoxScene, Mark
from kdal_core.datasets.coco import is_coco, read_coco, write_coco
from kdal_core.datasets.culane import LABEL_SUFFIX, label_file, list_files, read_culane, write_culane
from kdal_core.datasets.notes import Note, warn
from kdal_core.datasets.scene import LaneScene, Scene
from kdal_core.datasets.tusimple import label_files, read_tusimple, write_tusimple
from kdal_core.datasets.voc import is_voc, read_voc, write_voc
from kdal_core.datasets.yolo import is_yolo, read_yolo, write_yolo, written_label
from kdal_core.errors import ConfigError

SceneT = TypeVar("SceneT", bound=Scene)


class Reader(Protocol[SceneT]):
    """`read_tusimple` and the like."""

    def __call__(self, folder: Path, lists: Sequence[str] = (), note: Note = warn, /) -> list[SceneT]:
        """The images of a folder, of these lists alone where some are named; `note` takes what cannot be used."""


@dataclass(frozen=True)
class Folder(Generic[SceneT]):
    """A form of data sets."""

    read: Reader[SceneT]
    """`read_tusimple` and the like."""
    write: Callable[[Iterable[SceneT], Path], None]
    """`write_tusimple` and the like."""
    label_file: Callable[[SceneT], str] | None = None
    """Name of the file that an image's label is written into, where each has its own."""


LANE_FOLDERS: dict[str, Folder[LaneScene]] = {
    "tusimple": Folder(read_tusimple, write_tusimple),
    "culane": Folder(read_culane, write_culane, lambda scene: label_file(scene.path)),
}
BOX_FOLDERS: dict[str, Folder[BoxScene]] = {
    "coco": Folder(read_coco, write_coco),
    "voc": Folder(read_voc, write_voc, voc.label_file),
    "yolo": Folder(read_yolo, write_yolo, written_label),
}


def detect(folder: Path) -> str:
    """Which form a folder has: one of `LANE_FOLDERS` or `BOX_FOLDERS`.

    Raises:
        ConfigError: it is no folder, or has none of them.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    if label_files(folder):
        return "tusimple"
    if is_coco(folder):
        return "coco"
    if is_yolo(folder):
        return "yolo"
    if is_voc(folder):
        return "voc"
    if list_files(folder) or next(folder.rglob(f"*{LABEL_SUFFIX}"), None) is not None:
        return "culane"
    raise ConfigError(
        f"{folder}: neither TuSimple (a .json or .jsonl file of lines with a raw_file), CULane (list/*.txt, or "
        f"*{LABEL_SUFFIX} beside images), COCO (a .json file with images and annotations), Pascal VOC (*.xml) "
        "nor YOLO (data.yaml or classes.txt)"
    )


__all__ = [
    "BOX_FOLDERS",
    "LANE_FOLDERS",
    "BoxScene",
    "Folder",
    "LaneScene",
    "Mark",
    "Scene",
    "detect",
    "read_coco",
    "read_culane",
    "read_tusimple",
    "read_voc",
    "read_yolo",
    "write_coco",
    "write_culane",
    "write_tusimple",
    "write_voc",
    "write_yolo",
]
