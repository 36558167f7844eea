"""Where a head that has learnt to predict the loss expects a large one."""

from __future__ import annotations

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import ranked


def learning_loss(pool: PoolScores) -> Selection:
    """Highest predicted loss first; scores are the predicted losses, whose scale means nothing.

    Args:
        pool: with predicted_loss (N,).

    Raises:
        InvalidInput: no predicted loss, or NaN.

    Source: Yoo and Kweon 2019 (arXiv:1905.03677), section 3.1.
    """
    return ranked(pool.vector("predicted_loss"))


STRATEGY = Strategy("learning_loss", learning_loss, frozenset({"predicted_loss"}))
