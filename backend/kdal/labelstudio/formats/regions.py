"""What the tags that are drawn on an image have in common: which regions count, their labels, errors that name them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import structlog
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.formats.base import Control, ControlFormat, finished_annotations
from kdal.policy import Policy
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.validation import InvalidInput

if TYPE_CHECKING:  # it imports torch, which takes seconds: reading a labelling config does not need it
    from kdal_core.tasks import Task

Floats = NDArray[np.float64]

log = structlog.get_logger()

DRAWN = ("rectangle", "ellipse", "polygon", "brush", "bitmask", "keypoint", "vector")
"""Types of regions that tools draw, with labels of their own ("rectanglelabels") or without."""
SAME_SHAPE = 0.02
"""Share by which two regions may disagree on how wide the image is for its height: some tools round its size."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """An object as somebody drew it, before it is cleaned."""

    region: str
    """Id of its region in Label Studio."""
    points: Floats
    """(n, 2) x and y as shares of the image's width and height: a lane in drawing order, two corners of a box."""
    label: int
    size: tuple[int, int] | None
    """(width, height) in pixels of the image that it was drawn on, where the region says so."""
    meta: Json
    """What the region carries beside its value."""
    note: str = ""
    """What the log should say of how it was read."""


class RegionFormat(ControlFormat, ABC):
    """Reads and writes drawn objects. A kind of object is a subclass, and below it each tag.

    The ground truth decides, else the newest finished annotation; one without regions says that the image shows none,
    unless something tells that the annotator had no say in it. A region that cannot be read is a `LabelFormatError` for
    its image: with an object missing it would teach the wrong thing.

    Raises:
        ConfigError: no label, or no image.
    """

    draws: ClassVar[bool] = True
    region_type: ClassVar[str]
    """Type of its regions in Label Studio's results, which is also the key of their labels."""
    default_classes: ClassVar[tuple[str, ...]] = ()
    """Classes of a tag that has no labels."""
    exact: ClassVar[bool] = False
    """Whether `drawings` gives back what `draw` was given, point by point: then data sets can be imported."""

    def __init__(self, control: Control) -> None:
        super().__init__(control)
        self._classes = self.default_classes or tuple(dict.fromkeys(control.labels))
        if not self._classes or control.dynamic:
            told = f': its labels come from each task\'s data (value="{control.attribute("value")}")'
            raise ConfigError(
                f'labelling config: {control} needs at least one <Label value="...">{told if control.dynamic else ""}'
            )

    @classmethod
    def matches(cls, control: Control, policy: Policy) -> bool:
        """Whether it is a control of this tag with labels on an image, and the policy wants this kind of task."""
        labelled = bool(cls.default_classes or control.labels) and not control.dynamic
        return labelled and super().matches(control, policy)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the config."""
        return self._classes

    @abstractmethod
    def task(self) -> Task:
        """The task of the core that these labels are for."""

    def target(self, task: Json) -> tuple[Any, ...]:
        """The objects of the annotation that decides, cleaned; none where it says that there are none.

        Raises:
            LabelFormatError: no finished annotation, or a region that is no such object; names task and region.
        """
        found = []
        for drawing in self.drawings(task):
            with naming(f"task {task.get('id')}: region {drawing.region}"):
                found.append(self._cleaned(drawing))
        return tuple(found)

    def drawings(self, task: Json) -> list[Drawing]:
        """The objects of the annotation that decides, as they were drawn.

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
            self._check_others(regions)
            if not drawings:
                self._check_absence(annotations[-1], regions)
            _check_sizes(drawings)
            for drawing in drawings:
                if drawing.note:
                    log.info(drawing.note, task=task.get("id"), region=drawing.region)
            return drawings

    @abstractmethod
    def result(self, prediction: NDArray[Any], size: tuple[int, int] | None = None) -> list[Json]:
        """Editable regions of one prediction, each with its score.

        Args:
            prediction: of one image, as the task decodes it.
            size: (width, height) of the image in pixels, as people see it.
        """

    def draw(self, points: Floats, label: int, region: str, size: tuple[int, int] | None = None) -> list[Json]:
        """An object as regions of this tag: one, or one for each point.

        Args:
            points: (n, 2) of `Drawing`, shares of the image's width and height.
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
    def _cleaned(self, drawing: Drawing) -> Any:
        """The object as the core knows it; `LabelFormatError` when it is none."""

    @abstractmethod
    def _points(self, region: Json, value: Json) -> Floats:
        """(n, 2) points of a region as shares; `LabelFormatError` when its value holds none."""

    @abstractmethod
    def _values(self, points: Floats, region: str) -> list[tuple[Json, Json]]:
        """What to write for points (n, 2) in per cent: of each region, its own fields and its value."""

    def _drawings(self, regions: Sequence[Json]) -> Iterable[Drawing]:
        for name, region in self._ours(regions):
            with naming(f"region {name}"):
                yield self._drawing(name, region, self._points(region, value_of(region)))

    def _ours(self, regions: Sequence[Json]) -> Iterator[tuple[str, Json]]:
        """Regions of this control with what to call them by."""
        others = {control.name for control in self._control.others}
        for name, region in _named(regions):
            if region.get("from_name") == self._control.name:
                yield name, region
            elif region.get("type") == self.region_type and region.get("from_name") not in others:
                raise LabelFormatError(
                    f'region {name}: it belongs to "{str(region.get("from_name"))[:60]}", '
                    f'the labelling config says "{self._control.name}" now'
                )

    def _check_others(self, regions: Sequence[Json]) -> None:
        """Refuse an image on which one of our objects may be drawn with another control."""
        others = {control.name: control for control in self._control.others}
        for name, region in _named(regions):
            kind = str(region.get("type"))
            if region.get("from_name") == self._control.name or kind.removesuffix("labels") not in DRAWN:
                continue
            labels = _labels_of(region, regions)
            if labels and not labels & set(self._classes):
                continue  # something else than what this control is for
            where = str(others.get(str(region.get("from_name")), f'"{str(region.get("from_name"))[:60]}"'))
            what = f'"{sorted(labels & set(self._classes))[0][:60]}"' if labels else "something without a label"
            raise LabelFormatError(
                f"region {name}: {what} is drawn with {where} here, which kdal does not read: draw it with "
                f"{self._control}, or nothing tells whether one is missing"
            )

    def _check_absence(self, annotation: Json, regions: Sequence[Json]) -> None:
        """Refuse an annotation without our regions that does not say that the image shows none."""
        if self._control.conditional:
            raise LabelFormatError(
                f"it holds no region of {self._control}, which is shown at some times only (visibleWhen, "
                "whenChoiceValue): nothing tells whether the image shows none"
            )
        if regions and "lead_time" in annotation and annotation["lead_time"] is None:
            raise LabelFormatError(
                f"it holds no region of {self._control}, only of other controls, and it was imported: nobody has said "
                "in Label Studio's editor that the image shows none"
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


def _named(regions: Sequence[Json]) -> Iterator[tuple[str, Json]]:
    """Regions with what to call them by."""
    for number, region in enumerate(regions, start=1):
        yield str(region["id"])[:60] if isinstance(region.get("id"), str | int) else f"{number}, without an id", region


def _labels_of(region: Json, regions: Sequence[Json]) -> set[str]:
    """What a drawn region is called: by its own tool, or by a ``<Labels>`` under the same id."""
    found: set[str] = set()
    for other in regions:
        if other is region or (other.get("type") == "labels" and other.get("id") == region.get("id")):
            value = other.get("value")
            named = value.get(str(other.get("type"))) if isinstance(value, Mapping) else None
            found |= {label for label in named if isinstance(label, str)} if isinstance(named, list) else set()
    return found


def value_of(region: Json) -> Json:
    """A region's value."""
    value = region.get("value")
    if not isinstance(value, dict):
        raise LabelFormatError("it has no value")
    return value


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
