"""How heads on frozen features are fitted."""

from __future__ import annotations

from dataclasses import dataclass

from kdal_core.errors import ConfigError


@dataclass(frozen=True)
class HeadConfig:
    """How heads are fitted. The defaults were chosen on photos of clothes, streets and blood cells.

    Attributes:
        components: principal components kept of each of the teacher's features.
        student_components: of the student's.
        neighbors: k of the graph.
        alpha: what an image hears from its neighbours in one step of spreading, in [0, 1).
        steps: of spreading.
        rounds: how often T's head and the spread labels are joined; before each but the first, T's head learns from
            the last.
        own: weight of T's head in the geometric mean with the spread labels, from that with hardly a label to that with
            very many, each in [0, 1]; at `own_half` labels a class it is half-way.
        own_half: see `own`.
        sharpness: power to which T's probabilities are raised before they are taught.
        label_half: labels a class at which the labels weigh as much as T's word; the weight m / (m + label_half) of the
            labels' loss, at m labels a class, is shared by all of them.
        decay: of a head's weights, on features of mean square length 1.
        decays: those that S chooses from by cross-validation.
        folds: of that cross-validation.
    """

    components: int = 128
    student_components: int = 256
    neighbors: int = 10
    alpha: float = 0.9
    steps: int = 30
    rounds: int = 3
    own: tuple[float, float] = (0.4, 0.9)
    own_half: float = 35.0
    sharpness: float = 2.0
    label_half: float = 120.0
    decay: float = 1e-4
    decays: tuple[float, ...] = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
    folds: int = 5

    def __post_init__(self) -> None:
        for name in ("components", "student_components", "neighbors", "steps", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)!r}.")
        if not 0 <= self.alpha < 1:
            raise ConfigError(f"alpha must lie in [0, 1), not {self.alpha!r}.")
        if not 0 <= min(self.own) <= max(self.own) <= 1:
            raise ConfigError(f"own must lie in [0, 1], not {self.own!r}.")
        if not (self.own_half > 0 and self.label_half > 0):
            raise ConfigError("own_half and label_half must be above 0.")
        if not (self.decay > 0 and self.sharpness > 0 and self.decays and min(self.decays) > 0):
            raise ConfigError("decay, sharpness and each of decays must be above 0.")
        if self.folds < 2:
            raise ConfigError(f"folds must be at least 2, not {self.folds!r}.")
