"""What the demo shows kdal on: projects of `kdal/demo/examples/` whose true labels are known."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from kdal.aliases import Json
from kdal.console import out, progress
from kdal.demo.examples.boxes import Boxes
from kdal.demo.examples.digits import Digits
from kdal.demo.examples.lanes import Lanes
from kdal.demo.examples.photos import Photos, PhotosError
from kdal.labelstudio.client import FILES, LabelStudioClient
from kdal.labelstudio.formats import Format
from kdal_core.errors import ConfigError


class Example(Protocol):
    """Images with their true labels. A new one is a file in `kdal/demo/examples/` with such a class, and a line below.

    Its images have numbers from 0 on; they are uploaded under their number, which is all that the demo keeps of them.
    """

    name: str

    @property
    def title(self) -> str:
        """Of its project in Label Studio."""

    @property
    def label_config(self) -> str:
        """Of its project in Label Studio."""

    policy: Json
    """Its project's, where kdal's defaults do not suit a demo; the budget at least."""
    rounds: int
    """That a program labels, unless somebody says otherwise."""
    draws: int
    """Random choices of labels that its learning curve is averaged over: each costs what all the rounds cost."""
    suffix: str
    """Of its image files."""

    def __len__(self) -> int:
        """How many images there are."""

    def image(self, index: int) -> bytes:
        """An image as a file."""

    def truth(self, index: int) -> list[Json]:
        """The true label, as regions of Label Studio."""

    def answer(self, index: int) -> list[Json]:
        """What somebody submits who labels the image: nearly the truth."""


EXAMPLES: dict[str, Callable[[], Example]] = {"digits": Digits, "photos": Photos, "lanes": Lanes, "boxes": Boxes}


def example(name: str) -> Example:
    """The example of this name.

    Raises:
        ConfigError: there is none, or its images cannot be had.
    """
    if name not in EXAMPLES:
        raise ConfigError(f"there is no demo {name!r}, only {', '.join(EXAMPLES)}")
    try:
        return EXAMPLES[name]()
    except PhotosError as error:
        raise ConfigError(str(error)) from error


def file_name(shown: Example, index: int) -> str:
    """Name under which an image is uploaded."""
    return f"{shown.name}-{index:04d}.{shown.suffix}"


def index_of(address: str) -> int:
    """The number of an uploaded image."""
    found = re.search(r"-(\d{4,})\.\w+$", address)
    if found is None:
        raise ConfigError(f"{address} is not one of the demo's images")
    return int(found[1])


def import_missing(shown: Example, client: LabelStudioClient, project: int, count: int) -> None:
    """Upload those of the first images that the project does not have yet."""
    present = {index_of(task["data"]["image"]) for task in client.tasks(project)}
    missing = [i for i in range(count) if i not in present]
    if not missing:
        return
    with progress(out, f"Uploading {shown.name}") as report:
        for done in range(0, len(missing), FILES):
            report(done, len(missing))
            files = [(file_name(shown, i), shown.image(i)) for i in missing[done : done + FILES]]
            client.import_tasks(project, [{"data": {"image": at}} for at in client.upload_files(project, files)])
        report(len(missing), len(missing))


def target(form: Format, regions: list[Json]) -> Any:
    """A label of Label Studio as kdal learns it."""
    return form.target({"id": 0, "annotations": [{"id": 1, "result": regions}]})
