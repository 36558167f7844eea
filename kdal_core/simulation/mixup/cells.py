"""A grid's cells, and the file that keeps them: a line for each, written when it is finished."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from kdal_core.errors import ConfigError


@dataclass(frozen=True)
class Cell:
    """One student.

    Attributes:
        real: its real images.
        mixes: that were asked about.
        choice: how these were chosen.
        seed: of the run.
        accuracy: on the test images, in [0, 1].
        agreement: share of the test images of which it says what the teacher says, in [0, 1].
        seconds: of the processor, from the cell before to this one: choosing, asking, training, testing.
    """

    real: int
    mixes: int
    choice: str
    seed: int
    accuracy: float
    agreement: float
    seconds: float

    def __post_init__(self) -> None:
        for name in ("accuracy", "agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"A cell has the {name} {getattr(self, name)}; it must lie in [0, 1].")
        if not 0 <= self.seconds < math.inf:
            raise ConfigError(f"A cell took {self.seconds} seconds; that must be finite and not negative.")

    @property
    def key(self) -> tuple[int, str, int, int]:
        """Tells it from all others of a grid."""
        return self.real, self.choice, self.seed, self.mixes


class CellFile:
    """The cells of a grid in a file of JSON lines, behind a first line that says which grid and which teacher.

    Args:
        path: of the file; its folder is made when it is first written.
        fingerprint: all settings that a cell depends on. A file of other settings is refused, and never written over.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self._settings = path, json.loads(fingerprint)

    def read(self) -> tuple[float | None, list[Cell]]:
        """The teacher's accuracy, None where nothing has been written yet, and the finished cells in their order.

        Raises:
            ConfigError: it belongs to other settings, or is damaged.
        """
        if not self.path.is_file():
            return None, []
        try:
            lines = [json.loads(line) for line in self._whole_lines()]
            if not lines:
                return None, []
            first, cells = lines[0], [Cell(**line) for line in lines[1:]]
            settings, teacher = first["grid"], float(first["teacher"])
        except (OSError, ValueError, TypeError, KeyError, ConfigError) as error:
            raise ConfigError(
                f"{str(self.path)!r} is damaged ({error}): mend it, or start again with --fresh."
            ) from error
        if settings != self._settings:
            raise ConfigError(
                f"{str(self.path)!r} was made with other settings. Write to another folder with --out, or start again "
                "with --fresh."
            )
        if len({cell.key for cell in cells}) != len(cells):
            raise ConfigError(f"{str(self.path)!r} holds a cell twice: mend it, or start again with --fresh.")
        return teacher, cells

    def begin(self, teacher: float) -> None:
        """Write the first line, or drop what a killed process left of a last one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._whole_lines() if self.path.is_file() else []
        draft = self.path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text("\n".join(lines or [json.dumps({"grid": self._settings, "teacher": teacher})]) + "\n")
        draft.replace(self.path)

    def add(self, cell: Cell) -> None:
        """Append a cell."""
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(cell)) + "\n")

    def _whole_lines(self) -> list[str]:
        return [line.rstrip("\n") for line in _lines(self.path) if line.endswith("\n")]


def _lines(path: Path) -> Iterable[str]:
    return path.read_text().splitlines(keepends=True)
