"""What a project's teacher has been asked about, as the assets of its rounds keep it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from kdal.images.refs import ImageRef
from kdal.rounds.store import RoundStore
from kdal.storage.assets import MissingAssetError
from kdal.teachers.mixes import Mixes
from kdal_core.errors import AssetError


@dataclass(frozen=True)
class QueryLog:
    """Everything asked in a project's life, up to a round.

    Attributes:
        teacher: its name on the server.
        classes: the teacher's, in the order of its answers.
        image_size: (H, W) at which it sees the images.
        images: real ones, in the order in which they were chosen.
        mixes: of two of them, known by their task ids.
    """

    teacher: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    images: tuple[ImageRef, ...]
    mixes: Mixes

    def save(self, store: RoundStore) -> None:
        """Write it to the assets of a round."""
        store.write_arrays("mixes.npz", **self.mixes.arrays())
        value = {
            "teacher": self.teacher,
            "classes": self.classes,
            "image_size": self.image_size,
            "images": [ref.as_json() for ref in self.images],
        }
        store.write_json("asked.json", value)

    @classmethod
    def load(cls, store: RoundStore) -> QueryLog:
        """Read it from the assets of a round.

        Raises:
            MissingAssetError: the round has asked nobody.
            AssetError: it is damaged.
        """
        value = store.read_json("asked.json")
        arrays = store.read_arrays("mixes.npz")
        try:
            return cls(
                teacher=value["teacher"],
                classes=tuple(value["classes"]),
                image_size=(value["image_size"][0], value["image_size"][1]),
                images=tuple(ImageRef(**ref) for ref in value["images"]),
                mixes=Mixes.read(arrays),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise AssetError(f"{store.key('asked.json')} or its mixes are damaged: {error}") from error

    @classmethod
    def before(cls, store: RoundStore, teacher: str) -> QueryLog | None:
        """What rounds before this one have asked this teacher; None when they have not."""
        for earlier in reversed(range(store.number)):
            try:
                found = cls.load(store.of_round(earlier))
            except MissingAssetError:
                continue
            if found.teacher == teacher:
                return found
        return None


@dataclass(frozen=True)
class StageFile:
    """A stage of mixes that is done, while its round is still asking.

    Attributes:
        mixes: known by their task ids.
        plan: (p,) int64: what the sizes of the stages were computed from.
    """

    mixes: Mixes
    plan: tuple[int, ...]


class StageLog:
    """The stages that a round has asked so far: what a killed worker's successor goes on from.

    That it began is written down by itself: when the last of the budget is spent, its stage is still to be trained.
    """

    def __init__(self, store: RoundStore) -> None:
        self._store = store
        self._files = self._read()

    @property
    def begun(self) -> bool:
        """Whether the round has begun to ask."""
        try:
            self._store.read("asked/begun.json")
        except MissingAssetError:
            return False
        return True

    def begin(self) -> None:
        """Note that the round begins to ask."""
        self._store.write_json("asked/begun.json", {"begun": True})

    @property
    def files(self) -> tuple[StageFile, ...]:
        """In the order in which they were asked."""
        return tuple(self._files)

    def add(self, mixes: Mixes, plan: tuple[int, ...]) -> None:
        """Write one down."""
        arrays = mixes.arrays() | {"plan": np.array(plan, np.int64)}
        self._store.write_arrays(_stage_file(len(self._files)), **arrays)
        self._files.append(StageFile(mixes, plan))

    def _read(self) -> list[StageFile]:
        found: list[StageFile] = []
        for place in count():
            try:
                arrays = self._store.read_arrays(_stage_file(place))
            except MissingAssetError:
                return found
            try:
                found.append(StageFile(Mixes.read(arrays), tuple(arrays["plan"].tolist())))
            except KeyError as error:
                raise AssetError(f"{self._store.key(_stage_file(place))} is damaged, it has no {error}") from error
        raise AssertionError("unreachable: some file is missing")


def _stage_file(place: int) -> str:
    return f"asked/{place:04d}.npz"


def with_task_ids(mixes: Mixes, images: tuple[ImageRef, ...]) -> Mixes:
    """Mixes of row numbers as those of the tasks in these rows."""
    tasks = np.array([ref.task_id for ref in images], np.int64)
    return replace(mixes, pairs=tasks[mixes.pairs])
