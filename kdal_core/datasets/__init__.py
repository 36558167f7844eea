"""Lane data sets as folders: TuSimple's form and CULane's, read and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdal_core.datasets.culane import LABEL_SUFFIX, list_files, read_culane, write_culane
from kdal_core.datasets.scene import LaneScene
from kdal_core.datasets.tusimple import label_files, read_tusimple, write_tusimple
from kdal_core.errors import ConfigError


@dataclass(frozen=True)
class LaneFolder:
    """A form of lane data sets."""

    read: Callable[[Path, Sequence[str]], list[LaneScene]]
    """`read_tusimple`, `read_culane`."""
    write: Callable[[Iterable[LaneScene], Path], None]
    """`write_tusimple`, `write_culane`."""


LANE_FOLDERS = {
    "tusimple": LaneFolder(read_tusimple, write_tusimple),
    "culane": LaneFolder(read_culane, write_culane),
}


def detect(folder: Path) -> str:
    """Which form a folder has: "tusimple" or "culane".

    Raises:
        ConfigError: it is no folder, or has neither.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    if label_files(folder):
        return "tusimple"
    if list_files(folder) or next(folder.rglob(f"*{LABEL_SUFFIX}"), None) is not None:
        return "culane"
    raise ConfigError(
        f"{folder}: neither TuSimple (a .json or .jsonl file of lines with a raw_file) "
        f"nor CULane (list/*.txt, or *{LABEL_SUFFIX} beside images)"
    )


__all__ = [
    "LANE_FOLDERS",
    "LaneFolder",
    "LaneScene",
    "detect",
    "read_culane",
    "read_tusimple",
    "write_culane",
    "write_tusimple",
]
