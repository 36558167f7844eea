"""What the panels of a project's page are made from."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property

from kdal.aliases import Json
from kdal.resources import Resources
from kdal.rounds.estimates import estimates_of
from kdal.rounds.store import RoundStore
from kdal.web.pages.background import Answer, Background
from kdal.web.pages.pictures import Pictures
from kdal.web.pages.policy_store import PolicyStore
from kdal.web.pages.reading import Standing
from kdal_core.errors import KdalError

TITLES_FRESH, PEOPLE_FRESH = 60.0, 300.0
"""Seconds after which Label Studio is asked again for a project's title, and for the names of its people."""


class LabelStudioNames:
    """What things are called in Label Studio, asked for in the background."""

    def __init__(self, resources: Resources) -> None:
        self._client = resources.label_studio
        self._base = (resources.settings.label_studio_public_url or resources.settings.label_studio_url).rstrip("/")
        self._titles: Background[str] = Background(self._title, TITLES_FRESH)
        self._people: Background[dict[int, str]] = Background(lambda _: self._client.people(), PEOPLE_FRESH)

    def title(self, project: int) -> Answer[str]:
        """A project's title, as far as it is known by now."""
        return self._titles.get(project)

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


@dataclass(frozen=True, eq=False)
class View:
    """One look at one project: what the tables said of it at one moment, and where more is to be had."""

    resources: Resources
    names: LabelStudioNames
    standing: Standing
    pictures: Pictures
    policies: PolicyStore

    @cached_property
    def estimates(self) -> Json:
        """What the rounds have found out about themselves, see `kdal.rounds.estimates.estimates_of`."""
        return estimates_of(self.resources.storage, self.resources.assets, self.standing.project)

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
