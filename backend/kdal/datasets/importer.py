"""`kdal import`: the images of a folder of lanes or boxes become tasks of a Label Studio project."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

from PIL import Image

from kdal.aliases import Json
from kdal.datasets import boxes, lanes
from kdal.datasets.lanes import PATH, Labels
from kdal.images.loader import ImageLoader, ImageRef
from kdal.labelstudio.client import FILE_BYTES, FILES, LabelStudioClient
from kdal.labelstudio.formats import Format, format_for
from kdal.labelstudio.formats.rectangles import RectangleLabelsFormat
from kdal.labelstudio.formats.vectors import VectorLabelsFormat
from kdal_core.datasets import BOX_FOLDERS, LANE_FOLDERS, BoxScene, LaneScene
from kdal_core.datasets.box_scene import class_names
from kdal_core.datasets.images import upright_size
from kdal_core.errors import AssetError, ConfigError, LabelFormatError

LANE_CONFIG = (
    '<View><Image name="image" value="$image" zoom="true"/>'
    '<VectorLabels name="lane" toName="image" closable="false" curves="false" minPoints="2">'
    '<Label value="lane"/></VectorLabels></View>'
)
"""What a project gets that has no labelling config yet and is to hold lanes."""

Scene = LaneScene | BoxScene


@dataclass
class Imported:
    """What an import did."""

    created: int = 0
    present: int = 0
    """Images that were tasks of the project already."""
    left_out: list[str] = field(default_factory=list)
    """Why an image did not become a task, one sentence each."""


def import_folder(
    client: LabelStudioClient,
    images: ImageLoader,
    project: int,
    folder: Path,
    form: str,
    *,
    lists: Sequence[str] = (),
    address: str | None = None,
    labels: Labels = Labels.annotations,
    label: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Make tasks of a folder's images. What is there already is left as it is, so that a broken import goes on.

    Args:
        client: Label Studio.
        images: reads the size of images that are not in the folder.
        project: number of the project.
        folder: the data set.
        form: one of `LANE_FOLDERS` or `BOX_FOLDERS`.
        lists: names of the label or list files, or of YOLO's splits, to take; all of them by default.
        address: what the folder is called where Label Studio reads images itself, ``s3://bucket/prefix`` for one;
            images are uploaded to Label Studio when it is not given.
        labels: what becomes of the lanes or boxes.
        label: name of the label that lanes get; the first of the labelling config by default. Boxes have their own.
        progress: told how many images of how many are done.

    Raises:
        ConfigError: no such data, or a project whose regions are no polylines, or no rectangles.
        LabelFormatError: a damaged label; names file and line.
        LabelStudioError: Label Studio cannot be reached, or refuses what it gets.
    """
    scenes: Sequence[Scene] = _read(form, folder, lists)
    drawer = _drawer(client, project, form, scenes)
    number = _class_number(drawer, label)
    present = {task["data"].get(PATH) for task in client.tasks(project)}
    new = [scene for scene in scenes if scene.path not in present]
    done = Imported(present=len(scenes) - len(new))
    progress(done.present, len(scenes))
    for batch in _batches(folder, new, uploaded=address is None):
        sized: list[tuple[Scene, tuple[int, int]]] = []
        for scene in batch:
            try:
                size = _size(folder, scene, address, images)
                _task(scene, form, drawer, "", size, number, labels)  # before its image is uploaded
                sized.append((scene, size))
            except (AssetError, LabelFormatError) as error:
                done.left_out.append(str(error))
        if address is None:
            files = [(Path(scene.path).name, (folder / scene.path).read_bytes()) for scene, _ in sized]
            addresses = client.upload_files(project, files) if files else []
        else:
            addresses = [f"{address.rstrip('/')}/{scene.path}" for scene, _ in sized]
        tasks = [
            _task(scene, form, drawer, where, size, number, labels)
            for (scene, size), where in zip(sized, addresses, strict=True)
        ]
        done.created += client.import_tasks(project, tasks) if tasks else 0
        progress(done.present + done.created + len(done.left_out), len(scenes))
    return done


