"""A box data set's images <-> Label Studio tasks, so that a folder that went in comes out as it was.

What Label Studio has no place for goes along in a task's ``meta`` (what else the data set says of the image, boxes that
cannot be drawn because they have no size) and in a region's ``meta`` (what the file says of the box, to its last
digit). A box that somebody moved or renamed loses what no longer holds of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from pydantic import BaseModel

from kdal.aliases import Json
from kdal.datasets.adapter import Adapter, Exporting, Importing
from kdal.datasets.identity import digest_of_label
from kdal.datasets.tasks import IMPORTED, META, Labels, Size, as_task, drawn_size, path_of, read_meta
from kdal.labelstudio.formats import Format
from kdal.labelstudio.formats.regions import RegionFormat, naming, same_shape
from kdal_core.datasets import BOX_FOLDERS, BoxScene, Mark
from kdal_core.datasets.box_scene import class_names
from kdal_core.datasets.coco import LABEL_FILE, record_of
from kdal_core.datasets.scene import safe_path
from kdal_core.datasets.voc import IMAGES, LISTS, label_of
from kdal_core.datasets.yolo_settings import names_of
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.tasks.box import MOST_BOXES, SAME, clean_box

Corners = tuple[float, float, float, float]

IMAGE_FOLDERS = {"coco": "images", "voc": IMAGES, "yolo": "images"}
"""Where images are put that came from no folder."""


class BoxTaskMeta(BaseModel):
    """What a task's meta says of the data set that it came from."""

    form: str = ""
    extra: dict[str, Any] = {}
    lists: dict[str, tuple[int, str]] = {}
    size: tuple[int, int] | None = None
    """(width, height) of the image in pixels."""
    undrawn: list[tuple[int, str, Corners, dict[str, Any]]] = []
    """Boxes that cannot be drawn: their place among the boxes, label, corners, and what the file says of them."""


class MarkMeta(BaseModel):
    """What a region's meta says of the box that it came from."""

    form: str = ""
    mark: dict[str, Any] = {}


def task_of(scene: BoxScene, form: str, drawer: RegionFormat, address: str, size: Size, labels: Labels) -> Json:
    """The Label Studio task of an image.

    Args:
        scene: the image and its boxes.
        form: "coco", "voc" or "yolo".
        drawer: how the project's regions are written.
        address: of the image, for the task's data.
        size: (width, height) of the image in pixels.
        labels: what becomes of the boxes.

    Raises:
        LabelFormatError: a box whose label the project does not have, or a label for an image of another size.
    """
    if scene.marks and len(scene.marks) > MOST_BOXES:
        count = len(scene.marks)
        raise LabelFormatError(f"{scene.path}: it has {count:,} boxes, more than anybody draws ({MOST_BOXES:,})")
    if scene.size is not None and (not same_shape(scene.size, size) or scene.size == size[::-1] != size):
        raise LabelFormatError(
            f"{scene.path}: its label is for {scene.size[0]} x {scene.size[1]} pixels, it has {size[0]} x {size[1]}"
        )
    regions: list[Json] = []
    undrawn: list[tuple[int, str, Corners, Json]] = []
    for number, mark in enumerate(scene.marks or ()):
        corners = np.array(mark.corners).reshape(2, 2)
        if not _has_size(mark):
            undrawn.append((number, mark.label, mark.corners, mark.extra))
            continue
        if mark.label not in drawer.classes:
            raise LabelFormatError(
                f'{scene.path}: its label "{mark.label[:60]}" is no <Label> of the labelling config, which has '
                f"{', '.join(drawer.classes)}"
            )
        points = np.stack([corners.min(axis=0), corners.max(axis=0)])
        ours = {"meta": {META: MarkMeta(form=form, mark=mark.extra).model_dump(mode="json")}}
        label = drawer.classes.index(mark.label)
        regions += [region | ours for region in drawer.draw(points, label, f"{IMPORTED}{number}", size)]
    meta = BoxTaskMeta(form=form, extra=scene.extra, lists=scene.lists, size=scene.size or size)
    # Where something is on the image, and nothing of it can be drawn, no boxes would say that there is nothing.
    known = scene.marks is not None and (not scene.marks or bool(regions))
    if labels is not Labels.none and known:
        meta.undrawn = undrawn
    return as_task(scene.path, drawer.image_key, address, meta, regions if known else None, labels)


def scene_of(task: Json, form: str, drawer: RegionFormat, actual: Size | None, number: int) -> BoxScene:
    """The image of a labelled Label Studio task with its boxes.

    Args:
        task: with its annotations.
        form: "coco", "voc" or "yolo".
        drawer: how the project's regions are read.
        actual: (width, height) of the image in pixels; none when nobody looked.
        number: of the task among those that are written, for its place in a list.

    Raises:
        LabelFormatError: what cannot be read or written; names task and region.
    """
    where = f"task {task['id']}"
    drawings = drawer.drawings(task)
    path = path_of(task, drawer.image_key, IMAGE_FOLDERS[form])
    meta = read_meta(BoxTaskMeta, task, where)
    if meta.form != form:  # it came from a folder of another form: that one's lists and keys say nothing here
        plain: list[tuple[int, str, Corners, Json]] = [
            (at, label, corners, {}) for at, label, corners, _ in meta.undrawn
        ]
        meta = BoxTaskMeta(undrawn=plain, size=meta.size)
    marks = []
    for drawing in drawings:
        with naming(f"{where}: region {drawing.region}"):
            (left, top), (right, bottom) = drawing.points.tolist()
            corners: Corners = (left, top, right, bottom)
            if not drawing.region.startswith(IMPORTED):
                corners = clean_box(*corners).corners
        said = read_meta(MarkMeta, {"meta": drawing.meta}, f"{where}: region {drawing.region}")
        marks.append(Mark(drawer.classes[drawing.label], corners, said.mark if said.form == form else {}))
    for place, label, corners, extra in meta.undrawn:
        marks.insert(place, Mark(label, corners, extra))
    size = drawn_size(drawings, actual, where) if drawings else actual or meta.size
    if meta.form == form and meta.size is not None and size is not None and same_shape(meta.size, size):
        size = meta.size  # its file's pixels are for a smaller or larger copy of the same picture
    lists = meta.lists if meta.form == form else _lists(form, path, number)
    scene = BoxScene(path, tuple(marks), meta.extra, lists, size)
    with naming(where):
        _try_to_write(scene, form)  # what cannot be written is this task's fault, and no other's
    return scene


