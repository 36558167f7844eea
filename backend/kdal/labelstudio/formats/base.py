"""What a label format is, and the reading of labelling configs that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal_core.errors import ConfigError
from kdal_core.tasks import Task

LABEL_TAGS = ("Choice", "Label")
"""Tags that name a label of the control tag around them."""


@dataclass(frozen=True)
class Control:
    """A control tag, for example ``<Choices name="digit" toName="image">``, and the image it is bound to."""

    tag: str
    name: str
    attributes: dict[str, str]
    labels: tuple[str, ...]
    """Values of its children, or their aliases, in the order of the config."""
    image_name: str | None
    """Name of the ``<Image>`` it is bound to; none when it is bound to something else."""
    image_key: str | None
    """Key of a task's data that holds the image's address."""


class Format(Protocol):
    """Reads and writes the regions of one control tag."""

    def __init__(self, control: Control) -> None: ...

    @property
    def image_key(self) -> str:
        """Key of a task's data that holds the image's address."""

    def task(self) -> Task:
        """The task of the core that these labels are for."""

    def target(self, task: Json) -> Any:
        """The label of a Label Studio task with its annotations.

        Raises:
            LabelFormatError: no annotation can be read; names the task.
        """

    def result(self, prediction: NDArray[Any], size: tuple[int, int] | None = None) -> list[Json]:
        """Label Studio regions of one prediction, with scores per region and class.

        Args:
            prediction: of one image, as the task decodes it.
            size: (width, height) of the image in pixels, as people see it.
        """


def controls(label_config: str) -> list[Control]:
    """The control tags of a labelling config.

    Raises:
        ConfigError: it is not XML, or asks for what an XML reader must not do (entities).
    """
    try:
        root: Element = fromstring(label_config, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, TypeError) as error:
        raise ConfigError(f"labelling config: not valid XML ({error})") from error
    images = {e.get("name", ""): e.get("value", "") for e in root.iter("Image")}
    found = []
    for element in root.iter():
        bound = element.get("toName")
        if bound is None or element.get("name") is None:
            continue
        image = bound if bound in images else None
        found.append(
            Control(
                tag=str(element.tag),
                name=element.get("name", ""),
                attributes=dict(element.attrib),
                labels=_labels(element),
                image_name=image,
                image_key=images[image].removeprefix("$") if image is not None else None,
            )
        )
    return found


def require_image(control: Control) -> tuple[str, str]:
    """Name and data key of the image a control is bound to; `ConfigError` when it is bound to none."""
    if control.image_name is None or not control.image_key:
        raise ConfigError(
            f'labelling config: <{control.tag} name="{control.name}"> is bound to '
            f'"{control.attributes.get("toName")}", which is no <Image value="$...">'
        )
    return control.image_name, control.image_key


def finished_annotations(task: Json) -> list[Json]:
    """Annotations that count, most trusted last: not cancelled, by time, ground truth after the others."""
    found = task.get("annotations")
    annotations = [a for a in found if isinstance(a, dict)] if isinstance(found, list) else []
    return sorted((a for a in annotations if not a.get("was_cancelled")), key=_trust)


def _trust(annotation: Json) -> tuple[bool, str, int]:
    updated, number = annotation.get("updated_at"), annotation.get("id")
    return (
        bool(annotation.get("ground_truth")),
        updated if isinstance(updated, str) else "",
        number if isinstance(number, int) else 0,
    )


def _labels(control: Element) -> tuple[str, ...]:
    # Not its children alone: Label Studio lets tags of layout stand between a control and its labels.
    labels = (e for tag in LABEL_TAGS for e in control.iter(tag))
    return tuple(str(label.get("alias") or label.get("value")) for label in labels if label.get("value"))
