"""What the panels of a project's page are made from."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

from kdal.aliases import Json
from kdal.resources import Resources
from kdal.rounds.estimates import estimates_of
from kdal.rounds.store import RoundStore
from kdal.web.pages.background import Answer, Background
from kdal.web.pages.pictures import Pictures
from kdal.web.pages.policy_store import PolicyStore
from kdal.web.pages.reading import Standing
from kdal_core.errors import KdalError

ESTIMATES_FRESH, MOST_KEPT = 20.0, 16
"""Seconds after which estimates are read again whatever has happened, and projects of which they are kept."""
TITLES_FRESH, PEOPLE_FRESH = 60.0, 300.0
"""Seconds after which Label Studio is asked again for a project's title, and for the names of its people."""


class LabelStudioNames:
    """What things are called in Label Studio, asked for in the background."""

    def __init__(self, resources: Resources) -> None:
        self._client = resources.label_studio
        self._base = (resources.settings.label_studio_public_url or resources.settings.label_studio_url).rstrip("/")
        self._titles: Background[str] = Background(self._title, TITLES_FRESH)
        self._people: Background[dict[int, str]] = Background(lambda _: self._client.people(), PEOPLE_FRESH)

    def title(self, project: int, wait: float = 0.0) -> Answer[str]:
        """A project's title, as far as it is known by now, or within so many seconds."""
        return self._titles.get(project, wait)

    def person(self, number: int) -> str:
        """A person's name, else their number."""
        return (self._people.get("all").value or {}).get(number, f"user {number}")

    def project_url(self, project: int) -> str:
        """Where people find a project in Label Studio."""
        return f"{self._base}/projects/{project}/data"

    def task_url(self, project: int, task: int) -> str:
        """Where people find one of its tasks."""
        return f"{self._base}/projects/{project}/data?task={task}"

    def _title(self, project: Hashable) -> str:
        if not isinstance(project, int):
            raise KdalError("a project is named by its number")
        return str(self._client.project_fields(project, "title")["title"])


class Estimates:
    """Estimates of projects, read and worked out again only when a round, the policy, or a little time has passed.

    Args:
        resources: where they are.
        clock: seconds by a clock that only goes forward.
    """

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._resources, self._clock = resources, clock
        self._kept: OrderedDict[str, tuple[str, float, Json]] = OrderedDict()
        self._lock = Lock()

    def of(self, standing: Standing) -> Json:
        """Those of a project, see `kdal.rounds.estimates.estimates_of`; raises what that raises."""
        project = standing.project
        state = json.dumps([project.policy, [(row.number, row.state, row.restarts) for row in standing.rounds[-3:]]])
        with self._lock:
            known = self._kept.get(project.uid)
        if known is not None and known[0] == state and self._clock() - known[1] < ESTIMATES_FRESH:
            return known[2]
        found = estimates_of(self._resources.storage, self._resources.assets, project)
        with self._lock:
            self._kept[project.uid] = (state, self._clock(), found)
            self._kept.move_to_end(project.uid)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return found


@dataclass(frozen=True, eq=False)
class View:
    """One look at one project: what the tables said of it at one moment, and where more is to be had."""

    resources: Resources
    names: LabelStudioNames
    standing: Standing
    pictures: Pictures
    policies: PolicyStore

    kept: Estimates

    @cached_property
    def estimates(self) -> Json:
        """What the rounds have found out about themselves, see `kdal.rounds.estimates.estimates_of`."""
        return self.kept.of(self.standing)

    @property
    def store(self) -> RoundStore | None:
        """Of the round whose order annotators have; None before the first."""
        row = self.standing.published
        return None if row is None else RoundStore(self.resources.assets, self.standing.project.uid, row.number)


@dataclass(frozen=True)
class Panel:
    """A part of a project's page.

    Attributes:
        name: of its template, its address and its place on the page.
        title: its heading.
        make: what its template shows.
        every: seconds between two looks at whether anything has changed.
        at_once: whether it comes with the page; else the page asks for it afterwards.
    """

    name: str
    title: str
    make: Callable[[View], Json]
    every: int
    at_once: bool = False
