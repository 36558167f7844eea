"""A lane data set's images <-> Label Studio tasks, so that a folder that went in comes out as it was.

What Label Studio has no place for goes along in a task's ``meta`` (what else the data set says of the image, lanes
that cannot be drawn because they have fewer than two points) and in a region's ``meta`` (where a lane has a gap).
Label Studio's editor keeps both.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from kdal.aliases import Json
from kdal.labelstudio.formats.lanes import LaneFormat
from kdal.labelstudio.formats.regions import Drawing, same_shape
from kdal.labelstudio.formats.vectors import VectorLabelsFormat
from kdal_core.datasets import LaneScene
from kdal_core.datasets.culane import LISTS
from kdal_core.datasets.scene import safe_path
from kdal_core.datasets.tusimple import LABEL_FILE, at_rows, gaps_of, record_of, rows_of
from kdal_core.errors import LabelFormatError
from kdal_core.tasks.lane import clean_lane, without_repeats

Floats = NDArray[np.float64]
Size = tuple[int, int]
Model = TypeVar("Model", bound=BaseModel)

META = "kdal"
"""Key of what is ours in the meta of tasks and regions."""
PATH = "path"
"""Key of a task's data that says which file of the folder its image is."""
IMPORTED = "import-"
"""What ids of imported regions begin with: nobody drew them, so they have no habits to be cleaned of."""
DEFAULT_LISTS = {"tusimple": LABEL_FILE, "culane": f"{LISTS}/train.txt"}
"""Where images are listed that came from no folder of this form."""


class Labels(StrEnum):
    """What becomes of the folder's lanes."""

    annotations = "annotations"
    """Labels, as if somebody had drawn them."""
    predictions = "predictions"
    """Suggestions that annotators correct."""
    none = "none"
    """Nothing: only the images come in."""


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
    scene: LaneScene, form: str, drawer: LaneFormat, address: str, size: Size, label: int, labels: Labels
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
    task: Json = {"data": {drawer.image_key: address, PATH: scene.path}}
    if scene.lanes is not None and labels is Labels.annotations:
        # No ground truth, which Label Studio takes imported annotations for: a correction must count more.
        task["annotations"] = [{"result": regions, "ground_truth": False}]
    elif scene.lanes is not None and labels is Labels.predictions:
        task["predictions"] = [{"result": regions, "model_version": "import"}]
    if labels is not Labels.none:
        meta.undrawn = undrawn
    return task | {"meta": {META: meta.model_dump(mode="json")}}


def scene_of(task: Json, form: str, drawer: LaneFormat, actual: Size | None, decimals: int, number: int) -> LaneScene:
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
    meta = told(TaskMeta, task, where)
    if meta.form != form:  # it came from a folder of another form: that one's lists and keys say nothing here
        meta = TaskMeta()
    lanes = [_lane(drawing, drawer, size, decimals, where) for drawing in drawings]
    if form == "tusimple":
        rows = meta.extra.setdefault("h_samples", rows_of(size[1]))
        gaps = [told(RegionMeta, {"meta": drawing.meta}, where).gaps for drawing in drawings]
        on_rows = [at_rows(lane, rows, gap) for lane, gap in zip(lanes, gaps, strict=True)]
        lanes = [np.round(lane, decimals) for lane in on_rows if len(lane)]  # one between two rows cannot be told
    for position, points in meta.undrawn:
        lanes.insert(position, np.array(points, dtype=np.float64).reshape(-1, 2))
    text = f"/{path}" if form == "culane" else ""
    scene = LaneScene(path, tuple(lanes), meta.extra, meta.lists or {DEFAULT_LISTS[form]: (number, text)})
    for name in scene.lists:
        safe_path(name, where)
    if form == "tusimple":
        record_of(scene)  # what cannot be written is this task's fault, and no other's
    return scene


def path_of(task: Json, image_key: str, folder: str = "images") -> str:
    """Where a task's image is put in a folder: where it came from, else in this one by its number and name."""
    said = task["data"].get(PATH)
    if isinstance(said, str):
        return safe_path(said, f"task {task['id']}")
    name = PurePosixPath(unquote(urlsplit(str(task["data"].get(image_key))).path)).name
    return safe_path(f"{folder}/{task['id']}-{name or 'image'}", f"task {task['id']}")


def _lane(drawing: Drawing, drawer: LaneFormat, size: Size, decimals: int, where: str) -> Floats:
    """(n, 2) pixels."""
    try:
        points = drawing.points[np.isfinite(drawing.points).all(axis=1)]
        if not isinstance(drawer, VectorLabelsFormat):
            points = clean_lane(points).points  # centre lines have a point for each row
        elif not drawing.region.startswith(IMPORTED):
            points = without_repeats(points)
        if len(points) < 2:
            raise LabelFormatError("it is a single point")
    except LabelFormatError as error:
        raise LabelFormatError(f"{where}: region {drawing.region}: {error}") from error
    pixels: Floats = np.round(points * size, decimals)
    return pixels


def drawn_size(drawings: Sequence[Drawing], actual: Size | None, where: str) -> Size:
    """(width, height) in pixels; the image's own counts more than what a region says of it.

    Raises:
        LabelFormatError: regions of another shape than the image, or nobody says how large it is; names the task.
    """
    for drawing in drawings:
        if drawing.size is not None and actual is not None and not same_shape(drawing.size, actual):
            raise LabelFormatError(
                f"{where}: region {drawing.region}: it was drawn on {drawing.size[0]} x {drawing.size[1]} pixels, "
                f"its image has {actual[0]} x {actual[1]}: these are not the same image"
            )
    said = actual or next((drawing.size for drawing in drawings if drawing.size is not None), None)
    if said is None and drawings:
        raise LabelFormatError(f"{where}: its image cannot be read, and no region says how large it is")
    return said or (1280, 720)


def told(kind: type[Model], item: Json, where: str) -> Model:
    """What the meta of a task or region says to us.

    Raises:
        LabelFormatError: it is damaged; says where.
    """
    meta = item.get("meta")
    try:
        return kind.model_validate(meta.get(META, {}) if isinstance(meta, dict) else {})
    except ValidationError as error:
        raise LabelFormatError(f"{where}: its meta is damaged ({error.errors()[0]['msg']})") from error
