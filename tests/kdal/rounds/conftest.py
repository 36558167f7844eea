"""A stand-in Label Studio, a project of digits in it, and the engine on a real database."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kdal.labelstudio.connection import connect_backend, project_uid
from kdal.resources import Resources
from kdal.rounds.engine import Engine
from kdal.rounds.worker import Clock, Worker
from kdal.storage.tables import SETUP, Project, Round
from tests.kdal.conftest import DIGITS_CONFIG, png
from tests.kdal.label_studio import StandInLabelStudio, StandInProject

DIGITS = load_digits()
NAMES = count()
POLICY = {"budget": 3, "holdout": 0.0, "student": "tiny_cnn", "teacher": "mid_cnn", "epochs": 1}


def picture(index: int) -> str:
    """A real digit as a data: address."""
    return "data:image/png;base64," + base64.b64encode(png((DIGITS.images[index] * 15).astype(np.uint8))).decode()


def choice(digit: int | str) -> list[dict[str, Any]]:
    """An annotation's result: that digit."""
    return [{"from_name": "digit", "to_name": "image", "type": "choices", "value": {"choices": [str(digit)]}}]


def merged(policy: dict[str, Any]) -> dict[str, Any]:
    """A policy under which a round takes a moment; None takes a key out of it."""
    return {key: value for key, value in {**POLICY, **policy}.items() if value is not None}


@pytest.fixture
def label_studio() -> Iterator[StandInLabelStudio]:
    with StandInLabelStudio() as server:
        yield server


@dataclass
class FakeTime:
    """A clock that goes only when it is told to."""

    seconds: float = 1000.0
    began: datetime = field(default_factory=lambda: datetime(2026, 11, 27, 12))

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds

    @property
    def clock(self) -> Clock:
        """For the worker."""
        return Clock(lambda: self.seconds, lambda: self.began + timedelta(seconds=self.seconds))


@dataclass
class Loop:
    """A project of 12 digits, kdal's tables, and a worker that looks when it is told to."""

    label_studio: StandInLabelStudio
    resources: Resources
    engine: Engine
    worker: Worker
    time: FakeTime
    project: StandInProject

    @property
    def row(self) -> Project:
        """The project in kdal's tables."""
        found = self.resources.storage.project(self.project.id)
        assert found is not None
        return found

    @property
    def rounds(self) -> list[Round]:
        """Its rounds."""
        return self.resources.storage.rounds(self.project.id)

    def set_up(self, config: str | None = None, **policy: Any) -> None:
        """What a set-up leads to that Label Studio's API confirms."""
        config = config or self.project.label_config
        storage = self.resources.storage
        if storage.put_project(self.project.id, self.project.uid, config, merged(policy)):
            storage.accept_project(self.project.id, self.project.uid)
            self.event(SETUP)

    def event(self, *actions: str) -> None:
        """Put events into the inbox."""
        for action in actions:
            self.resources.storage.add_event(self.project.id, action)

    def look(self, seconds: float = 60.0) -> None:
        """Let the worker look once, after some time."""
        self.time.pass_(seconds)
        self.worker.look()
        self.worker.settle()

    def label(self, count: int, result: list[dict[str, Any]] | None = None) -> list[int]:
        """Label the next tasks of the queue, or any where there is none, and send the events."""
        tasks = [*self.project.queue(), *(t for t, row in self.project.tasks.items() if not row["annotations"])]
        chosen = list(dict.fromkeys(tasks))[:count]
        for task in chosen:
            digit = int(DIGITS.target[(task - 1) % 1000])
            self.label_studio.annotate(self.project, task, choice(digit) if result is None else result)
            self.event("ANNOTATION_CREATED")
        return chosen

    def wait(self, done: Callable[[], bool], what: str, looks: int = 600) -> None:
        """Wait for the engine, which works in threads of its own; looks go on meanwhile, so many of them."""
        for _ in range(looks):
            if done():
                return
            self.look(0.2)
            threading_sleep()
        raise AssertionError(
            f"{what}: {[(r.number, r.state, r.step, r.error) for r in self.rounds]}, {self.row.problem}"
        )

    def wait_open(self, number: int, looks: int = 600) -> Round:
        """Wait until a round is open and cleaned up after."""
        self.wait(
            lambda: any(r.number == number and r.state == "open" and "clean up" in r.seconds for r in self.rounds),
            f"round {number} is not open",
            looks,
        )
        return self.rounds[number]


def threading_sleep() -> None:
    """Give the engine's threads a moment."""
    import time

    time.sleep(0.05)


@pytest.fixture
def make_loop(label_studio: StandInLabelStudio, open_resources: Any) -> Iterator[Callable[..., Loop]]:
    """`make_loop(computes=False) -> Loop`: without computing, rounds stay in the engine's queue."""
    engines: list[Engine] = []

    def make(
        *,
        computes: bool = False,
        images: int = 12,
        pictures: Sequence[str] | None = None,
        config: str = DIGITS_CONFIG,
        settings: dict[str, Any] | None = None,
        **policy: Any,
    ) -> Loop:
        resources = open_resources(label_studio_url=label_studio.url, threads=1, **(settings or {}))
        engines.append(Engine(resources, computes=computes, name=f"rounds-{next(NAMES)}"))
        time = FakeTime()
        project = label_studio.project(3, config, list(pictures or [picture(i) for i in range(images)]))
        loop = Loop(label_studio, resources, engines[0], Worker(resources, engines[0], time.clock), time, project)
        connect_backend(resources.settings, resources.label_studio, 3, merged(policy))
        assert project_uid(resources.label_studio.project(3)) == project.uid
        loop.set_up(**policy)
        return loop

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def loop(make_loop: Callable[..., Loop]) -> Loop:
    """One whose rounds are not computed: what the worker decides is what is tested."""
    return make_loop()
