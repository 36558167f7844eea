"""What a round keeps for estimates: statements for people, and what the next round needs to go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdal.aliases import Json
from kdal.rounds.store import RoundStore
from kdal.storage.assets import Assets, DamagedAssetError, MissingAssetError
from kdal.storage.database import Storage
from kdal.storage.tables import Project

if TYPE_CHECKING:  # scipy is slow to import, and who shows what was told needs none
    from kdal_core.evaluation import LearningCurve

FILE = "estimates.json"
FACT = "estimates"
"""A round's fact: it has written the file, and the "model" that serves with it."""


@dataclass(frozen=True)
class Kept:
    """The estimates of a round.

    Attributes:
        told: what `kdal.rounds.estimates.estimates_of` returns; none before a round has told anything.
        models: rounds of the models of the curve's points.
        points: fields of each `CurvePoint` of the learning curve, in the order of their labels.
        left_out: labels so far that the order had chosen.
        left: images without a label.
        labels: that the model that serves was trained on; none: no model serves.
        counts: [class, round, unchanged, changed, rejected] of all suggestions so far.
        timed: [seconds, whether there was a suggestion, annotator, round] of the last tasks.
        at_random: tasks drawn at random that have a label, and in which round each was drawn.
        rows: of the model that served last, what it said of images drawn at random, should it go on serving.
        shadow: [labels, whether it was right] of each prediction by models trained on images drawn at random alone.
    """

    told: Json | None = None
    models: list[int] = field(default_factory=list)
    points: list[Json] = field(default_factory=list)
    left_out: int = 0
    left: int = 0
    labels: int | None = None
    counts: list[list[Any]] = field(default_factory=list)
    timed: list[list[Any]] = field(default_factory=list)
    at_random: list[tuple[int, int]] = field(default_factory=list)
    rows: list[Json] = field(default_factory=list)
    shadow: list[list[int]] = field(default_factory=list)

    @property
    def curve(self) -> LearningCurve:
        """Of the models that served."""
        from kdal_core.evaluation import CurvePoint, LearningCurve
        from kdal_core.evaluation.intervals import LEVEL

        points = tuple(CurvePoint(**point) for point in self.points)
        return LearningCurve(points, sum(point.images for point in points), self.left_out, LEVEL)

    def save(self, store: RoundStore) -> None:
        """Write it to the assets."""
        store.write_json(FILE, {name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, store: RoundStore) -> Kept:
        """Read it from the assets.

        Raises:
            MissingAssetError: the round has written none.
            DamagedAssetError: what is there is none.
        """
        value = store.read_json(FILE)
        try:
            return cls(**(value | {"at_random": [(task, drawn) for task, drawn in value["at_random"]]}))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedAssetError(f"{store.key(FILE)} is damaged: {error}") from error

    @classmethod
    def newest(cls, storage: Storage, assets: Assets, project: Project, before: int | None = None) -> Kept:
        """Those of the newest round that has some, or of the newest before a round; empty ones where none has."""
        for row in reversed(storage.rounds(project.id)):
            if FACT in row.facts and (before is None or row.number < before):
                try:
                    return cls.load(RoundStore(assets, project.uid, row.number))
                except (MissingAssetError, DamagedAssetError):
                    continue
        return cls()
