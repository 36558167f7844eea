"""What a label format is, and the reading of labelling configs that all of them share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.accepted import finished_by_anybody, is_accepted
from kdal.policy import Policy
from kdal_core.errors import ConfigError

if TYPE_CHECKING:  # it imports torch, which takes seconds: reading a labelling config does not need it
    from kdal_core.tasks import Task

LABEL_TAGS = ("Choice", "Label")
"""Tags that name a label of the control tag around them."""
KEY = re.compile(r"\$([\w\-][\w.\[\]\- ]*)")
"""What the value of an <Image> looks like that names a key of a task's data, or a path into it."""
CONDITIONS = ("visiblewhen", "whenchoicevalue")
"""Attributes, in small letters, that let Label Studio show a tag at some times only."""


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
    """Key of a task's data that holds the image's address, or the path to it: "image", "meta.image"."""
    obstacle: str | None = None
    """Why kdal cannot take the image that it is bound to; none when it can."""
    conditional: bool = False
    """Whether annotators see it at some times only (visibleWhen): its regions may then be missing for that reason."""
    others: tuple[Control, ...] = ()
    """The other control tags of the config; known of the one that is served."""

    def attribute(self, name: str, default: str = "") -> str:
        """An attribute, whatever the capitals of its name: Label Studio's editor does not heed them."""
        return {key.lower(): value for key, value in self.attributes.items()}.get(name.lower(), default)

    @property
    def dynamic(self) -> bool:
        """Whether its labels come from the data of each task: ``value="$options"``."""
        return self.attribute("value").startswith("$")

    def __str__(self) -> str:
        return f'<{self.tag} name="{self.name}">'


class Format(Protocol):
    """Reads and writes the regions of one control tag.

    A class of this shape is found when its module in this package assigns it to ``FORMAT``, or when another package
    offers it as an entry point of the group ``kdal.formats``.
    """

    tag: ClassVar[str]
    """The control tag: "Choices"."""
    kind: ClassVar[str]
    """The kind of task that its labels are for, as `kdal_core.tasks.get_task` knows it: "classification"."""
    draws: ClassVar[bool]
    """Whether its regions are drawn on the image. A control that draws is served before one that does not."""

    @classmethod
    def matches(cls, control: Control, policy: Policy) -> bool:
        """Whether this control can be served, as far as its attributes and the policy say.

        For a control of its tag that does not match, `__init__` says why.
        """

    def __init__(self, control: Control) -> None: ...

    @property
    def image_key(self) -> str:
        """Key of a task's data that holds the image's address: `kdal.labelstudio.task_data.image_address` reads it."""

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


class ControlFormat:
    """What the formats of this package share: which controls match, and which image they are about."""

    tag: ClassVar[str]
    kind: ClassVar[str]
    draws: ClassVar[bool] = False
    on_request: ClassVar[bool] = False
    """Whether its regions usually mean something else, so that only a policy that names the kind gets it."""

    @classmethod
    def matches(cls, control: Control, policy: Policy) -> bool:
        """Whether it is a control of this tag on an image, and the policy wants this kind of task."""
        wanted = policy.task == cls.kind if cls.on_request else policy.task in (None, cls.kind)
        return control.tag == cls.tag and wanted and control.obstacle is None

    def __init__(self, control: Control) -> None:
        self._control = control
        self._image_name, self._image_key = require_image(control)

    @property
    def image_key(self) -> str:
        """Key of a task's data that holds the image's address, or the path to it."""
        return self._image_key


def controls(label_config: str) -> list[Control]:
    """The control tags of a labelling config.

    Raises:
        ConfigError: it is not XML, or asks for what an XML reader must not do (entities).
    """
    try:
        root: Element = fromstring(label_config, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, TypeError) as error:
        raise ConfigError(f"labelling config: not valid XML ({error})") from error
    elements = list(_walk(root))
    images = {each.element.get("name", ""): (each.element, each.repeated) for each in elements if each.tag == "Image"}
    labels: dict[Element | None, list[Element]] = defaultdict(list)
    for each in elements:
        if each.tag in LABEL_TAGS:
            labels[each.control].append(each.element)
    found = []
    for each in elements:
        element, bound = each.element, each.element.get("toName")
        if bound is None or not _is_control(element):
            continue
        image, repeated = images.get(bound, (None, False))
        key = None if image is None else KEY.fullmatch(_lower(image).get("value", ""))
        found.append(
            Control(
                tag=str(element.tag),
                name=element.get("name", ""),
                attributes=dict(element.attrib),
                labels=_labels(labels[element]),
                image_name=None if image is None else bound,
                image_key=None if key is None else key.group(1),
                obstacle=_obstacle(bound, image, repeated),
                conditional=each.conditional,
            )
        )
    return found


