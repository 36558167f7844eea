"""What data sets of all kinds have in common as tasks of Label Studio: paths, sizes, and what their meta says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ValidationError

from kdal.aliases import Json
from kdal.labelstudio.formats.regions import Drawing, same_shape
from kdal.labelstudio.task_data import data_with, image_address
from kdal_core.datasets.scene import safe_path
from kdal_core.errors import LabelFormatError

Size = tuple[int, int]
"""(width, height) of an image in pixels, as people see it."""
Model = TypeVar("Model", bound=BaseModel)

META = "kdal"
"""Key of what is ours in the meta of tasks and regions."""
ORIGIN = "origin"
"""Key in the meta of tasks, beside what else is ours there, of where the image came from."""
PATH = "path"
"""Key of a task's data that says which file of the folder its image is."""
IMPORTED = "import-"
"""What ids of imported regions begin with: nobody drew them, so they have no habits to be cleaned of."""
UNKNOWN_SIZE: Size = (1280, 720)
"""Size of an image without regions that nobody knows."""


class Origin(BaseModel):
    """Where an imported image came from, as its task's meta tells it. What nobody has looked at is empty."""

    path: str = ""
    """Of the image in its folder."""
    image: str = ""
    """Digest of the image's bytes."""
    label: str = ""
    """Digest of its label."""
    folder: str = ""
    """Digest of where the folder was."""


class Labels(StrEnum):
    """What becomes of the folder's labels."""

    annotations = "annotations"
    """Labels, as if somebody had drawn them."""
    predictions = "predictions"
    """Suggestions that annotators correct."""
    none = "none"
    """Nothing: only the images come in."""


def as_task(
    path: str, image_key: str, address: str, meta: BaseModel, regions: Sequence[Json] | None, labels: Labels
) -> Json:
    """A task of Label Studio.

    Args:
        path: of the image in its folder, which becomes a column of the data manager.
        image_key: key of a task's data that holds the image's address.
        address: of the image.
        meta: what its meta says of the data set that it came from.
        regions: of its label; none for an image without a label.
        labels: what becomes of the label.
    """
    data = data_with(image_key, address)
    task: Json = {"data": {PATH: path} | data, "meta": {META: meta.model_dump(mode="json")}}
    if regions is None or labels is Labels.none:
        return task
    if labels is Labels.predictions:
        return task | {"predictions": [{"result": list(regions), "model_version": "import"}]}
    # No ground truth, which Label Studio takes imported annotations for: a correction must count more.
    return task | {"annotations": [{"result": list(regions), "ground_truth": False}]}


def path_of(task: Json, image_key: str, folder: str = "images") -> str:
    """Where a task's image is put in a folder: where it came from, else in this one by its number and name."""
    if (said := path_said(task, image_key)) is not None:
        return safe_path(said, f"task {task['id']}")
    name = PurePosixPath(unquote(urlsplit(str(image_address(task, image_key))).path)).name
    return safe_path(f"{folder}/{task['id']}-{name or 'image'}", f"task {task['id']}")


def path_said(task: Json, image_key: str) -> str | None:
    """Where an imported image came from in its folder; none where nobody says so."""
    origin = origin_of(task)
    if origin is not None:
        return origin.path
    said = task["data"].get(PATH) if image_key != PATH else None
    return said if isinstance(said, str) else None


def moved_to(task: Json, path: str) -> Json:
    """A task whose image is put elsewhere in a folder, without what the data set that it came from says of it."""
    return task | {"meta": {META: {ORIGIN: Origin(path=path).model_dump()}}}


def origin_of(task: Json) -> Origin | None:
    """Where an imported image came from; none of a task that was not imported, or by an older kdal."""
    meta = task.get("meta")
    ours = meta.get(META) if isinstance(meta, dict) else None
    told = ours.get(ORIGIN) if isinstance(ours, dict) else None
    try:
        return Origin.model_validate(told) if told else None
    except ValidationError:
        return None


def drawn_size(drawings: Sequence[Drawing], actual: Size | None, where: str) -> Size:
    """(width, height) in pixels; the image's own counts more than what a region says of it.

    Raises:
        LabelFormatError: regions of another shape than the image, or nobody says how large it is; names the task.
    """
    for drawing in drawings:
        if drawing.size is not None and actual is not None and not same_shape(drawing.size, actual):
            raise LabelFormatError(
                f"{where}: region {drawing.region}: it was drawn on {drawing.size[0]} x {drawing.size[1]} pixels, "
                f"its image has {actual[0]} x {actual[1]}: these are not the same image"
            )
    said = actual or next((drawing.size for drawing in drawings if drawing.size is not None), None)
    if said is None and drawings:
        raise LabelFormatError(f"{where}: its image cannot be read, and no region says how large it is")
    return said or UNKNOWN_SIZE


def read_meta(kind: type[Model], item: Mapping[str, Any], where: str) -> Model:
    """What the meta of a task or region says to us.

    Raises:
        LabelFormatError: it is damaged; says where.
    """
    meta = item.get("meta")
    try:
        return kind.model_validate(meta.get(META, {}) if isinstance(meta, dict) else {})
    except ValidationError as error:
        raise LabelFormatError(f"{where}: its meta is damaged ({error.errors()[0]['msg']})") from error
