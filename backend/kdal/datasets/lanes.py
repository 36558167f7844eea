"""A lane data set's images <-> Label Studio tasks, so that a folder that went in comes out as it was.

What Label Studio has no place for goes along in a task's ``meta`` (what else the data set says of the image, lanes
that cannot be drawn because they have fewer than two points) and in a region's ``meta`` (where a lane has a gap).
Label Studio's editor keeps both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from kdal.aliases import Json
from kdal.datasets.adapter import Adapter, Exporting, Importing
from kdal.datasets.identity import digest_of_label
from kdal.datasets.tasks import IMPORTED, META, Labels, Size, as_task, drawn_size, path_of, read_meta
from kdal.labelstudio.formats import Format
from kdal.labelstudio.formats.regions import Drawing, RegionFormat
from kdal_core.datasets import LANE_FOLDERS, LaneScene
from kdal_core.datasets.culane import LISTS
from kdal_core.datasets.scene import safe_path
from kdal_core.datasets.tusimple import LABEL_FILE, at_rows, gaps_of, record_of, rows_of
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.tasks.lane import clean_lane, without_repeats

Floats = NDArray[np.float64]

LANE_CONFIG = (
    '<View><Image name="image" value="$image" zoom="true"/>'
    '<VectorLabels name="lane" toName="image" closable="false" curves="false" minPoints="2">'
    '<Label value="lane"/></VectorLabels></View>'
)
"""What a project gets that has no labelling config yet and is to hold lanes."""
DEFAULT_LISTS = {"tusimple": LABEL_FILE, "culane": f"{LISTS}/train.txt"}
"""Where images are listed that came from no folder of this form."""


class TaskMeta(BaseModel):
    """What a task's meta says of the data set that it came from."""

    form: str = ""
    extra: dict[str, Any] = {}
    lists: dict[str, tuple[int, str]] = {}
    undrawn: list[tuple[int, list[tuple[float, float]]]] = []
    """Lanes that cannot be drawn: their place among the lanes, and their points in pixels."""


class RegionMeta(BaseModel):
    """What a region's meta says of the lane that it came from."""

    gaps: list[tuple[float, float]] = []


def task_of(
    scene: LaneScene, form: str, drawer: RegionFormat, address: str, size: Size, label: int, labels: Labels
) -> Json:
    """The Label Studio task of an image.

    Args:
        scene: the image and its lanes.
        form: "tusimple" or "culane".
        drawer: how the project's regions are written.
        address: of the image, for the task's data.
        size: (width, height) of the image in pixels.
        label: class number of all lanes.
        labels: what becomes of the lanes.
    """
    regions: list[Json] = []
    undrawn: list[tuple[int, list[tuple[float, float]]]] = []
    for number, lane in enumerate(scene.lanes or ()):
        if len(lane) < 2:
            undrawn.append((number, [(x, y) for x, y in lane.tolist()]))
            continue
        gaps = gaps_of(lane, scene.extra["h_samples"]) if form == "tusimple" else []
        ours = {"meta": {META: {"gaps": gaps}}} if gaps else {}
        regions += [region | ours for region in drawer.draw(lane / size, label, f"{IMPORTED}{number}", size)]
    meta = TaskMeta(form=form, extra=scene.extra, lists=scene.lists)
    # Where something is on the image, and nothing of it can be drawn, no lanes would say that there is nothing.
    known = scene.lanes is not None and (bool(regions) or not any(len(lane) for lane in scene.lanes))
    if labels is not Labels.none and known:
        meta.undrawn = undrawn
    return as_task(scene.path, drawer.image_key, address, meta, regions if known else None, labels)


