"""Which images to label next: a small protocol, one file for each answer."""

from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.registry import strategy, strategy_names

__all__ = ["PoolScores", "Strategy", "strategy", "strategy_names"]
