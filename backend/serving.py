"""The models that answer /predict, one per project, kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

from backend.formats import Format
from backend.images import ImageRef
from backend.learning import DISTILLED, load_model
from backend.resources import Resources
from backend.scoring import Order
from backend.snapshots import Snapshot
from backend.storage import Project
from kdal_core.models import Network
from kdal_core.tasks import Task
from kdal_core.training import infer

Json = dict[str, Any]

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

    def model(self, project: Project) -> ServingModel | None:
        """The project's serving model; none before its first one is promoted."""
        if project.serving_round is None:
            return None
        key = (project.uid, project.serving_round)
        with self._lock:
            if key not in self._models:
                network, spec = load_model(self._resources, *key, DISTILLED)
                form = Snapshot.load(self._resources, *key).format
                self._models[key] = ServingModel(network, form.task(), form, spec.image_size)
                _trim(self._models)
            self._models.move_to_end(key)
            return self._models[key]

    def scores(self, project: Project, number: int) -> dict[int, float]:
        """Task id -> score in the order of a published round."""
        key = (project.uid, number)
        with self._lock:
            if key not in self._orders:
                self._orders[key] = Order.load(self._resources, *key).scores
                _trim(self._orders)
            return self._orders[key]

    def predict(self, model: ServingModel, refs: list[ImageRef]) -> tuple[dict[int, list[Json]], dict[int, str]]:
        """Regions by position in ``refs``, and why the images at other positions could not be read."""
        images, kept, reasons = self._resources.images.load(refs, model.image_size)
        if not kept:
            return {}, reasons
        device = self._resources.settings.device
        predictions = infer(model.task, model.network, images, device=device).predictions
        return {position: model.format.result(p) for position, p in zip(kept, predictions, strict=True)}, reasons


def _trim(cache: OrderedDict[tuple[str, int], Any]) -> None:
    while len(cache) > MODELS:
        cache.popitem(last=False)