def _has_size(mark: Mark) -> bool:
    left, top, right, bottom = mark.corners
    return min(abs(right - left), abs(bottom - top)) > SAME


def _declared(scenes: Sequence[BoxScene]) -> tuple[str, ...]:
    """The classes that a data set's own files name, whether or not anything is labelled."""
    for scene in scenes:
        if "files" in scene.extra:
            return tuple(names_of(scene.extra["files"]).values())
        if "head" in scene.extra:
            return tuple(str(category["name"]) for category in scene.extra["head"].get("categories") or ())
    return ()


def _lists(form: str, path: str, number: int) -> dict[str, tuple[int, str]]:
    """Where an image is listed that came from no folder of this form."""
    if form == "coco":
        return {LABEL_FILE: (number, "")}
    if form == "yolo":
        return {"train": (number, "")}
    folder, _, name = path.rpartition("/")
    # A list of Pascal VOC's says what lies in its folder of images, and cannot tell of others.
    return {f"{LISTS}/train.txt": (number, name.rpartition(".")[0] or name)} if folder == IMAGES else {}


def _try_to_write(scene: BoxScene, form: str) -> None:
    for name in scene.lists:
        safe_path(name, "its meta")
    try:
        if form == "voc":
            label_of(scene)
        elif form == "coco":
            record_of([scene])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise LabelFormatError(f"its meta is damaged ({error})") from error


def box_config(classes: Sequence[str]) -> str:
    """What a project gets that has no labelling config yet and is to hold boxes of these classes."""
    labels = "".join(f"<Label value={quoteattr(name)}/>" for name in classes)
    return (
        '<View><Image name="image" value="$image" zoom="true"/>'
        f'<RectangleLabels name="box" toName="image">{labels}</RectangleLabels></View>'
    )


class BoxAdapter(Adapter[BoxScene, RegionFormat]):
    """Boxes with a class each, in COCO's, Pascal VOC's and YOLO's form."""

    forms = BOX_FOLDERS

    def importing(self, drawer: Format, how: Importing) -> RegionFormat:
        """Boxes keep the classes that their data set gives them."""
        if drawer.kind != "boxes" or not isinstance(drawer, RegionFormat) or not drawer.exact:
            raise ConfigError("boxes are imported into <RectangleLabels>")
        if how.label is not None:
            raise ConfigError("boxes keep the labels that their data set gives them: leave --label out")
        return drawer

    def exporting(self, drawer: Format) -> RegionFormat:
        """Boxes are written as boxes."""
        if drawer.kind != "boxes" or not isinstance(drawer, RegionFormat):
            raise ConfigError("its labels are no boxes")
        return drawer

    def label_config(self, scenes: Sequence[BoxScene]) -> str:
        """The classes of the boxes; where no image has any, those that the data set names."""
        classes = class_names(list(scenes)) or _declared(scenes)
        if not classes:
            raise ConfigError(
                "no image of the folder has a box, and nothing names its classes: give the project a labelling config "
                "with <RectangleLabels> first"
            )
        return box_config(classes)

    def task_of(self, scene: BoxScene, drawer: RegionFormat, address: str, size: Size, how: Importing) -> Json:
        """See `task_of`."""
        return task_of(scene, how.form, drawer, address, size, how.labels)

    def scene_of(self, task: Json, drawer: RegionFormat, actual: Size | None, number: int, how: Exporting) -> BoxScene:
        """See `scene_of`."""
        return scene_of(task, how.form, drawer, actual, number)

    def label_digest(self, scene: BoxScene) -> str:
        """Of the boxes, as shares of the image."""
        return digest_of_label(None if scene.marks is None else [[m.label, *m.corners] for m in scene.marks])

    def remarks(self, scene: BoxScene) -> list[str]:
        """Boxes without size are nothing that can be drawn."""
        count = sum(not _has_size(mark) for mark in scene.marks or ())
        if not count:
            return []
        rest = "; its label is unknown" if count == len(scene.marks or ()) else ""
        return [f"{scene.path}: {count} of its boxes have no width or height, and are not drawn{rest}"]

    def needs_size(self, task: Json, drawer: RegionFormat) -> bool:
        """Where a region does not say it. The label of an image without boxes says it too."""
        drawings = drawer.drawings(task)
        return not drawings or any(drawing.size is None for drawing in drawings)

    def image_folder(self, form: str) -> str:
        """Each form's own."""
        return IMAGE_FOLDERS[form]


ADAPTER = BoxAdapter()