def require_image(control: Control) -> tuple[str, str]:
    """Name and data key of the image a control is bound to; `ConfigError` when kdal cannot take it."""
    if control.obstacle is not None or control.image_name is None or not control.image_key:
        raise ConfigError(f"labelling config: {control} {control.obstacle or 'is bound to no image'}")
    return control.image_name, control.image_key


def finished_annotations(task: Json) -> list[Json]:
    """Annotations that count, most trusted last: not cancelled, by time, ground truth after the others.

    Suggestions that kdal has accepted are nobody's labels, and do not count.
    """
    return sorted((a for a in finished_by_anybody(task) if not is_accepted(a)), key=_trust)


def as_sure(score: float) -> str:
    """How sure a model is, as people are told beside a region.

    >>> as_sure(0.92), as_sure(0.9996)
    ('92% sure', 'more than 99% sure')
    """
    return "more than 99% sure" if score >= 0.995 else f"{score:.0%} sure"


def told_sure(score: float) -> Json:
    """What a region carries of how sure the model is of it: "score", and a note that Label Studio shows beside it."""
    return {"score": round(score, 4), "meta": {"text": [as_sure(score)]}}


def _trust(annotation: Json) -> tuple[bool, str, int]:
    updated, number = annotation.get("updated_at"), annotation.get("id")
    return (
        bool(annotation.get("ground_truth")),
        updated if isinstance(updated, str) else "",
        number if isinstance(number, int) else 0,
    )


@dataclass(frozen=True)
class _Place:
    """A tag, and what it has from the tags around it."""

    element: Element
    conditional: bool = False
    """Whether it or one around it is shown at some times only."""
    repeated: bool = False
    """Whether one around it repeats it."""
    control: Element | None = None
    """The control tag around it, the nearest: its labels are that one's alone."""

    @property
    def tag(self) -> str:
        return str(self.element.tag)


def _walk(root: Element) -> Iterator[_Place]:
    """Each tag once, however deep they are nested."""
    waiting = [_Place(root)]  # no recursion: a config may be nested deep
    while waiting:
        place = waiting.pop()
        element = place.element
        conditional = place.conditional or any(name.lower() in CONDITIONS for name in element.attrib)
        yield replace(place, conditional=conditional)
        repeated = place.repeated or element.tag == "Repeater"
        control = element if _is_control(element) else place.control
        waiting += [_Place(child, conditional, repeated, control) for child in reversed(element)]


def _is_control(element: Element) -> bool:
    return element.get("toName") is not None and element.get("name") is not None


def _obstacle(bound: str, image: Element | None, repeated: bool) -> str | None:
    """Why kdal cannot take an image, for which a control says ``toName="bound"``."""
    which = f'is bound to "{bound}", which is no <Image value="$...">'
    if image is None:
        return which
    one = "kdal takes one image a task: import each image as a task of its own"
    shown = _lower(image)
    if "valuelist" in shown:
        return f'{which} but shows a list of images (valueList="{shown["valuelist"]}"): {one}'
    if repeated:
        return f"is bound to an <Image> in a <Repeater>, which shows several of them: {one}"
    if KEY.fullmatch(shown.get("value", "")) is None:
        return f'{which}, where ... is a key of the task\'s data: its value is "{shown.get("value", "")}"'
    return None


def _lower(element: Element) -> dict[str, str]:
    """Its attributes, with names in small letters."""
    return {name.lower(): value for name, value in element.attrib.items()}


def _labels(inside: list[Element]) -> tuple[str, ...]:
    """Of the tags inside a control that name labels, be it with tags of layout between."""
    labels = (element for tag in LABEL_TAGS for element in inside if element.tag == tag)
    return tuple(str(label.get("alias") or label.get("value")) for label in labels if label.get("value"))