def box_config(classes: Sequence[str]) -> str:
    """What a project gets that has no labelling config yet and is to hold boxes of these classes."""
    labels = "".join(f"<Label value={quoteattr(name)}/>" for name in classes)
    return (
        '<View><Image name="image" value="$image" zoom="true"/>'
        f'<RectangleLabels name="box" toName="image">{labels}</RectangleLabels></View>'
    )


def _read(form: str, folder: Path, lists: Sequence[str]) -> Sequence[Scene]:
    return BOX_FOLDERS[form].read(folder, lists) if form in BOX_FOLDERS else LANE_FOLDERS[form].read(folder, lists)


def _task(
    scene: Scene, form: str, drawer: Format, address: str, size: tuple[int, int], label: int, labels: Labels
) -> Json:
    """The scene as a task; `LabelFormatError` when it has a label that the project does not have."""
    if isinstance(scene, BoxScene):
        assert isinstance(drawer, RectangleLabelsFormat)
        return boxes.task_of(scene, form, drawer, address, size, labels)
    assert isinstance(drawer, VectorLabelsFormat)
    return lanes.task_of(scene, form, drawer, address, size, label, labels)


def _drawer(
    client: LabelStudioClient, project: int, form: str, scenes: Sequence[Scene]
) -> VectorLabelsFormat | RectangleLabelsFormat:
    row = client.project(project)
    box_scenes = [scene for scene in scenes if isinstance(scene, BoxScene)]
    if not row.get("parsed_label_config"):  # a new project: <View></View>
        label_config = box_config(class_names(box_scenes)) if box_scenes else LANE_CONFIG
        row = client.update_project(project, label_config=label_config)
    drawer = format_for(str(row["label_config"]))
    if form in BOX_FOLDERS and isinstance(drawer, RectangleLabelsFormat):
        return drawer
    if form in LANE_FOLDERS and isinstance(drawer, VectorLabelsFormat):
        return drawer
    into = (
        "boxes are imported into <RectangleLabels>"
        if box_scenes
        else "lanes are imported into <VectorLabels> or <Vector>"
    )
    raise ConfigError(
        f"project {project}: {into}; make a project of its own for them (one without a labelling config gets the "
        "right one)"
    )


def _class_number(drawer: VectorLabelsFormat | RectangleLabelsFormat, label: str | None) -> int:
    if label is not None and isinstance(drawer, RectangleLabelsFormat):
        raise ConfigError("boxes keep the labels that their data set gives them: leave --label out")
    if label is not None and label not in drawer.classes:
        raise ConfigError(
            f"there is no label {label!r} in the labelling config, which has: {', '.join(drawer.classes)}"
        )
    return 0 if label is None else drawer.classes.index(label)


def _batches(folder: Path, scenes: Sequence[Scene], *, uploaded: bool) -> Iterator[list[Scene]]:
    """As many scenes as Label Studio takes at once."""
    batch: list[Scene] = []
    held = 0
    for scene in scenes:
        path = folder / scene.path
        size = path.stat().st_size if uploaded and path.is_file() else 0
        if batch and (len(batch) == FILES or held + size > FILE_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(scene)
        held += size
    if batch:
        yield batch


def _size(folder: Path, scene: Scene, address: str | None, images: ImageLoader) -> tuple[int, int]:
    """(width, height) of an image as people see it."""
    path = folder / scene.path
    if address is not None and not path.is_file():
        return images.image(ImageRef(0, f"{address.rstrip('/')}/{scene.path}")).size
    try:
        with Image.open(path) as image:  # its head alone is read
            return upright_size(image)
    except FileNotFoundError as error:
        raise AssetError(f"{path}: there is no such image") from error
    except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning, ValueError) as error:
        raise AssetError(f"{path}: it is no image that can be read ({error})") from error
