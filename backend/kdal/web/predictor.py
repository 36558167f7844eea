"""The models that answer /predict, one a project, kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from threading import Lock
from typing import Generic, TypeVar

from kdal.aliases import Json
from kdal.images.allowed import Sources
from kdal.images.refs import ImageRef
from kdal.labelstudio.formats import Format
from kdal.resources import Resources
from kdal.rounds.snapshot import SnapshotHeader
from kdal.rounds.store import RoundStore
from kdal.rounds.suggestions import Suggestions
from kdal.storage.tables import Project
from kdal_core.errors import AssetError
from kdal_core.models import Network
from kdal_core.tasks import Task
from kdal_core.training import infer

T = TypeVar("T")

SECONDS = 60.0
"""After which a request for predictions begins to read no further image: Label Studio gives up after 100."""
PROJECTS = 8
"""Projects whose models stay in memory; the least recently asked one leaves first."""


@dataclass(frozen=True)
class ServingModel:
    """A model with all that is needed to answer for its project."""

    network: Network
    task: Task
    format: Format
    image_size: tuple[int, int]


@dataclass
class _Entry(Generic[T]):
    """What is kept of a project: of one round, the last that was asked for."""

    lock: Lock = field(default_factory=Lock)
    loaded: tuple[int, T] | None = None


class PerProject(Generic[T]):
    """Something of a project's round, loaded when it is first asked for and when another round is.

    Args:
        load: makes it, given the project's uid and the round's number.
        size: projects that are kept.
    """

    def __init__(self, load: Callable[[str, int], T], size: int = PROJECTS) -> None:
        self._load, self._size = load, size
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._lock = Lock()

    def get(self, uid: str, number: int) -> T:
        """That of a project's round; whatever `load` raises, and nothing is kept then."""
        with self._lock:
            entry = self._entries.setdefault(uid, _Entry())
            self._entries.move_to_end(uid)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
        with entry.lock:  # the project's own: a slow load makes no other project wait
            if entry.loaded is None or entry.loaded[0] != number:
                entry.loaded = None  # two networks of a project never fill the memory at once
                entry.loaded = (number, self._load(uid, number))
            return entry.loaded[1]


class ServingModels:
    """Loads what a project serves when it is first asked, and again when a round has replaced it."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._models = PerProject(self._load_model)
        # Kept by project and round: two rounds of a project count at once.
        self._sources = PerProject(self._load_sources, 2 * PROJECTS)
        self._scores = PerProject(lambda uid, number: self._store(uid, number).order().scores)

    def model(self, project: Project) -> ServingModel | None:
        """The project's serving model; none before its first one is promoted."""
        return None if project.serving_round is None else self._models.get(project.uid, project.serving_round)

    def scores(self, project: Project, number: int) -> dict[int, float]:
        """Task id -> score in the order of a published round."""
        return self._scores.get(project.uid, number)

    def sources(self, project: Project, number: int | None) -> Sources:
        """Where the project's images may be read: as the serving model's round found them, or a published round."""
        rounds = {each for each in (project.serving_round, number) if each is not None}
        return reduce(Sources.__or__, (self._sources.get(f"{project.uid}/{each}", each) for each in rounds), Sources())

    def predict(
        self, model: ServingModel, refs: list[ImageRef], suggestions: Suggestions, sources: Sources
    ) -> tuple[dict[int, list[Json]], dict[int, str]]:
        """Regions by position in ``refs``, and why the images at other positions could not be read."""
        try:
            loaded = self._resources.images.within(sources).load(refs, model.image_size, seconds=SECONDS)
        except AssetError as error:
            return {}, dict.fromkeys(range(len(refs)), str(error))
        if not loaded.kept:
            return {}, loaded.reasons
        device = self._resources.settings.device
        predictions = infer(model.task, model.network, loaded.images, device=device).predictions
        answers = zip(loaded.kept, predictions, loaded.sizes, strict=True)
        return {position: suggestions.regions(p, size) for position, p, size in answers}, loaded.reasons

    def _load_sources(self, key: str, number: int) -> Sources:
        return SnapshotHeader.load(self._store(key.partition("/")[0], number)).sources

    def _load_model(self, uid: str, number: int) -> ServingModel:
        store = self._store(uid, number)
        network, spec = store.load_model()
        form = SnapshotHeader.load(store).format
        return ServingModel(network, form.task(), form, spec.image_size)

    def _store(self, uid: str, number: int) -> RoundStore:
        return RoundStore(self._resources.assets, uid, number)