def scene_of(task: Json, form: str, drawer: RegionFormat, actual: Size | None, decimals: int, number: int) -> LaneScene:
    """The image of a labelled Label Studio task with its lanes.

    Args:
        task: with its annotations.
        form: "tusimple" or "culane".
        drawer: how the project's regions are read.
        actual: (width, height) of the image in pixels; none when nobody looked.
        decimals: digits behind the point that pixels are rounded to, which takes away the noise of percentages.
        number: of the task among those that are written, for its line in a list.

    Raises:
        LabelFormatError: what cannot be read or written; names task and region.
        InvalidInput: its meta does not fit its lanes.
    """
    drawings = drawer.drawings(task)
    where = f"task {task['id']}"
    size = drawn_size(drawings, actual, where)
    path = path_of(task, drawer.image_key)
    meta = read_meta(TaskMeta, task, where)
    if meta.form != form:  # it came from a folder of another form: that one's lists and keys say nothing here
        meta = TaskMeta()
    lanes = [_lane(drawing, drawer, size, decimals, where) for drawing in drawings]
    if form == "tusimple":
        rows = meta.extra.setdefault("h_samples", rows_of(size[1]))
        gaps = [read_meta(RegionMeta, {"meta": drawing.meta}, where).gaps for drawing in drawings]
        on_rows = [at_rows(lane, rows, gap) for lane, gap in zip(lanes, gaps, strict=True)]
        lanes = [np.round(lane, decimals) for lane in on_rows if len(lane)]  # one between two rows cannot be told
    for position, points in meta.undrawn:
        lanes.insert(max(0, min(position, len(lanes))), np.array(points, dtype=np.float64).reshape(-1, 2))
    text = f"/{path}" if form == "culane" else ""
    scene = LaneScene(path, tuple(lanes), meta.extra, meta.lists or {DEFAULT_LISTS[form]: (number, text)})
    for name in scene.lists:
        safe_path(name, where)
    if form == "tusimple":
        record_of(scene)  # what cannot be written is this task's fault, and no other's
    return scene


def _lane(drawing: Drawing, drawer: RegionFormat, size: Size, decimals: int, where: str) -> Floats:
    """(n, 2) pixels."""
    try:
        points = drawing.points[np.isfinite(drawing.points).all(axis=1)]
        if not drawer.exact:
            points = clean_lane(points).points  # centre lines have a point for each row
        elif not drawing.region.startswith(IMPORTED):
            points = without_repeats(points)
        if len(points) < 2:
            raise LabelFormatError("it is a single point")
    except LabelFormatError as error:
        raise LabelFormatError(f"{where}: region {drawing.region}: {error}") from error
    pixels: Floats = np.round(points * size, decimals)
    return pixels


class LaneAdapter(Adapter[LaneScene, RegionFormat]):
    """Lanes: polylines of one class, in TuSimple's and CULane's form."""

    forms = LANE_FOLDERS

    def importing(self, drawer: Format, how: Importing) -> RegionFormat:
        """Lanes are imported point by point, which needs polylines."""
        if drawer.kind != "lanes" or not isinstance(drawer, RegionFormat) or not drawer.exact:
            raise ConfigError("lanes are imported into <VectorLabels> or <Vector>")
        self._class_number(drawer, how.label)
        return drawer

    def exporting(self, drawer: Format) -> RegionFormat:
        """Lanes are written whichever tag they are drawn with."""
        if drawer.kind != "lanes" or not isinstance(drawer, RegionFormat):
            raise ConfigError("its labels are no lanes")
        return drawer

    def label_config(self, scenes: Sequence[LaneScene]) -> str:
        """One class."""
        return LANE_CONFIG

    def task_of(self, scene: LaneScene, drawer: RegionFormat, address: str, size: Size, how: Importing) -> Json:
        """See `task_of`."""
        return task_of(scene, how.form, drawer, address, size, self._class_number(drawer, how.label), how.labels)

    def scene_of(self, task: Json, drawer: RegionFormat, actual: Size | None, number: int, how: Exporting) -> LaneScene:
        """See `scene_of`."""
        return scene_of(task, how.form, drawer, actual, how.decimals, number)

    def label_digest(self, scene: LaneScene) -> str:
        """Of the lanes in pixels."""
        return digest_of_label(None if scene.lanes is None else [lane.tolist() for lane in scene.lanes])

    def remarks(self, scene: LaneScene) -> list[str]:
        """A single point is nothing that can be drawn."""
        count = sum(len(lane) == 1 for lane in scene.lanes or ())
        if not count:
            return []
        rest = "" if any(len(lane) > 1 for lane in scene.lanes or ()) else "; its label is unknown"
        return [f"{scene.path}: {count} of its lanes have a single point, and are not drawn{rest}"]

    def needs_size(self, task: Json, drawer: RegionFormat) -> bool:
        """Where a region does not say it."""
        return any(drawing.size is None for drawing in drawer.drawings(task))

    def _class_number(self, drawer: RegionFormat, label: str | None) -> int:
        if label is not None and label not in drawer.classes:
            raise ConfigError(
                f"there is no label {label!r} in the labelling config, which has: {', '.join(drawer.classes)}"
            )
        return 0 if label is None else drawer.classes.index(label)


ADAPTER = LaneAdapter()
