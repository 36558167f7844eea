"""Pascal VOC's form of boxes: an XML file for each image.

    Annotations/000001.xml      <annotation> <size>..</size> <object><name>cat</name> <bndbox>..</bndbox></object> ..
    JPEGImages/000001.jpg
    ImageSets/Main/train.txt    000001

Source: Everingham et al., the PASCAL VOC development kit. Pixels are counted from 1 and a box holds those of both its
borders, so that xmin = xmax is a box one pixel wide. Folders of other tools are read too: files beside their images
(labelImg), other folders' names, several data sets below one folder (VOCdevkit). An image without a label file has no
label; a label file without objects says that it shows none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from kdal_core.datasets.box_scene import BoxScene
from kdal_core.datasets.finding import Finder, first_file, is_image
from kdal_core.datasets.notes import Note, Tally, warn
from kdal_core.datasets.scene import raw_lines, safe_path
from kdal_core.datasets.sizes import size_of
from kdal_core.datasets.texts import BOM, decode_xml, read_bytes, write_text
from kdal_core.datasets.voc_xml import boxless, label_of, marks_of, parse, size_said, text_of
from kdal_core.errors import ConfigError, LabelFormatError

LISTS, LABELS, IMAGES = "ImageSets/Main", "Annotations", "JPEGImages"
IMAGE_FOLDERS = (IMAGES, "images", "Images", "img", "imgs")
"""Folders of images beside one of labels."""
START = b"<annotation"
"""What a label begins with, after its head."""


def voc_lists(folder: Path) -> list[str]:
    """Names of the files of a folder that list images, one on each line and nothing else there."""
    places = (path for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}{LISTS}/*.txt"))
    found = {path.relative_to(folder).as_posix() for path in places}
    return [
        name
        for name in sorted(found)
        if not PurePosixPath(name).name.startswith(".")
        and all(len(line.split()) <= 1 for line in raw_lines(folder, name) if not line.startswith("#"))
    ]


def is_voc(folder: Path) -> bool:
    """Whether a folder has a Pascal VOC label."""
    return any(_is_label(folder / path) for path in _xml_files(Finder(folder)))


def read_voc(folder: Path, lists: Sequence[str] = (), note: Note = warn) -> list[BoxScene]:
    """The images of a Pascal VOC folder with their boxes, in the order of its lists, or of its files' names.

    Images that lie among the labelled ones and have no label file come last. An image whose label cannot be used has no
    label (None), and `note` says why, by name.

    Args:
        folder: of the data set.
        lists: names of the list files to read; by default all, and whatever they leave out.
        note: takes what could not be used, a sentence each; logged as warnings by default.

    Raises:
        ConfigError: no labels at all, or one of `lists` is not there.
        LabelFormatError: nothing of what is there can be used; names a file.
    """
    finder, tally = Finder(folder), Tally(note)
    problems: list[str] = []
    files = list(_xml_files(finder))
    found = list(_listed(finder, list(lists) or voc_lists(folder), files, problems.append))
    if not lists:
        known = {image.label for image in found}
        found += [_Image(file, PurePosixPath(file).stem) for file in files if file not in known]
    scenes: dict[str, BoxScene] = {}
    for image in found:
        if (scene := _scene(image, finder, problems.append, tally)) is not None:
            scenes[scene.path] = _one_of(scenes.get(scene.path), scene, problems.append)
    if not scenes and problems:
        raise LabelFormatError(problems[0])
    if not scenes:
        raise ConfigError(f"{folder}: no Pascal VOC labels here ({LABELS}/*.xml, or *.xml beside images)")
    if not lists:
        scenes |= {path: BoxScene(path, None) for path in _beside(scenes, finder) if path not in scenes}
    for problem in problems:
        note(problem)
    tally.say()
    return list(scenes.values())


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
            text = label_of(scene)
            as_it_was = text == scene.extra.get("xml")
            write_text(folder / label_file(scene), text, scene.extra.get("encoding", "utf-8") if as_it_was else "utf-8")
    for name, lines in files.items():
        ordered = sorted(lines, key=lambda item: item[0])
        write_text(folder / name, "".join(f"{line}\n" for _, line in ordered))


def label_file(scene: BoxScene) -> str:
    """Name of the label file of an image: where it came from, else in the folder beside `IMAGES`, else beside it."""
    if isinstance(said := scene.extra.get("file"), str):
        return safe_path(said, scene.path)
    parts = PurePosixPath(scene.path).with_suffix(".xml").parts
    return "/".join(LABELS if part == IMAGES else part for part in parts)


@dataclass
class _Image:
    """What is known of an image before its label is read."""

    label: str
    """Path of its label file, which may not be there."""
    stem: str
    lists: dict[str, tuple[int, str]] = field(default_factory=dict)


def _listed(finder: Finder, names: Sequence[str], files: Sequence[str], note: Note) -> Iterator[_Image]:
    """The images that lists name, in their order."""
    by_stem: dict[str, list[str]] = {}
    for file in files:
        by_stem.setdefault(PurePosixPath(file).stem, []).append(file)
    found: dict[str, _Image] = {}
    for name in names:
        above = PurePosixPath(name).parent.parent.parent
        for number, line in enumerate(raw_lines(finder.folder, name)):
            words = line.removeprefix(BOM).split()
            if not words or words[0].startswith("#"):
                continue
            try:
                said = safe_path(words[0].replace("\\", "/"), f"{finder.folder / name}:{number + 1}")
            except LabelFormatError as error:
                note(f"{error}: it is left out")
                continue
            stem = str(PurePosixPath(said).with_suffix("")) if is_image(said) or said.endswith(".xml") else said
            places = [str(above / LABELS / f"{each}.xml") for each in (said, stem, PurePosixPath(stem).name)]
            same = by_stem.get(PurePosixPath(stem).name, [])
            label = first_file(finder, places) or (same[0] if len(same) == 1 else places[1])
            found.setdefault(label, _Image(label, PurePosixPath(stem).name)).lists[name] = (number, line)
    yield from found.values()


def _scene(image: _Image, finder: Finder, note: Note, tally: Tally) -> BoxScene | None:
    """An image with its boxes; with no label when that cannot be used; nothing for a file that is no image's label."""
    file = finder.folder / image.label
    path, doubt = _image_of(finder, image, "")
    root = None
    if not finder.is_file(image.label):
        return BoxScene(path, None, {}, image.lists)
    if not image.lists and not _is_label(file) and not finder.is_file(path):
        return None
    try:
        text, encoding = _read(file)
        root = parse(text)
        path, doubt = _image_of(finder, image, text_of(root, "filename"))
        if doubt:
            raise LabelFormatError(doubt)
        size = size_of(finder, path, size_said(root))
        marks = marks_of(root, size)
        if without := boxless(root):
            if not marks:
                raise LabelFormatError(f"none of its {without} objects has a box")
            tally.add("an object without a box or an outline, which is left out", str(file))
    except (ConfigError, LabelFormatError) as error:
        if root is None and not image.lists and not finder.is_file(path):
            note(f"{file}: {error}; it is left out, for there is no image of its name")
            return None
        note(f"{file}: {error}; the label of {path} is unknown")
        return BoxScene(path, None, {}, image.lists)
    extra = {"xml": text, "file": image.label} | ({} if encoding == "utf-8" else {"encoding": encoding})
    return BoxScene(path, marks, extra, image.lists, size)


