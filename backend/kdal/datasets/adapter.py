"""What stands between a kind of data-set folders and Label Studio's tasks, and where the kinds are found.

To import and export another kind of labels, write a module in this package that assigns an `Adapter` to ``ADAPTER``,
or offer one from another package as an entry point of the group ``kdal.datasets``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from kdal.aliases import Json
from kdal.datasets.tasks import Labels, Size
from kdal.labelstudio.formats import Format
from kdal_core.datasets import Folder, Scene, detect
from kdal_core.errors import ConfigError
from kdal_core.plugins import Plugins

SceneT = TypeVar("SceneT", bound=Scene)
FormatT = TypeVar("FormatT", bound=Format)


@dataclass(frozen=True)
class Importing:
    """How an image becomes a task."""

    form: str
    """Which of the adapter's forms its folder has."""
    labels: Labels = Labels.annotations
    """What becomes of its label."""
    label: str | None = None
    """Name of the label that all objects get; where the adapter takes none, they keep their own."""


@dataclass(frozen=True)
class Exporting:
    """How a task becomes an image of a folder."""

    form: str
    """Which of the adapter's forms the folder gets."""
    decimals: int = 6
    """Digits behind the point of a pixel, where the form has any number of them."""


class Adapter(ABC, Generic[SceneT, FormatT]):
    """Folders of one kind of labels as tasks, and back."""

    forms: Mapping[str, Folder[SceneT]]
    """Name of a form, as `--format` has it -> how its folders are read and written."""

    @abstractmethod
    def importing(self, drawer: Format, how: Importing) -> FormatT:
        """The project's format, once it is sure that labels can be imported into it.

        Raises:
            ConfigError: they cannot; says into what they can.
        """

    @abstractmethod
    def exporting(self, drawer: Format) -> FormatT:
        """The project's format, once it is sure that its labels are of this kind.

        Raises:
            ConfigError: they are of another.
        """

    @abstractmethod
    def label_config(self, scenes: Sequence[SceneT]) -> str:
        """What a project gets that has no labelling config yet and is to hold these."""

    @abstractmethod
    def task_of(self, scene: SceneT, drawer: FormatT, address: str, size: Size, how: Importing) -> Json:
        """The Label Studio task of an image.

        Args:
            scene: the image and its label.
            drawer: how the project's regions are written.
            address: of the image, for the task's data.
            size: (width, height) of the image in pixels.
            how: which form it came from, and what becomes of its label.

        Raises:
            LabelFormatError: a label that does not fit the project or the image; names the image.
        """

    @abstractmethod
    def scene_of(self, task: Json, drawer: FormatT, actual: Size | None, number: int, how: Exporting) -> SceneT:
        """The image of a labelled Label Studio task with its label.

        Args:
            task: with its annotations.
            drawer: how the project's regions are read.
            actual: (width, height) of the image in pixels; none when nobody looked.
            number: of the task among those that are written, for its place in a list.
            how: which form it goes into.

        Raises:
            LabelFormatError: what cannot be read or written; names task and region.
            InvalidInput: its meta does not fit its label.
        """

    def label_digest(self, scene: SceneT) -> str:
        """Digest of an image's label: it tells images of one name apart, and those of a folder that has moved."""
        return ""

    def remarks(self, scene: SceneT) -> list[str]:
        """What of a label cannot be shown to annotators, a sentence each that names the image."""
        return []

    def detect(self, folder: Path) -> str | None:
        """Which of `forms` a folder has, for forms that `kdal_core.datasets.detect` does not know."""
        return None

    def needs_size(self, task: Json, drawer: FormatT) -> bool:
        """Whether the image of a task must be read to know its size; raises as `scene_of`."""
        return True

    def image_folder(self, form: str) -> str:
        """Where images are put that came from no folder."""
        return "images"


ADAPTERS: Plugins[Adapter[Any, Any]] = Plugins(
    sort="data-set adapter",
    package="kdal.datasets",
    attribute="ADAPTER",
    group="kdal.datasets",
    part=Adapter,  # type: ignore[type-abstract]  # asked with isinstance only
    first=("lanes", "boxes"),
)
"""Kind of labels -> its adapter."""


def forms() -> dict[str, Adapter[Any, Any]]:
    """Name of each form of folders -> the adapter that knows it.

    Raises:
        ConfigError: two adapters know a form of the same name.
    """
    found: dict[str, Adapter[Any, Any]] = {}
    kinds: dict[str, str] = {}
    for kind, adapter in ADAPTERS.items():
        for form in adapter.forms:
            if form in found:
                raise ConfigError(
                    f"the format {form!r} is offered for {kinds[form]} and for {kind}: uninstall the package of one"
                )
            found[form], kinds[form] = adapter, kind
    return found


def adapter_of(form: str) -> Adapter[Any, Any]:
    """The adapter that knows a form of folders.

    Raises:
        ConfigError: none does; names those that are known.
    """
    known = forms()
    if form not in known:
        raise ConfigError(f"there is no format {form!r}, only {', '.join(known)}")
    return known[form]


def kind_of(form: str) -> str:
    """The kind of labels that folders of a form hold: "boxes".

    Raises:
        ConfigError: as `adapter_of`.
    """
    adapter = adapter_of(form)
    return next(kind for kind, other in ADAPTERS.items() if other is adapter)


def detect_form(folder: Path) -> str:
    """Which form a folder has.

    Raises:
        ConfigError: it is no folder, or has none of them.
    """
    try:
        return detect(folder)
    except ConfigError:
        found = (adapter.detect(folder) for adapter in ADAPTERS.values()) if folder.is_dir() else ()
        if form := next(filter(None, found), None):
            return form
        raise
