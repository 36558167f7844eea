"""The XML of a Pascal VOC label: its boxes, and the same text again with what people changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from kdal_core.datasets.box_scene import BoxScene, Corners, Mark, same_box, shortest
from kdal_core.datasets.sizes import Size, as_size
from kdal_core.datasets.texts import BOM
from kdal_core.errors import LabelFormatError

DECIMALS = 4
"""Digits behind the point of a pixel that is written; those of boxes that nobody changed stay as they were."""
SIDES = ("xmin", "ymin", "xmax", "ymax")
ANY = "{*}"
"""Stands before the name of an element in whatever namespace, or in none."""
FARTHEST = 1e7
"""Pixels beyond which a side of a box is damage."""


def parse(text: str) -> Element:
    """The root of a label.

    Raises:
        LabelFormatError: it is no XML, or has entities, or is no label.
    """
    try:
        root: Element = fromstring(text.removeprefix(BOM).lstrip(), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise LabelFormatError(f"it is no XML ({error})") from error
    if local_name(root) != "annotation":
        raise LabelFormatError(f"it is no <annotation> but <{local_name(root)[:40]}>")
    return root


def local_name(element: Element) -> str:
    """The name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def text_of(element: Element, *names: str) -> str:
    """The text of an element below another, by the names that lead to it; empty where there is none."""
    return (element.findtext("/".join(f"{ANY}{name}" for name in names)) or "").strip()


def size_said(root: Element) -> Size | None:
    """(width, height) in pixels, as the label says it; old labelImg wrote 0 x 0."""
    return as_size(text_of(root, "size", "width"), text_of(root, "size", "height"))


def boxed(root: Element) -> list[Element]:
    """The objects with a box, or with an outline."""
    return [e for e in root.findall(f"{ANY}object") if e.find(f"{ANY}bndbox") is not None or _outline(e)]


def boxless(root: Element) -> int:
    """How many objects have neither."""
    return len(root.findall(f"{ANY}object")) - len(boxed(root))


def marks_of(root: Element, size: Size) -> tuple[Mark, ...]:
    """The boxes of a label.

    Raises:
        LabelFormatError: one has no name, or no box of four numbers; says which.
    """
    return tuple(_mark(element, number, size) for number, element in enumerate(boxed(root)))


def label_of(scene: BoxScene) -> str:
    """The text of a scene's label file: as it was read where nobody changed a box.

    Raises:
        LabelFormatError: a scene without a size, or whose text is damaged.
    """
    text, marks = scene.extra.get("xml"), list(scene.marks or ())
    if scene.size is None:
        raise LabelFormatError(f"{scene.path}: a Pascal VOC label says how large its image is, and nobody knows")
    if not isinstance(text, str):
        root = _fresh(scene, scene.size)
        _add(root, marks, scene.size)
        return _written(root)
    try:
        root = parse(text)
    except LabelFormatError as error:
        raise LabelFormatError(f"{scene.path}: {error}") from error
    size = size_said(root) or scene.size
    objects = boxed(root)
    places = {mark.extra.get("object"): mark for mark in marks if "object" in mark.extra}
    changed = False
    for number, element in enumerate(objects):
        mark = places.get(number)
        if mark is None:
            root.remove(element)
            changed = True
        else:
            changed |= _update(element, _mark(element, number, size), mark, size)
    new = [mark for mark in marks if mark.extra.get("object") not in range(len(objects))]
    _add(root, new, size)
    return _written(root) if changed or new else text


def _mark(element: Element, number: int, size: Size) -> Mark:
    name = text_of(element, "name")
    if not name:
        raise LabelFormatError(f"object {number + 1} has no name")
    sides = _sides(element) if element.find(f"{ANY}bndbox") is not None else _around(_outline(element))
    if sides is None or not all(math.isfinite(side) and abs(side) <= FARTHEST for side in sides):
        raise LabelFormatError(f"object {number + 1} has no box of four numbers")
    left, top, right, bottom = sides
    width, height = size
    corners: Corners = ((left - 1) / width, (top - 1) / height, right / width, bottom / height)
    return Mark(name, corners, {"object": number})


def _sides(element: Element) -> Sequence[float] | None:
    try:
        return [float(text_of(element, "bndbox", side)) for side in SIDES]
    except ValueError:
        return None


def _outline(element: Element) -> list[tuple[str, str]]:
    """x and y of the points of an object's polygon, as LabelMe and others write them: ``<pt>``, or x1, y1, x2, y2."""
    polygon = element.find(f"{ANY}polygon")
    if polygon is None:
        return []
    points = [(text_of(point, "x"), text_of(point, "y")) for point in polygon.findall(f"{ANY}pt")]
    numbered = {local_name(child): (child.text or "").strip() for child in polygon}
    count = sum(name.startswith("x") and name[1:].isdecimal() for name in numbered)
    return points or [(numbered.get(f"x{i}", ""), numbered.get(f"y{i}", "")) for i in range(1, count + 1)]


def _around(points: Sequence[tuple[str, str]]) -> Sequence[float] | None:
    try:
        xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
    except ValueError:
        return None
    return min(xs), min(ys), max(xs), max(ys)


def _update(element: Element, before: Mark, mark: Mark, size: Size) -> bool:
    """Write what somebody changed of a box; whether anything was."""
    if before.label != mark.label:
        _child(element, "name").text = mark.label
    moved = not same_box(before.corners, mark.corners)
    if moved:
        _place(element, mark.corners, size)
    return moved or before.label != mark.label


def _add(root: Element, marks: Sequence[Mark], size: Size) -> None:
    for mark in marks:
        element = _child(root, "object", new=True)
        _child(element, "name").text = mark.label
        for name, value in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            _child(element, name).text = value
        _place(element, mark.corners, size)


def _place(element: Element, corners: Corners, size: Size) -> None:
    """Write a box into an object's element, whose old outline no longer holds."""
    for outline in element.findall(f"{ANY}polygon"):
        element.remove(outline)
    left, top, right, bottom = (share * side for share, side in zip(corners, (*size, *size), strict=True))
    box = _child(element, "bndbox")
    for side, value in zip(SIDES, (left + 1, top + 1, right, bottom), strict=True):
        _child(box, side).text = str(shortest(value, DECIMALS))


def _child(element: Element, name: str, *, new: bool = False) -> Element:
    """An element's child of this name in its own namespace, made where it is missing."""
    found = None if new else element.find(f"{ANY}{name}")
    namespace = str(element.tag).rpartition("}")
    return SubElement(element, f"{namespace[0]}{namespace[1]}{name}") if found is None else found


def _fresh(scene: BoxScene, size: Size) -> Element:
    root = Element("annotation")
    path = PurePosixPath(scene.path)
    SubElement(root, "folder").text = path.parent.name
    SubElement(root, "filename").text = path.name
    sizes = SubElement(root, "size")
    for name, value in (("width", size[0]), ("height", size[1]), ("depth", 3)):
        SubElement(sizes, name).text = str(value)
    return root


def _written(root: Element) -> str:
    indent(root, "\t")
    namespace = str(root.tag).rpartition("}")[0].removeprefix("{")
    plain = all("}" in str(element.tag) for element in root.iter())
    text: str = tostring(root, encoding="unicode", default_namespace=namespace if namespace and plain else None)
    return text + "\n"
