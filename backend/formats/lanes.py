"""What the tags that lanes are drawn with have in common: which regions count, their labels, errors that name them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from backend.formats.base import Control, Json, finished_annotations, require_image
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.tasks import Task, get_task
from kdal_core.tasks.lane import Lane, clean_lane, lanes_of, reduce_vertices
from kdal_core.validation import InvalidInput

Floats = NDArray[np.float64]

EDITABLE = (1e-3, 1.5e-3, 2e-3, 3e-3, 4e-3)
"""Shares of the image by which a pre-annotation may miss the prediction: the first with which it has few vertices."""
FEW = 10
"""Vertices that somebody likes to drag."""
LARGE = 1_000_000
"""Per cent of the image above which a coordinate is damage: computing with it could overflow."""
SAME_SHAPE = 0.02
"""Share by which two regions may disagree on how wide the image is for its height: some tools round its size."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """A lane as somebody drew it, before it is cleaned."""

    region: str
    """Id of its region in Label Studio."""
    points: Floats
    """(n, 2) x and y as shares of the image's width and height, in drawing order."""
    label: int
    size: tuple[int, int] | None
    """(width, height) in pixels of the image that it was drawn on, where the region says so."""
    meta: Json
    """What the region carries beside its value."""


class LaneFormat(ABC):
    """Reads and writes lanes. A tag is a subclass that knows its regions' values.

    The ground truth decides, else the newest finished annotation; one without regions says that there are no lanes.
    A region that cannot be read is a `LabelFormatError` for its image: with a lane missing it would teach the wrong
    thing.

    Raises:
        ConfigError: no label, or no image.
    """

    region_type: ClassVar[str]
    """Type of its regions in Label Studio's results, which is also the key of their labels."""
    default_classes: ClassVar[tuple[str, ...]] = ()
    """Classes of a tag that has no labels."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._image_name, self._image_key = require_image(control)
        self._classes = self.default_classes or tuple(dict.fromkeys(control.labels))
        if not self._classes:
            raise ConfigError(
                f'labelling config: <{control.tag} name="{control.name}"> needs at least one <Label value="...">'
            )

    @property
    def image_key(self) -> str:
        """Key of a task's data that holds the image's address."""
        return self._image_key

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the config."""
        return self._classes

    def task(self) -> Task:
        """Lanes of these classes."""
        return get_task("lanes", self._classes)

    def target(self, task: Json) -> tuple[Lane, ...]:
        """The lanes of the annotation that decides, cleaned; none where it says that there are none.

        Raises:
            LabelFormatError: no finished annotation, or a region that is no lane; names task and region.
        """
        lanes = []
        for drawing in self.drawings(task):
            with naming(f"task {task.get('id')}: region {drawing.region}"):
                lanes.append(clean_lane(drawing.points, drawing.label))
        return tuple(lanes)

    def drawings(self, task: Json) -> list[Drawing]:
        """The lanes of the annotation that decides, as they were drawn.

        Raises:
            LabelFormatError: as `target`.
        """
        with naming(f"task {task.get('id')}"):
            annotations = finished_annotations(task)
            if not annotations:
                raise LabelFormatError("it has no finished annotation")
            regions = annotations[-1].get("result")
            if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
                raise LabelFormatError("its annotation holds no list of regions")
            drawings = list(self._drawings(regions))
            _check_sizes(drawings)
            return drawings

    def result(self, prediction: NDArray[Any], size: tuple[int, int] | None = None) -> list[Json]:
        """One editable region for each lane, with its score.

        Args:
            prediction: (S, R + 2), as `kdal_core.tasks.lane` says.
            size: (width, height) of the image in pixels. Without it Label Studio's editor draws polylines far too
                small, all of them in the upper left corner.
        """
        regions = []
        for number, (lane, score) in enumerate(lanes_of(prediction)):
            try:
                drawn = _editable(clean_lane(lane.points, lane.label).points)
            except LabelFormatError:
                continue  # next to nothing of it lies in the image
            drawn = drawn.round(6).clip(0.0, 1.0)  # Label Studio drops points beyond the border, in silence
            for region in self.draw(drawn, lane.label, f"kdal-{self._control.name}-{number}", size):
                regions.append({**region, "score": round(score, 4)})
        return regions

    def draw(self, points: Floats, label: int, region: str, size: tuple[int, int] | None = None) -> list[Json]:
        """A lane as regions of this tag: one, or one for each point.

        Args:
            points: (n, 2) shares of the image's width and height.
            label: class number.
            region: its id.
            size: (width, height) of the image in pixels, where known.
        """
        shared: Json = {"from_name": self._control.name, "to_name": self._image_name, "type": self.region_type}
        if size is not None:
            shared |= {"original_width": size[0], "original_height": size[1], "image_rotation": 0}
        labels = {} if self.default_classes else {self.region_type: [self._classes[label]]}
        return [{**shared, **own, "value": {**value, **labels}} for own, value in self._values(points * 100, region)]

    @abstractmethod
    def _points(self, region: Json, value: Json) -> Floats:
        """(n, 2) points of a region as shares; `LabelFormatError` when its value holds none."""

    @abstractmethod
    def _values(self, points: Floats, region: str) -> list[tuple[Json, Json]]:
        """What to write for points (n, 2) in per cent: of each region, its own fields and its value."""

    def _drawings(self, regions: Sequence[Json]) -> Iterator[Drawing]:
        for name, region in self._ours(regions):
            with naming(f"region {name}"):
                yield self._drawing(name, region, self._points(region, value_of(region)))

    def _ours(self, regions: Sequence[Json]) -> Iterator[tuple[str, Json]]:
        """Regions of this control with what to call them by."""
        for number, region in enumerate(regions, start=1):
            name = str(region["id"])[:60] if isinstance(region.get("id"), str | int) else f"{number}, without an id"
            if region.get("from_name") == self._control.name:
                yield name, region
            elif region.get("type") == self.region_type:
                raise LabelFormatError(
                    f'region {name}: it belongs to "{str(region.get("from_name"))[:60]}", '
                    f'the labelling config says "{self._control.name}" now'
                )

    def _drawing(self, name: str, region: Json, points: Floats) -> Drawing:
        meta = region.get("meta")
        label = self._label(value_of(region))
        return Drawing(name, points, label, size_of(region), meta if isinstance(meta, dict) else {})

    def _label(self, value: Json) -> int:
        labels = value.get(self.region_type)
        if len(self._classes) == 1 and (self.default_classes or not labels):
            return 0
        if not isinstance(labels, list) or len(labels) != 1:
            count = len(labels) if isinstance(labels, list) else 0
            raise LabelFormatError(f"it carries {count} labels, kdal needs exactly one")
        if labels[0] not in self._classes:
            raise LabelFormatError(f'its label "{str(labels[0])[:60]}" is no <Label> of the labelling config any more')
        return self._classes.index(labels[0])


