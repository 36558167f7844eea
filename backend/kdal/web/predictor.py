"""The models that answer /predict, one per project, kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from kdal.aliases import Json
from kdal.images.loader import ImageRef
from kdal.labelstudio.formats import Format
from kdal.resources import Resources
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import RoundStore
from kdal.storage.tables import Project
from kdal_core.errors import AssetError
from kdal_core.models import Network
from kdal_core.tasks import Task
from kdal_core.training import infer

T = TypeVar("T")

MODELS = 8
"""Projects whose models stay in memory; the least recently asked one leaves first."""


@dataclass(frozen=True)
class ServingModel:
    """A model with all that is needed to answer for its project."""

    network: Network
    task: Task
    format: Format
    image_size: tuple[int, int]


class ServingModels:
    """Loads what a project serves when it is first asked, and again when a round has replaced it."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._models: OrderedDict[tuple[str, int], ServingModel] = OrderedDict()
        self._orders: OrderedDict[tuple[str, int], dict[int, float]] = OrderedDict()
        self._lock = Lock()
        self._loading: dict[tuple[int, str, int], Lock] = {}

    def model(self, project: Project) -> ServingModel | None:
        """The project's serving model; none before its first one is promoted."""
        if project.serving_round is None:
            return None
        key = (project.uid, project.serving_round)
        return self._cached(self._models, key, lambda: self._load_model(*key))

    def scores(self, project: Project, number: int) -> dict[int, float]:
        """Task id -> score in the order of a published round."""
        key = (project.uid, number)
        return self._cached(self._orders, key, lambda: RoundStore(self._resources.assets, *key).order().scores)

    def predict(self, model: ServingModel, refs: list[ImageRef]) -> tuple[dict[int, list[Json]], dict[int, str]]:
        """Regions by position in ``refs``, and why the images at other positions could not be read."""
        try:
            loaded = self._resources.images.load(refs, model.image_size)
        except AssetError as error:
            return {}, dict.fromkeys(range(len(refs)), str(error))
        if not loaded.kept:
            return {}, loaded.reasons
        device = self._resources.settings.device
        predictions = infer(model.task, model.network, loaded.images, device=device).predictions
        answers = zip(loaded.kept, predictions, loaded.sizes, strict=True)
        return {position: model.format.result(p, size) for position, p, size in answers}, loaded.reasons

    def _load_model(self, uid: str, number: int) -> ServingModel:
        store = RoundStore(self._resources.assets, uid, number)
        network, spec = store.load_model()
        form = Snapshot.load(store).format
        return ServingModel(network, form.task(), form, spec.image_size)

    def _cached(self, cache: OrderedDict[tuple[str, int], T], key: tuple[str, int], load: Callable[[], T]) -> T:
        with self._lock:
            own = self._loading.setdefault((id(cache), *key), Lock())
        with own:  # a project's own: a slow load makes nobody else wait
            if (found := cache.get(key)) is None:
                found = load()
            with self._lock:
                cache[key] = found
                cache.move_to_end(key)
                while len(cache) > MODELS:
                    cache.popitem(last=False)
            return found
