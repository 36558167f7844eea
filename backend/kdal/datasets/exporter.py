"""`kdal export`: a Label Studio project's labels as a folder, with the images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from kdal.aliases import Json
from kdal.datasets.adapter import Adapter, Exporting, adapter_of, kind_of
from kdal.datasets.tasks import Size, moved_to, path_of
from kdal.images.loader import ImageLoader, sources_of
from kdal.images.refs import ImageRef
from kdal.labelstudio.accepted import only_accepted
from kdal.labelstudio.client import LabelStudioClient
from kdal.labelstudio.formats import Format, format_of
from kdal_core.datasets import Scene
from kdal_core.datasets.images import IMAGE_FORMATS, upright_size
from kdal_core.errors import AssetError, ConfigError, LabelFormatError
from kdal_core.validation import InvalidInput

DECIMALS = 6
"""Digits behind the point of a pixel: as many as CULane has, and far from the noise of percentages."""
UNFINISHED = ".kdal-export"
"""Folder within the folder that is written, which holds everything until it is complete."""


@dataclass
class Exported:
    """What an export did."""

    written: int = 0
    without_image: list[str] = field(default_factory=list)
    """Why an image is missing though its label was written, one sentence each."""
    left_out: list[str] = field(default_factory=list)
    """Why a labelled task was not written, one sentence each."""
    accepted: int = 0
    """Tasks left out that have no label of a person's, but a suggestion that `kdal accept` has accepted."""
    renamed: list[str] = field(default_factory=list)
    """Which image was written under another name than it came with, one sentence each."""


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

    Nothing is left behind when it fails. Of two images that came with the same path, the second gets another one.

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
    images = images.within(sources_of(client, project))
    with _complete_or_not_at_all(folder) as unfinished:
        export = _Export(adapter, drawer, how, images, unfinished if with_images else None)
        total = int(row.get("num_tasks_with_annotations") or 0)
        for number, task in enumerate(client.tasks(project, labelled=True, full=True), start=1):
            if only_accepted(task):
                export.done.accepted += 1
            else:
                export.add(task)
            progress(number, max(number, total))
        adapter.forms[form].write(list(export.scenes.values()), unfinished)
    export.done.written = len(export.scenes)
    return export.done


class _Export:
    """The tasks that were read so far."""

    def __init__(
        self, adapter: Adapter[Any, Any], drawer: Format, how: Exporting, images: ImageLoader, folder: Path | None
    ) -> None:
        self._adapter, self._drawer, self._how, self._images, self._folder = adapter, drawer, how, images, folder
        self._label_files: dict[str, str] = {}
        self.scenes: dict[str, Scene] = {}
        self.done = Exported()

    def add(self, task: Json) -> None:
        """Read a task; one that cannot be written is left out and named."""
        try:
            path = path_of(task, self._drawer.image_key, self._adapter.image_folder(self._how.form))
            if path in self.scenes:
                path, task = self._renamed(path, task)
            wanted = self._folder is not None or self._adapter.needs_size(task, self._drawer)
            data = self._image(task) if wanted else None
            scene = self._adapter.scene_of(task, self._drawer, _size(data), len(self.scenes), self._how)
            self._claim_label_file(scene, task)
        except (LabelFormatError, InvalidInput) as error:
            self.done.left_out.append(str(error))
            return
        if data is not None and self._folder is not None:
            (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / path).write_bytes(data)
        self.scenes[path] = scene

    def _renamed(self, path: str, task: Json) -> tuple[str, Json]:
        """Another path for an image, and its task without what the first folder's files say of it."""
        old = PurePosixPath(path)
        new = str(old.with_name(f"{old.stem}-{task['id']}{old.suffix}"))
        if new in self.scenes:
            raise LabelFormatError(f"task {task['id']}: other tasks are {path} and {new} too")
        self.done.renamed.append(f"task {task['id']}: another task is {path} too: it is written as {new}")
        return new, moved_to(task, new)

    def _claim_label_file(self, scene: Scene, task: Json) -> None:
        """Raise `LabelFormatError` when an image's label would be written over another's."""
        of = self._adapter.forms[self._how.form].label_file
        if of is None or not scene.labelled:
            return
        if (other := self._label_files.setdefault(name := of(scene), scene.path)) != scene.path:
            raise LabelFormatError(
                f"task {task['id']}: the label of {scene.path} would be {name}, as that of {other} is"
            )

    def _image(self, task: Json) -> bytes | None:
        """The image's file as it is stored; none, and a sentence more in `done`, when it cannot be read."""
        try:
            return self._images.file(ImageRef.of(task, self._drawer.image_key))
        except AssetError as error:
            self.done.without_image.append(str(error))
            return None


@contextmanager
def _complete_or_not_at_all(folder: Path) -> Iterator[Path]:
    """A folder to write into whose content goes to `folder` at the end, or is removed when anything fails."""
    was_there, unfinished = folder.exists(), folder / UNFINISHED
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        for path in unfinished.iterdir():
            path.rename(folder / path.name)
        unfinished.rmdir()
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not was_there and folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise ConfigError(f"{folder}: cannot be written ({error.strerror or error})") from error
        raise


def _size(data: bytes | None) -> Size | None:
    """(width, height) of an image as people see it."""
    if data is None:
        return None
    with Image.open(BytesIO(data), formats=IMAGE_FORMATS) as image:
        return upright_size(image)
