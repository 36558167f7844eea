"""A kdal for each test of the labelling loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdal.processes.embedded import EmbeddedLabelStudio
from tests.integration.harness import Digits, Project
from tests.integration.loop.running import RunningKdal
from tests.integration.proxy import Proxy


@pytest.fixture
def make_kdal(label_studio: EmbeddedLabelStudio, tmp_path: Path) -> Iterator[Callable[..., RunningKdal]]:
    """`make_kdal(**environment) -> RunningKdal`, nothing started yet, stopped after the test.

    To start one takes 15 seconds of a processor: it is for tests that need other settings than `kdal` has.
    """
    made: list[RunningKdal] = []

    def make(**environment: str) -> RunningKdal:
        made.append(RunningKdal(tmp_path / f"kdal-{len(made)}", label_studio, **environment))
        return made[-1]

    yield make
    for kdal in made:
        kdal.stop()


@pytest.fixture(scope="package")
def kdal(label_studio: EmbeddedLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKdal]:
    """A kdal that runs for all tests which do nothing to it, each with a project of its own."""
    running = RunningKdal(tmp_path_factory.mktemp("kdal"), label_studio)
    yield running.start()
    running.stop()


@pytest.fixture(scope="package")
def shared_killable_kdal(
    label_studio: EmbeddedLabelStudio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningKdal]:
    running = RunningKdal(tmp_path_factory.mktemp("killable-kdal"), label_studio)
    yield running
    running.stop()


@pytest.fixture
def killable_kdal(shared_killable_kdal: RunningKdal) -> RunningKdal:
    """A kdal that runs for all tests which kill its processes, each with a project of its own.

    What one test killed and did not start again is started for the next.
    """
    return shared_killable_kdal.start()


@pytest.fixture(scope="package")
def proxy(label_studio: EmbeddedLabelStudio) -> Iterator[Proxy]:
    """What stands between Label Studio and `kdal_behind_proxy`."""
    with Proxy() as between:
        between.target = label_studio.url
        yield between


@pytest.fixture(scope="package")
def kdal_behind_proxy(
    label_studio: EmbeddedLabelStudio, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningKdal]:
    """A kdal that reaches Label Studio through `proxy`, and looks at it every second, events or none."""
    running = RunningKdal(
        tmp_path_factory.mktemp("kdal"), label_studio, LABEL_STUDIO_URL=proxy.url, KDAL_RECONCILE_SECONDS="1"
    )
    yield running.start()
    running.stop()


@pytest.fixture
def digits_project(
    make_project: Callable[..., Project], digits: Callable[..., Digits]
) -> Callable[[int], tuple[Project, dict[int, int]]]:
    """`digits_project(n) -> (project, truth)`: a project of n real digits; truth: task id -> digit."""

    def make(n: int) -> tuple[Project, dict[int, int]]:
        found = digits(n)
        project = make_project(images=found.images)
        return project, dict(zip(project.task_ids, found.labels, strict=True))

    return make
