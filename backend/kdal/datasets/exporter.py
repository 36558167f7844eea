"""`kdal export`: a Label Studio project's labels as a folder, with the images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

from kdal.aliases import Json
from kdal.datasets.adapter import Exporting, adapter_of, kind_of
from kdal.datasets.tasks import Size, path_of
from kdal.images.loader import ImageLoader
from kdal.images.refs import ImageRef
from kdal.labelstudio.client import LabelStudioClient
from kdal.labelstudio.formats import format_of
from kdal_core.datasets import Scene
from kdal_core.datasets.images import upright_size
from kdal_core.errors import AssetError, ConfigError, LabelFormatError
from kdal_core.validation import InvalidInput

DECIMALS = 6
"""Digits behind the point of a pixel: as many as CULane has, and far from the noise of percentages."""


@dataclass
class Exported:
    """What an export did."""

    written: int = 0
    without_image: list[str] = field(default_factory=list)
    """Why an image is missing though its label was written, one sentence each."""
    left_out: list[str] = field(default_factory=list)
    """Why a labelled task was not written, one sentence each."""


def export_folder(
    client: LabelStudioClient,
    images: ImageLoader,
    project: int,
    folder: Path,
    form: str,
    *,
    with_images: bool = True,
    decimals: int = DECIMALS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write a project's labelled tasks. One that cannot be written is left out and named; the others are written.

    Args:
        client: Label Studio.
        images: reads the images.
        project: number of the project.
        folder: where to; it must be empty or not there.
        form: one of `kdal.datasets.adapter.forms`, whichever fits the project's labels.
        with_images: write the images too, as files they are.
        decimals: digits behind the point of a lane's pixel.
        progress: told how many tasks of how many are done.

    Raises:
        ConfigError: a folder that holds something, or a project whose labels are of another kind.
        LabelStudioError: Label Studio cannot be reached.
    """
    adapter, how = adapter_of(form), Exporting(form, decimals)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: it is not empty, and an export writes over nothing")
    row = client.project(project)
    try:
        drawer = adapter.exporting(format_of(kind_of(form), str(row["label_config"])))
    except ConfigError as error:
        raise ConfigError(f"project {project}: {error}") from error
    done = Exported()
    scenes: dict[str, Scene] = {}
    for task in client.tasks(project, labelled=True, full=True):
        try:
            path = path_of(task, drawer.image_key, adapter.image_folder(form))
            if path in scenes:
                raise LabelFormatError(f"task {task['id']}: another task is {path} too")
            asked = with_images or adapter.needs_size(task, drawer)
            data = _image(images, task, drawer.image_key, done) if asked else None
            scenes[path] = adapter.scene_of(task, drawer, _size(data), len(scenes), how)
            if data is not None and with_images:
                _write(folder / path, data)
        except (LabelFormatError, InvalidInput) as error:
            done.left_out.append(str(error))
        progress(len(scenes) + len(done.left_out), int(row.get("num_tasks_with_annotations") or 0))
    try:
        adapter.forms[form].write(list(scenes.values()), folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error})") from error
    done.written = len(scenes)
    return done


def _image(images: ImageLoader, task: Json, image_key: str, done: Exported) -> bytes | None:
    """The image's file as it is stored; none, and a sentence more in `done`, when it cannot be read."""
    try:
        return images.file(ImageRef.of(task, image_key))
    except AssetError as error:
        done.without_image.append(str(error))
        return None


def _size(data: bytes | None) -> Size | None:
    """(width, height) of an image as people see it."""
    if data is None:
        return None
    with Image.open(BytesIO(data)) as image:
        return upright_size(image)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error})") from error
