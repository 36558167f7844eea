"""`kdal import`: the images of a labelled folder become tasks of a Label Studio project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdal.datasets.adapter import Adapter, Importing, adapter_of, kind_of
from kdal.datasets.identity import Present, add_origin
from kdal.datasets.source import Source
from kdal.datasets.tasks import Labels
from kdal.datasets.upload import Upload
from kdal.images.loader import ImageLoader, sources_of
from kdal.labelstudio.client import LabelStudioClient
from kdal.labelstudio.formats import Format, format_of
from kdal_core.datasets import Scene
from kdal_core.errors import AssetError, ConfigError, LabelFormatError


@dataclass
class Imported:
    """What an import did."""

    created: int = 0
    present: int = 0
    """Images that were tasks of the project already."""
    left_out: list[str] = field(default_factory=list)
    """Why an image did not become a task, one sentence each."""
    notes: list[str] = field(default_factory=list)
    """What of the folder's labels could not be used, one sentence each."""


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
    follow_links: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Make tasks of a folder's images. What is there already is left as it is, so that a broken import goes on.

    An image that cannot become a task is left out and named. A label that cannot be used is named, and its image comes
    in without it.

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
        follow_links: upload images that are links to files outside the folder.
        progress: told how many images of how many are done.

    Raises:
        ConfigError: no such data, or a project whose labels are of another kind.
        LabelFormatError: nothing of the folder can be used; names a file.
        LabelStudioError: Label Studio cannot be reached, or refuses us.
    """
    adapter, how, done = adapter_of(form), Importing(form, labels, label), Imported()
    scenes = adapter.forms[form].read(folder, lists, done.notes.append)
    drawer = _drawer(client, project, adapter, scenes, how)
    images = images.within(sources_of(client, project))
    source = Source(folder, address, images, follow_links)
    present = Present(client.tasks(project), drawer.image_key, images)
    new = [scene for scene in scenes if not source.is_in(present, scene, adapter.label_digest(scene))]
    done.present = len(scenes) - len(new)
    progress(done.present, len(scenes))
    upload = Upload(client, project, done.left_out)
    for batch in source.batches(new):
        opened = []
        for scene in batch:
            try:
                image = source.open(scene, adapter.label_digest(scene))
                adapter.task_of(scene, drawer, "", image.size, how)  # before its image is uploaded
                opened.append(image)
                done.notes += adapter.remarks(scene)
            except (AssetError, ConfigError, LabelFormatError) as error:
                done.left_out.append(str(error))
        tasks = [
            add_origin(adapter.task_of(image.scene, drawer, where, image.size, how), image.origin)
            for image, where in (upload.files(opened) if address is None else source.addresses(opened))
        ]
        done.created += upload.tasks(tasks)
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
