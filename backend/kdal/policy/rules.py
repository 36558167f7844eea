"""Which keys of a policy cannot be used, or would do nothing: such a key is refused, with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kdal_core.errors import ConfigError

if TYPE_CHECKING:
    from kdal.policy.model import Policy
    from kdal_core.acquisition import Strategy

OF_BOXES = frozenset({"detections", "object_features", "class_difficulty"})
"""What of it there is only with boxes."""
SCORED = OF_BOXES | {
    *("d_ss", "d_st", "features", "probabilities", "objects", "labelled_features", "labelled_probabilities")
}
"""What a round computes of tasks, waiting for a label or labelled: a policy's strategy can need no more."""
OF_THREE_NETWORKS = frozenset({"d_ss", "d_st"})
"""What of it there is only with three networks, and not with the one student of a black-box teacher."""

OF_STRATEGY = ("k", "beta", "eps", "mode", "formula", "rarity")
"""Keys that are parameters of the strategy, where it has one of that name."""
OF_TRAINING = ("epochs", "batch_size", "lr", "temperature", "kd_weight", "unlabelled")
"""Keys that are settings of `kdal_core.training.TrainConfig`."""
OF_FINE_TUNING = ("epochs", "batch_size", "lr", "backbone_lr")
"""Those of its settings that say how a student on pretrained features is trained whole."""
OF_DISTILLATION = ("temperature", "unlabelled")
"""Those of them that only say how the teacher's outputs are learnt."""
OF_TEACHING = ("teacher", "weights", "teacher_weights", "train", "backbone_lr", "kd_weight", *OF_DISTILLATION)
"""Keys that say how the trio is trained, and nothing about the student of a black-box teacher."""


def useless(policy: Policy) -> Iterator[str]:
    """Why keys of a policy cannot be used, or would do nothing, one sentence each."""
    if policy.task is not None:
        yield from _unknown_task(policy.task)
    yield from _unfit_weights("weights", policy.weights)
    if policy.teacher_weights is not None:
        yield from _unfit_weights("teacher_weights", policy.teacher_weights)
    if policy.train == "heads" and policy.weights in ("none", "default"):
        yield f'"train": "heads" needs the weights of pretrained backbones, and "weights" is "{policy.weights}"'
    if policy.backbone_lr is not None and policy.train != "full":
        yield '"backbone_lr" is about training pretrained layers: say "train": "full" too'
    if "strategy" in policy.model_fields_set or policy.parameters or _set(policy, OF_STRATEGY):
        yield from _unfit_strategy(policy)  # else nothing was chosen, and strategies need not be imported
    if policy.black_box is None and policy.queries is not None:
        yield '"queries" are those to a black-box teacher: name one under "black_box"'
    if policy.black_box is not None:
        for key in _set(policy, OF_TEACHING):
            if key == "weights" and policy.weights == "none":
                continue  # which says what is the case
            yield f'"{key}" is about training three networks, and with "black_box" there is one'
    if (policy.price is None) != (policy.worth is None):
        yield '"price" of a label and "worth" of a point say something together only: give both'
    if policy.kd_weight == 0:
        for key in _set(policy, OF_DISTILLATION):
            yield f'"{key}" is about distillation, which has no weight with "kd_weight": 0'


def usable_strategies() -> list[str]:
    """Names of the strategies that need no more than a round computes: those that a policy may name."""
    from kdal_core.acquisition import strategy, strategy_names

    def usable(name: str) -> bool:
        try:
            return strategy(name).needs <= SCORED
        except ConfigError:  # of another package, and broken: it is told of when somebody names it
            return False

    return [name for name in strategy_names() if usable(name)]


def short(value: Any) -> str:
    """A value as a message can show it, of 60 characters at most."""
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except (ValueError, TypeError, RecursionError):  # a number of a million digits, say
        text = type(value).__name__
    text = text.encode(errors="backslashreplace").decode()  # half of a surrogate pair is no text that can be sent
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown_task(kind: str) -> Iterator[str]:
    from kdal_core.tasks import task_kinds

    if kind not in task_kinds():
        yield f'"task": there is no kind "{short(kind)}"; known: {", ".join(task_kinds())}'


def _unfit_weights(key: str, weights: str) -> Iterator[str]:
    known = weights in ("auto", "none", "default")
    if not known and ("://" in weights or not weights.endswith((".safetensors", ".pth"))):
        yield (
            f'"{key}": "{short(weights)}" is not "auto", "none", "default" or a .safetensors or .pth file on the '
            "machine where kdal runs"
        )


def _unfit_strategy(policy: Policy) -> Iterator[str]:
    """Why the strategy cannot be used, or does not use a key."""
    from kdal_core.acquisition import strategy, strategy_names

    name = policy.strategy
    if name not in strategy_names():
        yield f'"strategy": there is no "{short(name)}"; a policy may name {", ".join(usable_strategies())}'
        return
    try:
        chosen = strategy(name)
    except ConfigError as error:  # of another package, and broken
        yield f'"strategy": {error}'
        return
    if policy.black_box is not None and chosen.needs & OF_THREE_NETWORKS:
        yield (
            f'"strategy": "{name}" compares three networks, and with "black_box" there is one: leave it out, or choose '
            "one such as least_confidence, margin, entropy or random"
        )
    if unknown := sorted(chosen.needs - SCORED):
        yield (
            f'"strategy": "{name}" needs what a round does not compute ({", ".join(unknown)}); a policy may name '
            f"{', '.join(usable_strategies())}"
        )
    yield from _unused_parameters(policy, chosen)


def _unused_parameters(policy: Policy, chosen: Strategy) -> Iterator[str]:
    """Why parameters do nothing with the strategy."""
    for key in _set(policy, OF_STRATEGY):
        if key not in chosen.accepts:
            takes = ", ".join(chosen.accepts) or "no parameters"
            yield f'"{key}" does nothing with "strategy": "{policy.strategy}", which takes {takes}'
    for key in policy.parameters:
        if key in OF_STRATEGY:
            yield f'"parameters": "{key}" has a key of its own: write it beside "strategy"'
        elif key not in chosen.accepts:
            takes = ", ".join(name for name in chosen.accepts if name not in OF_STRATEGY) or "none"
            yield f'"parameters": "{policy.strategy}" takes no "{short(key)}" (it takes {takes})'
    if policy.formula == "four_case" and policy.eps is not None:
        yield '"eps" does nothing with "formula": "four_case"'
    if policy.beta == 0 and policy.mode is not None:
        yield '"mode" is about diversity, which has no weight with "beta": 0'


def _set(policy: Policy, keys: tuple[str, ...]) -> list[str]:
    """Those of these keys that do not have their default value."""
    return [key for key in keys if getattr(policy, key) != type(policy).model_fields[key].default]
