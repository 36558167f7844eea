"""``<Choices>`` on an image: one class per image."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.formats.base import Control, ControlFormat, as_sure, finished_annotations
from kdal.policy import Policy
from kdal_core.errors import ConfigError, LabelFormatError

if TYPE_CHECKING:  # it imports torch, which takes seconds: reading a labelling config does not need it
    from kdal_core.tasks import Task


class ChoicesFormat(ControlFormat):
    """Reads and writes single-choice regions.

    Raises:
        ConfigError: fewer than two choices, several choices an image, or no image.
    """

    tag: ClassVar[str] = "Choices"
    kind: ClassVar[str] = "classification"

    @classmethod
    def matches(cls, control: Control, policy: Policy) -> bool:
        """Whether it is one choice an image, and the policy wants classes."""
        return super().matches(control, policy) and _unfit(control) is None

    def __init__(self, control: Control) -> None:
        super().__init__(control)
        if (reason := _unfit(control)) is not None:
            raise ConfigError(f"labelling config: {control} {reason}")
        self._classes = tuple(dict.fromkeys(control.labels))
        self._index = {name: i for i, name in enumerate(self._classes)}

    def task(self) -> Task:
        """Classification into the choices, in the order of the config."""
        from kdal_core.tasks import get_task

        return get_task("classification", self._classes)

    def target(self, task: Json) -> int:
        """Index of the class that the annotators chose.

        A ground-truth annotation decides; else the majority, and among equals the newest.

        Raises:
            LabelFormatError: no annotation holds one of the config's choices; says what they hold instead.
        """
        annotations = finished_annotations(task)
        votes = [(a, self._choice(a)) for a in annotations]
        read = [(a, choice) for a, choice in votes if choice is not None]
        if not read:
            raise LabelFormatError(f"task {task.get('id')}: {self._why_unread(annotations)}")
        newest, choice = read[-1]
        if newest.get("ground_truth"):
            return choice
        counts = Counter(c for _, c in read)
        most = max(counts.values())
        return next(c for _, c in reversed(read) if counts[c] == most)

    def result(self, prediction: NDArray[Any], size: tuple[int, int] | None = None) -> list[Json]:
        """One region: the likeliest class, its probability, and those of all classes as the region's meta.

        Args:
            prediction: (C,) probabilities.
            size: of the image; a choice does not need it.
        """
        best = int(prediction.argmax())
        ranked = np.argsort(-prediction, kind="stable")
        others = ", ".join(f"{self._classes[i]} {prediction[i]:.0%}" for i in ranked[1:3])
        return [
            {
                "id": f"kdal-{self._control.name}",
                "from_name": self._control.name,
                "to_name": self._image_name,
                "type": "choices",
                "value": {"choices": [self._classes[best]]},
                "score": round(float(prediction[best]), 4),
                "meta": {
                    "text": [f"{as_sure(float(prediction[best]))}; else {others}"],
                    "scores": {name: round(float(p), 4) for name, p in zip(self._classes, prediction, strict=True)},
                },
            }
        ]

    def _choice(self, annotation: Json) -> int | None:
        for chosen in self._chosen(annotation):
            if len(chosen) == 1:
                return self._index.get(str(chosen[0]))
        return None

    def _chosen(self, annotation: Json) -> list[list[Any]]:
        """What each region of this control says, whether kdal can use it or not."""
        regions = annotation.get("result")
        ours = [
            region.get("value")
            for region in (regions if isinstance(regions, list) else [])
            if isinstance(region, dict) and region.get("from_name") == self._control.name
        ]
        choices = [value.get("choices") for value in ours if isinstance(value, dict)]
        return [chosen for chosen in choices if isinstance(chosen, list)]

    def _why_unread(self, annotations: list[Json]) -> str:
        name = self._control.name
        chosen = [choice for annotation in annotations for choice in self._chosen(annotation)]
        if not chosen:
            return f'no annotation holds a choice of "{name}"'
        if len(chosen[-1]) != 1:
            return f'"{name}" holds {len(chosen[-1])} choices, kdal needs exactly one'
        return f'"{name}" says "{str(chosen[-1][0])[:60]}", which is no <Choice> of the labelling config any more'


def _unfit(control: Control) -> str | None:
    """Why the choices are not one class an image; none when they are."""
    if control.attribute("choice", "single") not in ("single", "single-radio"):
        return 'allows several choices an image: kdal needs choice="single"'
    for name in ("perRegion", "perItem"):
        if control.attribute(name).lower() == "true":
            return f'is per {name[3:].lower()} ({name}="true"): kdal serves one choice an image'
    if control.attribute("allowNested").lower() == "true":
        return "allows nested choices: kdal serves a plain list of <Choice>"
    if len(set(control.labels)) < 2 or control.dynamic:
        told = f', its choices come from each task\'s data (value="{control.attribute("value")}")'
        return (
            f"needs at least two different <Choice>, found {len(set(control.labels))}{told if control.dynamic else ''}"
        )
    return None


FORMAT = ChoicesFormat
