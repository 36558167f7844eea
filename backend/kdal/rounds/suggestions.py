"""What annotators are shown of a prediction: only what it is sure enough of, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.formats import Format
from kdal.policy import Policy
from kdal_core.evaluation import Calibration, uncalibrated
from kdal_core.tasks import Task
from kdal_core.tasks.task import Graded

FACT = "confidence"
"""A round's fact: how the confidences of the model that serves with it are to be read."""
REFUSED = "confidence_of_refused"
"""A round's fact: the same of its own model, where that was refused; its owner may let it serve all the same."""


@dataclass(frozen=True)
class Confidence:
    """How the confidences of a model are to be read.

    Attributes:
        round: of the model.
        calibration: none where no label that it was not trained on says anything.
    """

    round: int
    calibration: Calibration | None

    def as_facts(self, name: str = FACT) -> Json:
        """As facts of the round that found it out, under `FACT` or `REFUSED`."""
        told = {} if self.calibration is None else self.calibration.as_json()
        return {name: {"round": self.round, **told}}

    @classmethod
    def of_model(cls, number: int | None, *facts: Mapping[str, Any]) -> Calibration | None:
        """The calibration of a round's model: the first that one of several rounds' facts holds."""
        for found in (told.get(name, {}) for told in facts for name in (FACT, REFUSED)):
            if found.get("round") == number and "temperature" in found:
                return Calibration.from_json(found)
        return None


@dataclass(frozen=True)
class Suggestions:
    """Makes the regions that a project's annotators are shown.

    Attributes:
        form: how they are written.
        task: that the predictions are of.
        calibration: of the model; none: as its kind of task usually is.
        above: confidence, calibrated, that a region must reach: `Policy.suggest_above`; none: what suits the kind of
            task, and no threshold where predictions say nothing of how sure they are.
    """

    form: Format
    task: Task
    calibration: Calibration | None = None
    above: float | None = None

    @classmethod
    def by_policy(cls, form: Format, policy: Policy, calibration: Calibration | None) -> Suggestions:
        """Those that the owner of a project wants."""
        return cls(form, form.task(), calibration, policy.suggest_above)

    def regions(self, prediction: NDArray[np.float32], size: tuple[int, int] | None = None) -> list[Json]:
        """Label Studio regions of one prediction; none where it is sure of nothing.

        Args:
            prediction: of one image, as the task decodes it.
            size: (width, height) of the image in pixels, as people see it.
        """
        least = self.above
        if isinstance(self.task, Graded):
            calibration = self.calibration or uncalibrated(self.task)
            prediction = self.task.rescored(prediction[None], calibration)[0]
            least = self.task.defaults.suggest_above if least is None else least
        found = self.form.result(prediction, size)
        return [region for region in found if least is None or region.get("score", 1.0) >= least]