def _editable(points: Floats) -> Floats:
    """A lane (n, 2) with as few vertices as people like to drag, (m, 2)."""
    for tolerance in EDITABLE:
        reduced = reduce_vertices(points, tolerance)
        if len(reduced) <= FEW:
            break
    return reduced


def value_of(region: Json) -> Json:
    """A region's value."""
    value = region.get("value")
    if not isinstance(value, dict):
        raise LabelFormatError("it has no value")
    return value


def as_point(x: Any, y: Any) -> tuple[float, float]:
    """A vertex in per cent of the image as shares of it."""
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (x, y)):
        raise LabelFormatError("a vertex is no pair of numbers")
    if any(math.isfinite(v) and abs(v) > LARGE for v in (x, y)):
        raise LabelFormatError("a vertex lies far away from the image")
    return (x / 100, y / 100) if math.isfinite(x) and math.isfinite(y) else (math.nan, math.nan)


def size_of(region: Json) -> tuple[int, int] | None:
    """(width, height) in pixels of the image that a region was drawn on, where it says so."""
    width, height = region.get("original_width"), region.get("original_height")
    if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0 and max(width, height) < 2**31:
        return int(width), int(height)
    return None


def same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) may be of the same image, enlarged or not."""
    return abs(a[0] / a[1] - b[0] / b[1]) <= SAME_SHAPE * b[0] / b[1]


def _check_sizes(drawings: Sequence[Drawing]) -> None:
    # Percentages fit an image of another size, yet not one of another shape: that one shows something else.
    sized = [(d.region, d.size) for d in drawings if d.size is not None]
    for region, (width, height) in sized[1:]:
        first, (wide, high) = sized[0]
        if not same_shape((width, height), (wide, high)):
            raise LabelFormatError(
                f"region {region}: it was drawn on {width} x {height} pixels, region {first} on {wide} x {high}: "
                "these are not the same image"
            )


@contextmanager
def naming(what: str) -> Iterator[None]:
    """What cannot be read, with its name before the reason."""
    try:
        yield
    except (LabelFormatError, InvalidInput) as error:
        raise LabelFormatError(f"{what}: {error}") from error
