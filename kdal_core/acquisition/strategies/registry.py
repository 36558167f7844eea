"""Strategies by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.acd import acd
from kdal_core.acquisition.strategies.badge import badge
from kdal_core.acquisition.strategies.bald import bald
from kdal_core.acquisition.strategies.coreset import coreset
from kdal_core.acquisition.strategies.ensemble import ensemble
from kdal_core.acquisition.strategies.entropy import entropy
from kdal_core.acquisition.strategies.kd_gap import kd_gap
from kdal_core.acquisition.strategies.learning_loss import learning_loss
from kdal_core.acquisition.strategies.least_confidence import least_confidence
from kdal_core.acquisition.strategies.margin import margin
from kdal_core.acquisition.strategies.probcover import probcover
from kdal_core.acquisition.strategies.protocol import Strategy
from kdal_core.acquisition.strategies.random_order import random_order
from kdal_core.acquisition.strategies.typiclust import typiclust
from kdal_core.errors import ConfigError


def _entry(
    name: str, rank: Callable[..., Selection], *needs: str, cold: bool = False, **more: str
) -> tuple[str, Strategy]:
    return name, Strategy(name, rank, frozenset(needs), more, cold)


STRATEGIES: dict[str, Strategy] = dict(
    [
        _entry("kd_gap", kd_gap, "d_ss", "d_st", "features", rarity="objects"),
        _entry("random", random_order, cold=True),
        _entry("entropy", entropy, "probabilities"),
        _entry("least_confidence", least_confidence, "probabilities"),
        _entry("margin", margin, "probabilities"),
        _entry("ensemble", ensemble, "ensemble"),
        _entry("bald", bald, "dropout"),
        _entry("acd", acd, "probabilities", "features"),
        _entry("learning_loss", learning_loss, "predicted_loss"),
        _entry("badge", badge, "probabilities", "features"),
        _entry("coreset", coreset, "features", "labelled_features", cold=True),
        _entry("typiclust", typiclust, "features", "labelled_features", cold=True),
        _entry("probcover", probcover, "features", "labelled_features", cold=True),
    ]
)


def strategy_names() -> list[str]:
    """Every name that `strategy` knows.

    >>> strategy_names()[:2]
    ['kd_gap', 'random']
    """
    return list(STRATEGIES)


def strategy(name: str, **parameters: Any) -> Strategy:
    """The strategy of this name, with these parameters of its own where they differ from the defaults.

    Raises:
        ConfigError: there is none, or it has no such parameter; the message lists those there are.

    >>> strategy("random").needs
    frozenset()
    >>> strategy("kd_gap", beta=1.0).parameters
    {'beta': 1.0}
    """
    if name not in STRATEGIES:
        raise ConfigError(f"There is no strategy {name!r}; known: {', '.join(STRATEGIES)}.")
    found = STRATEGIES[name]
    known = list(inspect.signature(found.rank).parameters)[1:]
    if unknown := sorted(set(parameters) - set(known)):
        listed = f"known: {', '.join(known)}" if known else "it has none"
        raise ConfigError(f"The strategy {name!r} has no parameter {unknown[0]!r}; {listed}.")
    also = {array for parameter, array in found.more.items() if parameters.get(parameter)}
    return replace(found, needs=found.needs | also, parameters=parameters)
