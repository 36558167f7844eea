"""Which pretrained backbones a round works with: chosen once, recorded by digest, shared through the assets."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import structlog

from kdal.policy import Policy
from kdal.settings import Settings
from kdal.storage.assets import Assets
from kdal.storage.features import digest

if TYPE_CHECKING:
    from kdal_core.models.backbones import Backbone
    from kdal_core.models.weights import Weights

Told = Mapping[str, str]
"""A backbone as a round records it: name, source and sha256 of its weights."""
LOADED = 4
"""Backbones that are kept in memory."""
log = structlog.get_logger()


@dataclass(frozen=True)
class RoundBackbones:
    """The backbones of a round."""

    student: Told
    teacher: tuple[Told, ...]
    """Whose features are joined."""
    why: str
    """What the policy asked for; a round that asks for the same keeps what the one before it had."""

    @property
    def all(self) -> tuple[Told, ...]:
        """Each once, the student's first."""
        return tuple({told["sha256"]: told for told in (self.student, *self.teacher)}.values())

    def as_json(self) -> dict[str, Any]:
        """For the snapshot."""
        return {"student": dict(self.student), "teacher": [dict(told) for told in self.teacher], "why": self.why}

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """What `as_json` wrote; none of a round that has none."""
        return None if value is None else cls(value["student"], tuple(value["teacher"]), value["why"])

    def __str__(self) -> str:
        names = " and ".join(dict.fromkeys(told["name"] for told in self.all))
        return f"{names}, from the {', '.join(dict.fromkeys(told['source'] for told in self.all))}"


class Backbones:
    """Finds backbones, and keeps those that were used last in memory.

    Args:
        settings: the device, and the folder of the cache.
        assets: where weights are kept for other workers, and for later rounds.
    """

    def __init__(self, settings: Settings, assets: Assets) -> None:
        self._settings, self._assets = settings, assets
        self._loaded: OrderedDict[str, Backbone] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def _cache(self) -> Path:
        return self._settings.home_path / "weights"

    def choose(self, policy: Policy, before: RoundBackbones | None) -> RoundBackbones:
        """The backbones that a policy asks for, their weights among the assets.

        Args:
            policy: names networks and files of weights, or none.
            before: those of the project's last round.

        Raises:
            ConfigError: weights cannot be had; says why, and what to do.
            AssetError: the assets are out of reach.
        """
        from kdal_core.models.weights import default_backbones, find_weights
        from kdal_core.training import resolve_device

        why = repr((policy.student, policy.teacher, policy.weights, policy.teacher_weights))
        if before is not None and before.why == why:
            return before
        cuda = resolve_device(self._settings.device).type == "cuda"

        def found(name: str, weights: str | None) -> Weights:
            return find_weights(name, weights or "auto", cache=self._cache)

        if policy.student is None and policy.teacher is None:
            student, teacher = default_backbones(cache=self._cache, cuda=cuda)
        else:
            own = None if policy.weights == "auto" else policy.weights
            student = (
                found(policy.student, own)
                if policy.student is not None
                else default_backbones(cache=self._cache, cuda=cuda).student
            )
            names = policy.teacher.split("+") if policy.teacher is not None else []
            teacher = tuple(found(name, policy.teacher_weights) for name in names) or (student,)
        chosen = RoundBackbones(student.as_json(), tuple(weights.as_json() for weights in teacher), why)
        for weights in (student, *teacher):
            if not self._assets.exists(_key(weights.sha256)):
                self._assets.write(_key(weights.sha256), weights.path.read_bytes())
        log.info("backbones chosen", backbones=str(chosen))
        return chosen

    def load(self, told: Told) -> Backbone:
        """A backbone that a round recorded, on the device.

        Raises:
            AssetError: its weights are not among the assets, or these are out of reach.
            ConfigError: its weights are damaged.
        """
        from kdal_core.models.backbones import Backbone
        from kdal_core.models.weights import known_weights
        from kdal_core.training import resolve_device

        with self._lock:
            if (kept := self._loaded.get(told["sha256"])) is None:
                weights = known_weights(told, lambda sha256: self._assets.read(_key(sha256)), cache=self._cache)
                kept = Backbone(told["name"], weights).to(resolve_device(self._settings.device))
            self._loaded[told["sha256"]] = kept
            self._loaded.move_to_end(told["sha256"])
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)
            return kept


def features_key(backbone: Backbone, size: tuple[int, int]) -> bytes:
    """Digest under which features of images brought to this (H, W) are kept."""
    return digest(f"{backbone.digest} {size[0]} x {size[1]}")


def _key(sha256: str) -> str:
    return f"weights/{sha256}.safetensors"
