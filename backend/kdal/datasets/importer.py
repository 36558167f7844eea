"""`kdal import`: the images of a labelled folder become tasks of a Label Studio project."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from kdal.datasets.adapter import Adapter, Importing, adapter_of, kind_of
from kdal.datasets.tasks import PATH, Labels, Size
from kdal.images.loader import ImageLoader
from kdal.images.refs import ImageRef
from kdal.labelstudio.client import FILE_BYTES, FILES, LabelStudioClient
from kdal.labelstudio.formats import Format, format_of
from kdal_core.datasets import Scene
from kdal_core.datasets.images import upright_size
from kdal_core.errors import AssetError, ConfigError, LabelFormatError


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
        form: one of `kdal.datasets.adapter.forms`.
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
    adapter, how = adapter_of(form), Importing(form, labels, label)
    scenes = adapter.forms[form].read(folder, lists)
    drawer = _drawer(client, project, adapter, scenes, how)
    present = {task["data"].get(PATH) for task in client.tasks(project)}
    new = [scene for scene in scenes if scene.path not in present]
    done = Imported(present=len(scenes) - len(new))
    progress(done.present, len(scenes))
    for batch in _batches(folder, new, uploaded=address is None):
        sized: list[tuple[Scene, Size]] = []
        for scene in batch:
            try:
                size = _size(folder, scene, address, images)
                adapter.task_of(scene, drawer, "", size, how)  # before its image is uploaded
                sized.append((scene, size))
            except (AssetError, LabelFormatError) as error:
                done.left_out.append(str(error))
        if address is None:
            files = [(Path(scene.path).name, (folder / scene.path).read_bytes()) for scene, _ in sized]
            addresses = client.upload_files(project, files) if files else []
        else:
            addresses = [f"{address.rstrip('/')}/{scene.path}" for scene, _ in sized]
        tasks = [
            adapter.task_of(scene, drawer, where, size, how)
            for (scene, size), where in zip(sized, addresses, strict=True)
        ]
        done.created += client.import_tasks(project, tasks) if tasks else 0
        progress(done.present + done.created + len(done.left_out), len(scenes))
    return done


def _drawer(
    client: LabelStudioClient, project: int, adapter: Adapter[Any, Any], scenes: Sequence[Scene], how: Importing
) -> Format:
    """How the project's labels are written; a project without a labelling config gets one that suits the scenes."""
    row = client.project(project)
    if not row.get("parsed_label_config"):  # a new project: <View></View>
        row = client.update_project(project, label_config=adapter.label_config(scenes))
    try:
        drawer: Format = adapter.importing(format_of(kind_of(how.form), str(row["label_config"])), how)
    except ConfigError as error:
        raise ConfigError(
            f"project {project}: {error}; make a project of its own for them (one without a labelling config gets the "
            "right one)"
        ) from error
    return drawer


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


def _size(folder: Path, scene: Scene, address: str | None, images: ImageLoader) -> Size:
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
