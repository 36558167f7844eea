"""The rival every strategy has to beat: a random order."""

from __future__ import annotations

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import ranked


def random_order(pool: PoolScores) -> Selection:
    """All N images in an order drawn from `pool.seed`; scores are uniform in [0, 1), diversity is 0."""
    return ranked(pool.generator().random(pool.size))


STRATEGY = Strategy("random", random_order, cold=True)
