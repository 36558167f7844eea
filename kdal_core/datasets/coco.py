"""COCO's form of boxes: one JSON file of images, annotations and categories for each split.

    annotations/instances_train2017.json    train2017/000000000009.jpg

Source: Lin et al. 2014, https://cocodataset.org/#format-data. A box is [left, top, width, height] in pixels from 0.
Crowds (iscrowd: 1) are no single objects: they are kept, and are no boxes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kdal_core.datasets.box_scene import BoxScene, Corners, Json, Mark, same_box, shortest
from kdal_core.datasets.images import image_size
from kdal_core.datasets.scene import safe_path
from kdal_core.errors import ConfigError, LabelFormatError

LABEL_FILE = "annotations/instances.json"
"""Where scenes are written that no file of a COCO folder named."""
DECIMALS = 4
"""Digits behind the point of a pixel that is written; those of boxes that nobody changed stay as they were."""


def coco_files(folder: Path) -> list[str]:
    """Names of the files of a folder that hold COCO labels: JSON objects with images and annotations."""
    found = [*folder.glob("*.json"), *folder.glob("annotations/*.json")]
    return sorted(path.relative_to(folder).as_posix() for path in found if _is_label_file(path))


def read_coco(folder: Path, lists: Sequence[str] = ()) -> list[BoxScene]:
    """The images of a COCO folder with their boxes, in the order of its files. One without annotations shows no object.

    Args:
        folder: holds the label files, or a folder annotations with them, and the images.
        lists: names of the label files to read; all of them by default.

    Raises:
        ConfigError: no label files, or one of `lists` is not there.
        LabelFormatError: a damaged file, or an image that two files label; names file and record.
    """
    names = list(lists) or coco_files(folder)
    if not names:
        raise ConfigError(f"{folder}: no COCO labels here (a .json file with images and annotations)")
    scenes: dict[str, BoxScene] = {}
    for name in names:
        for scene in _scenes(folder, name):
            if scene.path in scenes:
                (other,) = scenes[scene.path].lists
                raise LabelFormatError(f"{folder / name}: {scene.path} has a label in {other} too")
            scenes[scene.path] = scene
    return list(scenes.values())


def write_coco(scenes: Iterable[BoxScene], folder: Path) -> None:
    """Write labels that `read_coco` reads back: the same values and order; new boxes get numbers behind the others'.

    Raises:
        LabelFormatError: a scene without a size.
    """
    files: dict[str, list[tuple[int, BoxScene]]] = {}
    for scene in scenes:
        for name, (number, _) in (scene.lists or {LABEL_FILE: (len(files.get(LABEL_FILE, [])), "")}).items():
            files.setdefault(safe_path(name, scene.path), []).append((number, scene))
    for name, numbered in files.items():
        ordered = [scene for _, scene in sorted(numbered, key=lambda item: item[0])]
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record_of(ordered), ensure_ascii=False), encoding="utf-8")


def record_of(scenes: Sequence[BoxScene]) -> Json:
    """The content of a label file."""
    head: Json = next((scene.extra["head"] for scene in scenes if "head" in scene.extra), {})
    categories, numbers = _categories(head.get("categories", []), scenes)
    images: list[Json] = []
    kept: list[tuple[int, Json]] = []
    fresh: list[Json] = []
    used_images = {scene.extra["image"]["id"] for scene in scenes if "image" in scene.extra}
    next_image = _next(used_images)
    for scene in scenes:
        if scene.size is None:
            raise LabelFormatError(f"{scene.path}: a COCO label says how large its image is, and nobody knows")
        image = scene.extra.get("image")
        if image is None:
            image = {"id": next_image, "file_name": scene.path, "width": scene.size[0], "height": scene.size[1]}
            next_image += 1
        images.append(image)
        kept += [(at, record) for at, record in scene.extra.get("hidden", [])]
        for mark in scene.marks or ():
            record = _annotation(mark, scene.size, numbers[mark.label], image["id"])
            if "at" in mark.extra:
                kept.append((mark.extra["at"], record))
            else:
                fresh.append(record)
    annotations = [record for _, record in sorted(kept, key=lambda item: item[0])]
    next_annotation = _next({record["id"] for record in annotations if "id" in record})
    for record in fresh:
        annotations.append({"id": next_annotation, **record})
        next_annotation += 1
    parts: Json = {"images": images, "annotations": annotations, "categories": categories}
    return {**{key: parts.get(key) if key in parts else value for key, value in head.items()}, **parts}


def _scenes(folder: Path, name: str) -> list[BoxScene]:
    where = str(folder / name)
    try:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise LabelFormatError(f"{where}: it is no JSON ({error})") from error
    parts = {key: _records(data, key, where) for key in ("images", "annotations", "categories")}
    labels: dict[int | str, str] = {}
    for category in parts["categories"]:
        if not isinstance(category.get("name"), str) or category["name"] in labels.values():
            raise LabelFormatError(f"{where}: categories must have distinct names, found {category.get('name')!r}")
        labels[_number(category, "id", f"{where}: category {category['name']!r}")] = category["name"]
    of_image: dict[int | str, list[tuple[int, Json]]] = {}
    for at, annotation in enumerate(parts["annotations"]):
        image_id = _number(annotation, "image_id", f"{where}: annotation {annotation.get('id', at + 1)}")
        of_image.setdefault(image_id, []).append((at, annotation))
    head = {key: (value if key not in ("images", "annotations") else None) for key, value in data.items()}
    scenes: list[BoxScene] = []
    for number, image in enumerate(parts["images"]):
        if not isinstance(image.get("file_name"), str) or not isinstance(image.get("id"), int | str):
            raise LabelFormatError(f"{where}: image {number + 1} has no id and file_name")
        path = _image_of(folder, name, safe_path(image["file_name"], where))
        size = _size(image) or image_size(folder / path)
        marks, hidden = [], []
        for at, annotation in of_image.pop(image["id"], []):
            if annotation.get("iscrowd") or "bbox" not in annotation:
                hidden.append([at, annotation])
            else:
                marks.append(_mark(annotation, at, labels, size, f"{where}: annotation {annotation.get('id')}"))
        extra: Json = {"image": image} | ({"hidden": hidden} if hidden else {}) | ({"head": head} if not scenes else {})
        scenes.append(BoxScene(path, tuple(marks), extra, {name: (number, "")}, size))
    if of_image:
        ((at, annotation), *_) = next(iter(of_image.values()))
        raise LabelFormatError(
            f"{where}: annotation {annotation.get('id', at + 1)} is of image {annotation.get('image_id')!r}, "
            "which is none"
        )
    return scenes


def _mark(annotation: Json, at: int, labels: dict[int | str, str], size: tuple[int, int], where: str) -> Mark:
    label = labels.get(_number(annotation, "category_id", where))
    if label is None:
        raise LabelFormatError(f"{where}: its category {annotation.get('category_id')!r} is none")
    return Mark(label, _corners(annotation["bbox"], size, where), {"annotation": annotation, "at": at, "label": label})


def _corners(box: Any, size: tuple[int, int], where: str) -> Corners:
    numbers = isinstance(box, list) and len(box) == 4
    if not numbers or any(isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) for v in box):
        raise LabelFormatError(f"{where}: its bbox is no list of four numbers")
    left, top, wide, high = box
    width, height = size
    return left / width, top / height, (left + wide) / width, (top + high) / height


def _annotation(mark: Mark, size: tuple[int, int], category: Any, image: Any) -> Json:
    """A box's record: as it was where nobody changed it; a moved one has lost its old outline."""
    record: Json = dict(mark.extra.get("annotation", {}))
    if record and same_box(_corners(record["bbox"], size, "an annotation"), mark.corners):
        return record if mark.extra.get("label") == mark.label else record | {"category_id": category}
    left, top, right, bottom = (share * side for share, side in zip(mark.corners, (*size, *size), strict=True))
    box = [shortest(value, DECIMALS) for value in (left, top, right - left, bottom - top)]
    area = shortest((right - left) * (bottom - top), DECIMALS)
    changed: Json = {"image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": 0}
    record.pop("segmentation", None)
    return record | changed


