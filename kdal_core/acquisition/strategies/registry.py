"""Strategies by name: each file of this folder that defines STRATEGY, and those that other packages add.

Nothing is imported to list the names. To look into a strategy, its parameters and needs, its own file is imported.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kdal_core.acquisition.strategies.protocol import Strategy
from kdal_core.errors import ConfigError
from kdal_core.plugins import Plugins

LISTED_FIRST = (
    "kd_gap",
    "random",
    "entropy",
    "least_confidence",
    "margin",
    "ensemble",
    "bald",
    "acd",
    "learning_loss",
    "badge",
    "coreset",
    "typiclust",
    "probcover",
    "maxherding",
    "dropquery",
    "tcm",
    "uherding",
    "pcoreset",
    "ppal",
)
"""The order in which names are shown: ours, what it has to beat, then the rivals by age. A strategy that does not stand
here comes behind them."""

STRATEGIES = Plugins(
    sort="strategy",
    package="kdal_core.acquisition.strategies",
    attribute="STRATEGY",
    group="kdal.strategies",
    part=Strategy,
    first=LISTED_FIRST,
)


def names() -> tuple[str, ...]:
    """Every name that `strategy` knows. Nothing is imported for it.

    >>> names()[:2]
    ('kd_gap', 'random')
    """
    return STRATEGIES.names()


def strategy_names() -> list[str]:
    """The same as a list.

    >>> strategy_names()[:2]
    ['kd_gap', 'random']
    """
    return list(names())


def strategy(name: str, **parameters: Any) -> Strategy:
    """The strategy of this name, with these parameters of its own where they differ from the defaults.

    Raises:
        ConfigError: there is none, or it has no such parameter; the message lists those there are.

    >>> strategy("random").needs
    frozenset()
    >>> strategy("kd_gap", beta=1.0).parameters
    {'beta': 1.0}
    >>> strategy("coreset").accepts, strategy("probcover").accepts
    ((), ('delta', 'alpha', 'classes'))
    """
    if name not in names():
        raise ConfigError(f"There is no strategy {name!r}; known: {', '.join(names())}.")
    found = STRATEGIES[name]
    if unknown := sorted(set(parameters) - set(found.accepts)):
        listed = f"known: {', '.join(found.accepts)}" if found.accepts else "it has none"
        raise ConfigError(f"The strategy {name!r} has no parameter {unknown[0]!r}; {listed}.")
    also = {array for parameter, array in found.more.items() if parameters.get(parameter)}
    return replace(found, name=name, needs=found.needs | also, parameters=parameters)