def _read(file: Path) -> tuple[str, str]:
    try:
        return decode_xml(read_bytes(file))
    except (UnicodeDecodeError, LookupError) as error:
        raise LabelFormatError(f"it is no text in the encoding that it declares ({error})") from error


def _one_of(known: BoxScene | None, scene: BoxScene, note: Note) -> BoxScene:
    """One of two records of an image: the labelled one; with no label when both are and differ."""
    if known is None:
        return scene
    lists = known.lists | scene.lists
    if known.marks is None or scene.marks is None or known.extra.get("xml") == scene.extra.get("xml"):
        return replace(known if known.labelled else scene, lists=lists)
    note(f"{known.path}: {known.extra['file']} and {scene.extra['file']} both label it; its label is unknown")
    return BoxScene(known.path, None, {}, lists)


def _image_of(finder: Finder, image: _Image, said: str) -> tuple[str, str]:
    """The image of a label: that of the label's own name, with any usual suffix, else the one that it says.

    Returns:
        Its path, which may not be there, and why it may be another one; empty where it cannot.
    """
    label = PurePosixPath(image.label)
    above = label.parent.parent
    folders = [*(above / name for name in IMAGE_FOLDERS), above] if label.parent.name == LABELS else []
    folders = [*folders, label.parent, *(above / name for name in IMAGE_FOLDERS)]
    name = PurePosixPath(said.replace("\\", "/")).name
    own = next((same for folder in folders if (same := finder.with_stem(str(folder), image.stem))), [])
    own = own or _alike(finder.with_stem_anywhere(image.stem), label)
    other = first_file(finder, [str(folder / name) for folder in folders]) if is_image(name) else None
    if other is None and not own and len(same := finder.named(name)) == 1:
        other = same[0]
    if len(own) > 1 and other not in own:
        return own[0], f"it may be of any of {len(own)} images, {own[0]} and {own[1]} among them"
    if own and other is not None and other not in own:
        return own[0], f"it says that it is of {other}, and its name says {own[0]}"
    if own or other is not None:
        return other or own[0], ""
    missing = str(folders[0] / (name or f"{image.stem}.jpg"))
    try:
        return safe_path(missing, ""), ""
    except LabelFormatError:
        return str(folders[0] / f"{image.stem}.jpg"), ""


def _alike(images: list[str], label: PurePosixPath) -> list[str]:
    """Those of some images that lie in a folder called like the label's, where there are several: train, val."""
    beside = [path for path in images if PurePosixPath(path).parent.name == label.parent.name]
    return beside if len(images) > 1 and beside else images


def _beside(scenes: Iterable[str], finder: Finder) -> Iterator[str]:
    """The images in the folders where labelled ones lie."""
    for folder in dict.fromkeys(str(PurePosixPath(path).parent) for path in scenes):
        if finder.is_folder(folder):
            yield from (path for path in finder.images(folder) if str(PurePosixPath(path).parent) == folder)


def _xml_files(finder: Finder) -> Iterator[str]:
    return (path for path in finder.walk() if path.lower().endswith(".xml"))


def _is_label(file: Path) -> bool:
    """Whether a file begins as a label, be it damaged: other tools' XML files are none."""
    try:
        if not file.is_file():
            return False
        with file.open("rb") as opened:
            return START in opened.read(1 << 16).replace(b"\0", b"")
    except OSError:
        return False


__all__ = ["is_voc", "label_file", "label_of", "read_voc", "voc_lists", "write_voc"]