def _categories(known: Any, scenes: Sequence[BoxScene]) -> tuple[list[Json], dict[str, Any]]:
    """Categories with those added that are new, and the number of each name."""
    categories: list[Json] = list(known)
    numbers = {category["name"]: category["id"] for category in categories}
    free = _next(set(numbers.values()))
    for label in sorted({mark.label for scene in scenes for mark in scene.marks or ()} - set(numbers)):
        categories.append({"id": free, "name": label})
        numbers[label] = free
        free += 1
    return categories, numbers


def _next(used: set[Any]) -> int:
    return max((number for number in used if isinstance(number, int)), default=0) + 1


def _records(data: Any, key: str, where: str) -> list[Json]:
    found = data.get(key) if isinstance(data, dict) else None
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise LabelFormatError(f"{where}: it has no list of {key}")
    return found


def _number(record: Json, key: str, where: str) -> int | str:
    """What a record is called by, or calls another by; some tools write text."""
    found = record.get(key)
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise LabelFormatError(f"{where}: its {key} is no number")
    return found


def _size(image: Json) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
        return width, height
    return None


def _image_of(folder: Path, name: str, said: str) -> str:
    """Where an image lies: beside the label file, in a folder images, or in the one that the split is called after."""
    split = Path(name).stem.removeprefix("instances_")
    here = Path(name).parent.as_posix()
    for place in (said, f"{here}/{said}", f"images/{said}", f"{split}/{said}", f"images/{split}/{said}"):
        if (folder / place).is_file():
            return safe_path(place, name)
    return said


def _is_label_file(path: Path) -> bool:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"images", "annotations", "categories"} <= data.keys()
