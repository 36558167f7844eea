"""What an interrupted distillation goes on from: a folder with a line for each stage, its mixes and its student."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from kdal_core.distillation import MixupSelection
from kdal_core.errors import ConfigError
from kdal_core.journal import Journal


@dataclass(frozen=True)
class StageRecord:
    """A stage that was trained.

    Attributes:
        number: 0 is that of the real images.
        spent: images that the ledger counts after it, answered or not.
        cost: money, likewise.
        images: images its student was trained on.
        accuracy: of its student on the test images, in [0, 1]; None without any.
        seconds: asking, choosing and training.
        loss: of the last tenth of its training.
    """

    number: int
    spent: int
    cost: float
    images: int
    accuracy: float | None
    seconds: float
    loss: float | None


@dataclass(frozen=True)
class Stages:
    """The stages so far, in `folder`.

    Attributes:
        folder: of the run.
        fingerprint: of its settings.
        stages: in order, those in the middle missing where a run was resumed (only its last stage is trained again).
        trained: whether no stage is left.
    """

    folder: Path
    fingerprint: str
    stages: tuple[StageRecord, ...] = ()
    trained: bool = False

    @classmethod
    def load(cls, folder: Path, fingerprint: str) -> Stages:
        """The journal of this folder, or an empty one.

        Raises:
            ConfigError: it belongs to other settings, or is damaged.
        """
        journal = _journal(folder, fingerprint)
        if (data := journal.read()) is None:
            return cls(folder, fingerprint)
        try:
            return cls(folder, fingerprint, tuple(StageRecord(**row) for row in data["stages"]), data["trained"])
        except (ValueError, TypeError, KeyError) as error:
            raise journal.damaged(error) from error

    def with_stage(self, record: StageRecord, selection: MixupSelection | None, student: bytes) -> Stages:
        """Write a stage down, whole or not at all; a stage that was there is replaced, and all behind it go."""
        (self.folder / "stages").mkdir(parents=True, exist_ok=True)
        if selection is not None:
            draft = self._stage(record.number, f"{os.getpid()}.npz")
            np.savez(draft, pairs=selection.pairs, lambdas=selection.lambdas, confidence=selection.confidence)
            draft.replace(self._stage(record.number, "npz"))
        self._stage(record.number, "safetensors").write_bytes(student)
        kept = tuple(stage for stage in self.stages if stage.number < record.number)
        return replace(self, stages=(*kept, record))._save()

    def finished(self) -> Stages:
        """Note that no stage is left."""
        return replace(self, trained=True)._save()

    def selections(self) -> list[MixupSelection]:
        """The mixes of the stages after that of the real images.

        Raises:
            ConfigError: a file is missing or damaged.
        """
        last = max((stage.number for stage in self.stages), default=0)
        return [self._selection(number) for number in range(1, last + 1)]

    def student(self) -> bytes:
        """The last stage's student, as a checkpoint."""
        path = self._stage(self.stages[-1].number, "safetensors")
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{str(path)!r} cannot be read ({error}): start again with --fresh.") from error

    def _selection(self, number: int) -> MixupSelection:
        path = self._stage(number, "npz")
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return MixupSelection(arrays["pairs"], arrays["lambdas"], arrays["confidence"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise ConfigError(f"{str(path)!r} cannot be read ({error}): start again with --fresh.") from error

    def _stage(self, number: int, ending: str) -> Path:
        return self.folder / "stages" / f"{number:04d}.{ending}"

    def _save(self) -> Stages:
        content = {"trained": self.trained, "stages": [asdict(stage) for stage in self.stages]}
        _journal(self.folder, self.fingerprint).write(content)
        return self


def _journal(folder: Path, fingerprint: str) -> Journal:
    return Journal(
        folder / "journal.json", fingerprint, "start again with --fresh: answers that were paid for stay in the ledger"
    )


def curve(stages: Sequence[StageRecord]) -> list[tuple[int, float]]:
    """(images that the teacher answered about, accuracy) of the stages that were scored."""
    return [(stage.images, stage.accuracy) for stage in stages if stage.accuracy is not None]
