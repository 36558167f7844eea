"""The rival every strategy has to beat: a random order."""

from __future__ import annotations

import numpy as np

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.protocol import PoolScores


def random_order(pool: PoolScores) -> Selection:
    """All N images in an order drawn from `pool.seed`; scores are uniform in [0, 1), diversity is 0."""
    draws = np.random.default_rng(pool.seed).random(len(pool.d_ss))
    indices = np.argsort(-draws, kind="stable")
    return Selection(indices, draws[indices], np.zeros(len(indices), dtype=np.int64))
