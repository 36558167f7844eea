"""Writing COCO's label files, so that what nobody changed is as it was read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kdal_core.datasets.box_scene import BoxScene, Corners, Json, Mark, same_box, shortest
from kdal_core.datasets.coco_files import key_of
from kdal_core.datasets.scene import safe_path
from kdal_core.datasets.texts import write_text
from kdal_core.errors import LabelFormatError

LABEL_FILE = "annotations/instances.json"
"""Where scenes are written that no file of a COCO folder named."""
DECIMALS = 4
"""Digits behind the point of a pixel that is written; those of boxes that nobody changed stay as they were."""
FARTHEST = 1e7
"""Pixels beyond which a side of a box is damage."""


def write_coco(scenes: Iterable[BoxScene], folder: Path) -> None:
    """Write labels that `read_coco` reads back: the same values and order; new boxes get numbers behind the others'.

    An image without a label is left out of a file that labels others, where it would say that it shows no object. A
    file of such images alone has no annotations.

    Raises:
        LabelFormatError: a scene without a size.
    """
    files: dict[str, list[tuple[int, BoxScene]]] = {}
    for scene in scenes:
        for name, (number, _) in (scene.lists or {LABEL_FILE: (len(files.get(LABEL_FILE, [])), "")}).items():
            files.setdefault(safe_path(name, scene.path), []).append((number, scene))
    for name, numbered in files.items():
        ordered = [scene for _, scene in sorted(numbered, key=lambda item: item[0])]
        write_text(folder / name, json.dumps(record_of(ordered), ensure_ascii=False))


def record_of(scenes: Sequence[BoxScene]) -> Json:
    """The content of a label file, its images in this order."""
    head: Json = next((scene.extra["head"] for scene in scenes if "head" in scene.extra), {})
    if any(scene.labelled for scene in scenes):
        scenes = [scene for scene in scenes if scene.labelled]
    elif scenes:
        return {**head, "images": _images(scenes), "categories": head.get("categories", [])}
    categories, numbers = _categories(head.get("categories") or [], scenes)
    images = _images(scenes)
    kept: list[tuple[int, Json]] = []
    fresh: list[Json] = []
    for scene, image in zip(scenes, images, strict=False):
        assert scene.size is not None
        ours = [(at, record) for at, record in scene.extra.get("hidden", [])]
        for mark in scene.marks or ():
            record = _annotation(mark, scene.size, numbers[mark.label], image["id"])
            ours.append((mark.extra.get("at"), record))
        known = {key_of(image["id"]), *(key_of(twin.get("id")) for _, twin in scene.extra.get("twins", []))}
        for at, record in ours:
            if key_of(record.get("image_id")) not in known:
                record = record | {"image_id": image["id"]}
            if at is None:
                fresh.append(record)
            else:
                kept.append((at, record))
    annotations = [record for _, record in sorted(kept, key=lambda item: item[0])] + fresh
    annotations = _numbered(annotations)
    parts: Json = {"images": _with_twins(images, scenes), "annotations": annotations, "categories": categories}
    return {**{key: parts.get(key) if key in parts else value for key, value in head.items()}, **parts}


def corners_of(annotation: Json, size: tuple[int, int]) -> Corners:
    """The corners of an annotation's bbox; where it has none, of the box around its outline.

    Raises:
        LabelFormatError: it has neither, or they are damaged.
    """
    box = annotation.get("bbox")
    if box is None or box == []:
        left, top, right, bottom = _around(annotation.get("segmentation"))
    else:
        left, top, wide, high = _numbers(box, 4, "its bbox is no list of four numbers")
        if min(wide, high) < 0:
            raise LabelFormatError("its bbox has a negative size")
        right, bottom = left + wide, top + high
    width, height = size
    return left / width, top / height, right / width, bottom / height


def _around(outline: Any) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of polygons in pixels."""
    missing = "it has no bbox, and no outline of pairs of numbers"
    if not isinstance(outline, list) or not outline:
        raise LabelFormatError(missing)
    parts = [_numbers(polygon, None, missing) for polygon in outline]
    if any(len(part) < 4 or len(part) % 2 for part in parts):
        raise LabelFormatError(missing)
    xs, ys = [x for part in parts for x in part[::2]], [y for part in parts for y in part[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _numbers(found: Any, count: int | None, message: str) -> list[float]:
    if not isinstance(found, list) or (count is not None and len(found) != count):
        raise LabelFormatError(message)
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in found):
        raise LabelFormatError(message)
    if not all(abs(value) <= FARTHEST for value in found):  # not a number is not, either
        raise LabelFormatError(f"{message}: one is not finite, or far from the image")
    return found


def _images(scenes: Sequence[BoxScene]) -> list[Json]:
    """The record of each scene's image. Of those that came from two folders, two may have had the same number."""
    images: list[Json] = []
    records = [scene.extra["image"] for scene in scenes if "image" in scene.extra]
    free = _next({record["id"] for record in records})
    taken: set[str | None] = set()
    for scene in scenes:
        if scene.size is None and (scene.labelled or "image" not in scene.extra):
            raise LabelFormatError(f"{scene.path}: a COCO label says how large its image is, and nobody knows")
        width, height = scene.size or (0, 0)
        fresh = {"id": free, "file_name": scene.path, "width": width, "height": height}
        image: Json = scene.extra.get("image", fresh)
        if key_of(image["id"]) in taken:
            image = image | {"id": free}
        free += image["id"] == free
        taken.add(key_of(image["id"]))
        images.append(image)
    return images


def _numbered(annotations: Sequence[Json]) -> list[Json]:
    """Annotations with a number each: their own, where no other one has it."""
    free = _next({record["id"] for record in annotations if "id" in record})
    taken: set[str | None] = set()
    found: list[Json] = []
    for record in annotations:
        if "id" not in record or key_of(record["id"]) in taken:
            record = {"id": free, **{key: value for key, value in record.items() if key != "id"}}
            free += 1
        taken.add(key_of(record["id"]))
        found.append(record)
    return found


def _with_twins(images: Sequence[Json], scenes: Sequence[BoxScene]) -> list[Json]:
    """Records with those of the images that are listed more than once, in the places where they were."""
    found = list(images)
    twins = [(number, record) for scene in scenes for number, record in scene.extra.get("twins", [])]
    for number, record in sorted(twins, key=lambda twin: twin[0]):
        found.insert(number, record)
    return found


def _annotation(mark: Mark, size: tuple[int, int], category: Any, image: Any) -> Json:
    """A box's record: as it was where nobody changed it; a moved one has lost its old outline."""
    record: Json = dict(mark.extra.get("annotation", {}))
    if record and same_box(corners_of(record, size), mark.corners):
        same = mark.extra.get("label") == mark.label and key_of(record.get("category_id")) == key_of(category)
        return record if same else record | {"category_id": category}
    left, top, right, bottom = (share * side for share, side in zip(mark.corners, (*size, *size), strict=True))
    box = [shortest(value, DECIMALS) for value in (left, top, right - left, bottom - top)]
    area = shortest((right - left) * (bottom - top), DECIMALS)
    changed: Json = {"image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": 0}
    record.pop("segmentation", None)
    return record | changed


def _categories(known: Sequence[Json], scenes: Sequence[BoxScene]) -> tuple[list[Json], dict[str, Any]]:
    """Categories with those added that are new, and the number of each name.

    Of categories with one name, that counts which a box of it says. Boxes also say it where the file's head is lost.
    """
    categories: list[Json] = list(known)
    marks = [mark for scene in scenes for mark in scene.marks or ()]
    said = {mark.label: _number_said(mark) for mark in marks if _number_said(mark) is not None}
    numbers = {category["name"]: category["id"] for category in categories if {"name", "id"} <= category.keys()}
    taken = {key_of(number) for number in numbers.values()}
    numbers |= {label: number for label, number in said.items() if label in numbers or key_of(number) not in taken}
    listed = {key_of(category.get("id")) for category in categories}
    free = _next(set(numbers.values()))
    for label in sorted({mark.label for mark in marks}):
        if label not in numbers:
            numbers[label] = free
            free += 1
        if key_of(numbers[label]) not in listed:
            categories.append({"id": numbers[label], "name": label})
    return categories, numbers


def _number_said(mark: Mark) -> Any:
    """The category that a box's record gives for its label; none when it was renamed, or is new."""
    return mark.extra["annotation"].get("category_id") if mark.extra.get("label") == mark.label else None


def _next(used: set[Any]) -> int:
    return max((number for number in used if isinstance(number, int)), default=0) + 1
