"""Mixes that a teacher was asked about, with its answers: what the assets keep of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.distillation import MixupSelection, QueryLedger, Teacher, ask, mix_images


@dataclass(frozen=True)
class Mixes:
    """m mixes.

    Attributes:
        pairs: (m, 2) int64, which images: row numbers, or whatever else they are known by.
        lambdas: (m,) weight of the first image of each.
        confidence: (m,) of the student that chose them.
        stages: (m,) int64, when they were chosen.
        probabilities: (m, C) float32, the teacher's answers.
    """

    pairs: NDArray[np.int64]
    lambdas: NDArray[np.float64]
    confidence: NDArray[np.float64]
    stages: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.pairs)

    @classmethod
    def answered(
        cls, selection: MixupSelection, stage: int, images: Tensor, teacher: Teacher, ledger: QueryLedger
    ) -> Mixes:
        """Those of a stage, with the answers that the ledger has; it costs what has not been asked yet.

        Args:
            selection: pairs of row numbers.
            stage: its number.
            images: uint8 (N, 3, H, W).
            teacher: whom to ask.
            ledger: of that teacher.
        """
        answers = ask(teacher, mix_images(images, selection.pairs, selection.lambdas), ledger).numpy()
        stages = np.full(len(selection), stage, dtype=np.int64)
        return cls(selection.pairs, selection.lambdas, selection.confidence, stages, answers)

    @classmethod
    def joined(cls, parts: Sequence[Mixes]) -> Mixes:
        """One after the other; at least one part."""
        arrays = [part.arrays() for part in parts]
        return cls(**{name: np.concatenate([array[name] for array in arrays]) for name in arrays[0]})

    @classmethod
    def none(cls, classes: int) -> Mixes:
        """No mix, of this many classes."""
        empty = np.empty(0)
        pairs, numbers = np.empty((0, 2), np.int64), np.empty(0, np.int64)
        return cls(pairs, empty, empty, numbers, np.empty((0, classes), np.float32))

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]]) -> Mixes:
        """What `arrays` gave; a `KeyError` for one that is missing."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, fit for `Assets.write_arrays`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def within(self, rows: Mapping[int, int]) -> MixupSelection:
        """Those both of whose images are at hand, as pairs of row numbers.

        Args:
            rows: what an image is known by -> its row.
        """
        at_hand = np.isin(self.pairs, list(rows)).all(axis=1)
        pairs = np.array([[rows[a], rows[b]] for a, b in self.pairs[at_hand].tolist()], np.int64).reshape(-1, 2)
        return MixupSelection(pairs, self.lambdas[at_hand], self.confidence[at_hand])
