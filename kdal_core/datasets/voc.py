"""Pascal VOC's form of boxes: an XML file for each image.

    Annotations/000001.xml      <annotation> <size>..</size> <object><name>cat</name> <bndbox>..</bndbox></object> ..
    JPEGImages/000001.jpg
    ImageSets/Main/train.txt    000001

Source: Everingham et al., the PASCAL VOC development kit. Pixels are counted from 1 and a box holds those of both its
borders, so that xmin = xmax is a box one pixel wide. Files beside their images, as labelImg writes them, are read too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from kdal_core.datasets.box_scene import BoxScene, Corners, Mark, same_box, shortest
from kdal_core.datasets.images import IMAGE_SUFFIXES, image_size
from kdal_core.datasets.scene import read_lines, safe_path
from kdal_core.errors import ConfigError, LabelFormatError

LISTS, LABELS, IMAGES = "ImageSets/Main", "Annotations", "JPEGImages"
DECIMALS = 4
"""Digits behind the point of a pixel that is written; those of boxes that nobody changed stay as they were."""
SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc_lists(folder: Path) -> list[str]:
    """Names of the files of a folder that list images, one on each line and nothing else there."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.glob(f"{LISTS}/*.txt"))
    return [name for name in found if all(len(line.split()) <= 1 for line in read_lines(folder, name))]


def read_voc(folder: Path, lists: Sequence[str] = ()) -> list[BoxScene]:
    """The images of a Pascal VOC folder with their boxes, in the order of its lists, or of its files' names.

    Args:
        folder: of the data set.
        lists: names of the list files to read; by default all, and whatever they leave out.

    Raises:
        ConfigError: no labels at all, or one of `lists` is not there.
        LabelFormatError: a damaged file; names it.
    """
    named: dict[str, dict[str, tuple[int, str]]] = {}
    for name in lists or voc_lists(folder):
        for number, line in enumerate(read_lines(folder, name)):
            if words := line.split():
                stem = safe_path(words[0], f"{folder / name}:{number + 1}")
                named.setdefault(f"{LABELS}/{stem}.xml", {})[name] = (number, line)
    if not lists:
        for file in sorted(folder.rglob("*.xml")):
            named.setdefault(file.relative_to(folder).as_posix(), {})
    if not named:
        raise ConfigError(f"{folder}: no Pascal VOC labels here ({LABELS}/*.xml, or *.xml beside images)")
    return [_scene(folder, label, where) for label, where in named.items()]


def write_voc(scenes: Iterable[BoxScene], folder: Path) -> None:
    """Write labels that `read_voc` reads back. The file of an image whose boxes nobody changed is written as it was.

    Raises:
        LabelFormatError: a scene without a size.
    """
    files: dict[str, list[tuple[int, str]]] = {}
    for scene in scenes:
        for name, place in scene.lists.items():
            files.setdefault(safe_path(name, scene.path), []).append(place)
        if scene.marks is not None:
            path = folder / label_file(scene)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(label_of(scene).encode())
    for name, lines in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for _, line in sorted(lines, key=lambda item: item[0]))
        path.write_text(text, encoding="utf-8")


def label_file(scene: BoxScene) -> str:
    """Name of the label file of an image: where it came from, else in the folder beside `IMAGES`, else beside it."""
    if isinstance(said := scene.extra.get("file"), str):
        return safe_path(said, scene.path)
    parts = PurePosixPath(scene.path).with_suffix(".xml").parts
    return "/".join(LABELS if part == IMAGES else part for part in parts)


def label_of(scene: BoxScene) -> str:
    """The text of a scene's label file."""
    text, marks = scene.extra.get("xml"), list(scene.marks or ())
    if scene.size is None:
        raise LabelFormatError(f"{scene.path}: a Pascal VOC label says how large its image is, and nobody knows")
    root = _root(text, scene.path) if isinstance(text, str) else _fresh(scene, scene.size)
    objects = [element for element in root.findall("object") if element.find("bndbox") is not None]
    places = {mark.extra.get("object"): mark for mark in marks if "object" in mark.extra}
    changed = not isinstance(text, str)
    for number, element in enumerate(objects):
        mark = places.get(number)
        if mark is None:
            root.remove(element)
            changed = True
            continue
        before = _mark(element, number, scene.size, scene.path)
        if before.label != mark.label:
            _child(element, "name").text = mark.label
            changed = True
        if not same_box(before.corners, mark.corners):
            _place(element, mark.corners, scene.size)
            changed = True
    for mark in marks:
        if mark.extra.get("object") not in range(len(objects)):
            element = SubElement(root, "object")
            SubElement(element, "name").text = mark.label
            for name, value in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
                SubElement(element, name).text = value
            _place(element, mark.corners, scene.size)
            changed = True
    if not changed and isinstance(text, str):
        return text
    indent(root, "\t")
    return tostring(root, encoding="unicode") + "\n"


def _scene(folder: Path, label: str, lists: dict[str, tuple[int, str]]) -> BoxScene:
    file = folder / label
    if not file.is_file():
        return BoxScene(_image_of(folder, label, None), None, {}, lists)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelFormatError(f"{file}: cannot be read ({error})") from error
    root = _root(text, str(file))
    path = _image_of(folder, label, root.findtext("filename"))
    size = _size(root)
    size = image_size(folder / path) if size is None else size
    elements = [element for element in root.findall("object") if element.find("bndbox") is not None]
    marks = tuple(_mark(element, number, size, str(file)) for number, element in enumerate(elements))
    return BoxScene(path, marks, {"xml": text, "file": label}, lists, size)


def _root(text: str, where: str) -> Element:
    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise LabelFormatError(f"{where}: it is no XML ({error})") from error
    if root.tag != "annotation":
        raise LabelFormatError(f"{where}: it is no <annotation> but <{str(root.tag)[:40]}>")
    return root


def _mark(element: Element, number: int, size: tuple[int, int], where: str) -> Mark:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise LabelFormatError(f"{where}: object {number + 1} has no name")
    try:
        sides = [float(element.findtext(f"bndbox/{side}") or "") for side in SIDES]
    except ValueError as error:
        raise LabelFormatError(f"{where}: object {number + 1} has no box of four numbers ({error})") from error
    left, top, right, bottom = sides
    width, height = size
    corners: Corners = ((left - 1) / width, (top - 1) / height, right / width, bottom / height)
    return Mark(name, corners, {"object": number})


def _place(element: Element, corners: Corners, size: tuple[int, int]) -> None:
    """Write a box into an object's element."""
    left, top, right, bottom = (share * side for share, side in zip(corners, (*size, *size), strict=True))
    box = _child(element, "bndbox")
    for side, value in zip(SIDES, (left + 1, top + 1, right, bottom), strict=True):
        _child(box, side).text = str(shortest(value, DECIMALS))


def _child(element: Element, name: str) -> Element:
    found = element.find(name)
    return SubElement(element, name) if found is None else found


def _fresh(scene: BoxScene, size: tuple[int, int]) -> Element:
    root = Element("annotation")
    path = PurePosixPath(scene.path)
    SubElement(root, "folder").text = path.parent.name
    SubElement(root, "filename").text = path.name
    sizes = SubElement(root, "size")
    for name, value in (("width", size[0]), ("height", size[1]), ("depth", 3)):
        SubElement(sizes, name).text = str(value)
    return root


def _size(root: Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(root.findtext(f"size/{side}") or "")) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if min(width, height) > 0 else None


def _image_of(folder: Path, label: str, said: str | None) -> str:
    """The image of a label file: the file that it names, else the one of its own name, with any usual suffix."""
    path = PurePosixPath(label)
    parent = path.parent.parent / IMAGES if path.parent.name == LABELS else path.parent
    names = [PurePosixPath(said.replace("\\", "/")).name] if said else []
    names += [path.stem + suffix for suffix in IMAGE_SUFFIXES]
    there = next((name for name in names if name and (folder / parent / name).is_file()), names[0])
    return safe_path(str(parent / there), label)
