"""`kdal import`: the images of a TuSimple or CULane folder become tasks of a Label Studio project."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from backend.formats import format_for
from backend.formats.vectors import VectorLabelsFormat
from backend.images import ImageLoader, ImageRef, upright_size
from backend.labelstudio import FILE_BYTES, FILES, LabelStudioClient
from backend.lane_tasks import PATH, Labels, task_of
from kdal_core.datasets import LANE_FOLDERS, LaneScene
from kdal_core.errors import AssetError, ConfigError

Json = dict[str, Any]

LANE_CONFIG = (
    '<View><Image name="image" value="$image" zoom="true"/>'
    '<VectorLabels name="lane" toName="image" closable="false" curves="false" minPoints="2">'
    '<Label value="lane"/></VectorLabels></View>'
)
"""What a project gets that has no labelling config yet."""


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
        form: "tusimple" or "culane".
        lists: names of the label or list files to take; all of them by default.
        address: what the folder is called where Label Studio reads images itself, ``s3://bucket/prefix`` for one;
            images are uploaded to Label Studio when it is not given.
        labels: what becomes of the lanes.
        label: name of the label that lanes get; the first of the labelling config by default.
        progress: told how many images of how many are done.

    Raises:
        ConfigError: no such data, or a project whose regions are no polylines.
        LabelFormatError: a damaged label; names file and line.
        LabelStudioError: Label Studio cannot be reached, or refuses what it gets.
    """
    scenes = LANE_FOLDERS[form].read(folder, lists)
    drawer = _drawer(client, project)
    number = _class_number(drawer, label)
    present = {task["data"].get(PATH) for task in client.tasks(project)}
    new = [scene for scene in scenes if scene.path not in present]
    done = Imported(present=len(scenes) - len(new))
    progress(done.present, len(scenes))
    for batch in _batches(folder, new, uploaded=address is None):
        sized: list[tuple[LaneScene, tuple[int, int]]] = []
        for scene in batch:
            try:
                sized.append((scene, _size(folder, scene, address, images)))
            except AssetError as error:
                done.left_out.append(str(error))
        if address is None:
            files = [(Path(scene.path).name, (folder / scene.path).read_bytes()) for scene, _ in sized]
            addresses = client.upload_files(project, files) if files else []
        else:
            addresses = [f"{address.rstrip('/')}/{scene.path}" for scene, _ in sized]
        tasks = [
            task_of(scene, form, drawer, where, size, number, labels)
            for (scene, size), where in zip(sized, addresses, strict=True)
        ]
        done.created += client.import_tasks(project, tasks) if tasks else 0
        progress(done.present + done.created + len(done.left_out), len(scenes))
    return done


def _drawer(client: LabelStudioClient, project: int) -> VectorLabelsFormat:
    row = client.project(project)
    if not row.get("parsed_label_config"):  # a new project: <View></View>
        row = client.update_project(project, label_config=LANE_CONFIG)
    drawer = format_for(str(row["label_config"]))
    if not isinstance(drawer, VectorLabelsFormat):
        raise ConfigError(
            f"project {project}: lanes are imported into <VectorLabels> or <Vector>; make a project of its own for "
            "them (one without a labelling config gets the right one)"
        )
    return drawer


def _class_number(drawer: VectorLabelsFormat, label: str | None) -> int:
    if label is not None and label not in drawer.classes:
        raise ConfigError(
            f"there is no label {label!r} in the labelling config, which has: {', '.join(drawer.classes)}"
        )
    return 0 if label is None else drawer.classes.index(label)


def _batches(folder: Path, scenes: Sequence[LaneScene], *, uploaded: bool) -> Iterator[list[LaneScene]]:
    """As many scenes as Label Studio takes at once."""
    batch: list[LaneScene] = []
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


def _size(folder: Path, scene: LaneScene, address: str | None, images: ImageLoader) -> tuple[int, int]:
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
