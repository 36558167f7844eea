"""What a campaign measured, and its file: everything that the report is made of, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, TypeVar

from kdal_core.errors import ConfigError

Read = TypeVar("Read")


@dataclass(frozen=True)
class Point:
    """One round of one campaign.

    Attributes:
        round: number of the round.
        labels: labels bought so far.
        score: the deployed model's metric on the test images, in [0, 1].
        scores: {model: the same} of student, teacher and distilled, those of them that were trained.
        wrong: wrong labels among those bought so far.
        annotator_seconds: the annotator's time so far.
        compute_seconds: the machine's time in this round alone.
        noise_auroc: how well the label-noise score tells wrong labels from right ones, in [0, 1]; None: not measured.
        picked: {trait: mean over the images labelled in this round}; data without traits has none.
        offered: {trait: mean over the images that these were chosen from}.
        correlations: {score: {mark: Spearman's over the images still unlabelled}}, in [-1, 1]; the marks are the
            traits, the model's error and whether the label would be wrong. Measured where an arm sees the gaps.
    """

    round: int
    labels: int
    score: float
    wrong: int
    annotator_seconds: float
    compute_seconds: float
    noise_auroc: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    picked: dict[str, float] = field(default_factory=dict)
    offered: dict[str, float] = field(default_factory=dict)
    correlations: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"The point of round {self.round}"
        if not 0 <= self.wrong <= self.labels:
            raise ConfigError(f"{where} tells of {self.wrong} wrong labels among {self.labels}.")
        measured = {name: getattr(self, name) for name in ("score", "noise_auroc")}
        for name, value in (measured | {f"score of {model}": score for model, score in self.scores.items()}).items():
            if value is not None and not 0 <= value <= 1:  # NaN is refused here too
                raise ConfigError(f"{where} has {name} {value}; it must lie in [0, 1].")
        for name in ("annotator_seconds", "compute_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{where} has {name} {getattr(self, name)}; it must be finite and not negative.")
        if self.picked.keys() != self.offered.keys():
            raise ConfigError(f"{where} must tell the same traits of the images picked and of those offered.")
        for score, marks in self.correlations.items():
            for mark, rho in marks.items():
                if not -1 <= rho <= 1:
                    raise ConfigError(
                        f"{where} has a correlation {rho} of {score} with {mark}; it must lie in [-1, 1]."
                    )


@dataclass(frozen=True)
class Run:
    """One campaign of one arm with one seed; fewer points than its neighbours while it is under way."""

    arm: str
    seed: int
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        for before, after in pairwise(self.points):
            if after.labels <= before.labels or after.round <= before.round:
                raise ConfigError(f"Rounds and labels must grow from point to point; those of {self.name} do not.")

    @property
    def name(self) -> str:
        """The run in words, for messages."""
        return f"arm {self.arm!r}, seed {self.seed}"


@dataclass(frozen=True)
class Results:
    """All runs of a campaign, finished or not.

    Attributes:
        campaign: its name.
        description: what it is about, for people.
        metric: name of the score, for example "accuracy".
        baseline: the arm that all others are compared with.
        full: {seed: score in [0, 1] with every label of the pool}; seeds may be missing while it is under way.
        full_labels: number of labels of the pool; 0 until the run with all of them is finished.
        runs: at most one for each arm and seed.
        environment: date, machine, command, versions.
        settings: the campaign file as read.
    """

    campaign: str
    description: str
    metric: str
    baseline: str
    full: dict[int, float]
    full_labels: int
    runs: tuple[Run, ...]
    environment: dict[str, str]
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        seen = set()
        for run in self.runs:
            if (run.arm, run.seed) in seen:
                raise ConfigError(f"The results hold two runs of {run.name}.")
            seen.add((run.arm, run.seed))
        for seed, score in self.full.items():
            if not 0 <= score <= 1:
                raise ConfigError(f"The full score of seed {seed} is {score}; it must lie in [0, 1].")

    def to_json(self) -> str:
        """The results as JSON; what a campaign file holds beyond JSON's types (a date, say) becomes text."""
        return json.dumps(asdict(self), indent=1, default=str, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """The results that `to_json` wrote.

        Raises:
            ConfigError: no JSON, a missing or unknown key, a value of a wrong type or out of range.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"The results are no JSON: {error}.") from error
        entries = _entries("The results", data, cls)
        return cls(
            campaign=_text("campaign", entries["campaign"]),
            description=_text("description", entries["description"]),
            metric=_text("metric", entries["metric"]),
            baseline=_text("baseline", entries["baseline"]),
            full={_seed(key): _number(f"full[{key}]", v) for key, v in _object("full", entries["full"]).items()},
            full_labels=_whole("full_labels", entries["full_labels"]),
            runs=_tuple("runs", entries["runs"], _run),
            environment={
                k: _text(f"environment.{k}", v) for k, v in _object("environment", entries["environment"]).items()
            },
            settings=_object("settings", entries["settings"]),
        )


def _run(where: str, data: Any) -> Run:
    entries = _entries(where, data, Run)
    return Run(
        arm=_text(f"{where}.arm", entries["arm"]),
        seed=_whole(f"{where}.seed", entries["seed"]),
        points=_tuple(f"{where}.points", entries["points"], _point),
    )


def with_new_names(point: dict[str, Any]) -> dict[str, Any]:
    """A point as files have it, those of kdal 0.1 too, which called the correlations otherwise."""
    return {"correlations" if name == "goes_with" else name: value for name, value in point.items()}


def _point(where: str, data: Any) -> Point:
    entries = _entries(
        where, with_new_names(_object(where, data)), Point, younger=("scores", "picked", "offered", "correlations")
    )
    auroc = entries["noise_auroc"]
    return Point(
        round=_whole(f"{where}.round", entries["round"]),
        labels=_whole(f"{where}.labels", entries["labels"]),
        score=_number(f"{where}.score", entries["score"]),
        wrong=_whole(f"{where}.wrong", entries["wrong"]),
        annotator_seconds=_number(f"{where}.annotator_seconds", entries["annotator_seconds"]),
        compute_seconds=_number(f"{where}.compute_seconds", entries["compute_seconds"]),
        noise_auroc=None if auroc is None else _number(f"{where}.noise_auroc", auroc),
        scores=_numbers(f"{where}.scores", entries["scores"]),
        picked=_numbers(f"{where}.picked", entries["picked"]),
        offered=_numbers(f"{where}.offered", entries["offered"]),
        correlations={
            score: _numbers(f"{where}.correlations.{score}", marks)
            for score, marks in _object(f"{where}.correlations", entries["correlations"]).items()
        },
    )


def _entries(where: str, data: Any, kind: type, younger: tuple[str, ...] = ()) -> dict[str, Any]:
    """`data` as a dict that has each field of the dataclass `kind` and nothing else.

    Fields that are `younger` than files which people have kept may be missing: they are then empty.
    """
    entries = {**{name: {} for name in younger}, **_object(where, data)}
    names = [field.name for field in fields(kind)]
    if missing := [name for name in names if name not in entries]:
        raise ConfigError(f"{where}: missing {', '.join(missing)}.")
    if unknown := [name for name in entries if name not in names]:
        raise ConfigError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(names)}.")
    return entries


def _object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a JSON object, not {value!r}.")
    return value


def _tuple(where: str, value: Any, read: Callable[[str, Any], Read]) -> tuple[Read, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list, not {value!r}.")
    return tuple(read(f"{where}[{place}]", entry) for place, entry in enumerate(value))


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} must be text, not {value!r}.")
    return value


def _whole(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{where} must be a whole number, not {value!r}.")
    return value


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where} must be a finite number, not {value!r}.")
    return float(value)


def _numbers(where: str, value: Any) -> dict[str, float]:
    return {name: _number(f"{where}.{name}", entry) for name, entry in _object(where, value).items()}


def _seed(key: str) -> int:
    try:
        return int(key)  # JSON's keys are texts
    except ValueError as error:
        raise ConfigError(f"full: {key!r} is no seed; seeds are whole numbers.") from error
