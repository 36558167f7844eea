"""Which pretrained backbones a round works with: chosen once, recorded by digest, shared through the assets."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    from kdal_core.training import TrioSpec

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
            self._share(weights)
        log.info("backbones chosen", backbones=str(chosen))
        return chosen

    def starts(self, spec: TrioSpec, before: Mapping[str, Told]) -> dict[str, Told]:
        """The weights that whole networks on pretrained backbones start from, by role, among the assets.

        Args:
            spec: the networks.
            before: those of the project's last round, which are kept as long as the same ones are asked for.

        Raises:
            ConfigError: weights cannot be had; says why, and what to do.
            AssetError: the assets are out of reach.
        """
        from kdal_core.models.pretrained_body import PRETRAINED
        from kdal_core.models.weights import find_weights

        found: dict[str, Told] = {}
        asked = {"student": (spec.student, spec.student_weights), "teacher": (spec.teacher, spec.teacher_weights)}
        for role, (network, weights) in asked.items():
            if not network.startswith(PRETRAINED) or weights == "none":
                continue
            why = f"{network} {weights}"
            if (known := before.get(role)) is None or known["why"] != why:
                chosen = find_weights(network.removeprefix(PRETRAINED), weights, cache=self._cache)
                self._share(chosen)
                known = chosen.as_json() | {"why": why}
                log.info("weights chosen", role=role, name=known["name"], source=known["source"])
            found[role] = known
        return found

    def started(self, spec: TrioSpec, starts: Mapping[str, Told]) -> TrioSpec:
        """The same networks, from the weights that a round recorded.

        Raises:
            AssetError: they are not among the assets, or these are out of reach.
            ConfigError: they are damaged.
        """
        from kdal_core.models.weights import known_weights

        def file(role: str, otherwise: str) -> str:
            if (told := starts.get(role)) is None:
                return otherwise
            return str(known_weights(told, lambda sha256: self._assets.read(_key(sha256)), cache=self._cache).path)

        student, teacher = file("student", spec.student_weights), file("teacher", spec.teacher_weights)
        return replace(spec, student_weights=student, teacher_weights=teacher)

    def _share(self, weights: Weights) -> None:
        """Keep weights among the assets."""
        if not self._assets.exists(_key(weights.sha256)):
            self._assets.write(_key(weights.sha256), weights.path.read_bytes())

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
