"""Strategies by name."""

from __future__ import annotations

from kdal_core.acquisition.strategies.kd_gap import kd_gap
from kdal_core.acquisition.strategies.protocol import Strategy
from kdal_core.acquisition.strategies.random_order import random_order
from kdal_core.errors import ConfigError

STRATEGIES: dict[str, Strategy] = {
    "kd_gap": kd_gap,
    "random": random_order,
}


def strategy_names() -> list[str]:
    """Every name that `strategy` knows.

    >>> strategy_names()
    ['kd_gap', 'random']
    """
    return list(STRATEGIES)


def strategy(name: str) -> Strategy:
    """The strategy of this name.

    Raises:
        ConfigError: there is none; the message lists those there are.

    >>> strategy("random").__name__
    'random_order'
    """
    if name not in STRATEGIES:
        raise ConfigError(f"There is no strategy {name!r}; known: {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]
