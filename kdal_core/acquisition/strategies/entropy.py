"""The oldest answer: where the prediction is spread over many classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import ranked, settled
from kdal_core.validation import InvalidInput


def entropy(pool: PoolScores, *, over: str = "all") -> Selection:
    """Highest entropy of S-KD's prediction first; scores in nats, 0 to log C.

    Args:
        pool: with probabilities; of a dense prediction, the mean entropy.
        over: of dense predictions whose last place is "absent": "all" distributions alike, so that an image gains by
            each uncertain lane or box that it shows; or "lanes" or "boxes", each weighed by the probability that one is
            there, so that their number does not count.

    Raises:
        InvalidInput: no probabilities, NaN, rows that are none, or "lanes" where an image has one distribution.

    Source: Shannon 1948; as a query strategy Settles, Active Learning Literature Survey, 2009, section 3.1:
    argmax -sum_y P(y|x) log P(y|x). P: equal but for rounding (1e-12) is equal.
    """
    if over not in ("all", "lanes", "boxes"):
        raise InvalidInput(f"over must be all, lanes or boxes, not {over!r}.")
    if over != "all" and len(pool.layout("probabilities")) == 1:
        raise InvalidInput(
            f"over: {over} needs predictions with a distribution for each row of each lane, or each cell."
        )
    return ranked(settled(pool.averaged("probabilities", shannon_entropy, None if over == "all" else present)))


STRATEGY = Strategy("entropy", entropy, frozenset({"probabilities"}))


def present(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - the probability of the last place, "absent", of distributions (..., K) -> (...)."""
    result: NDArray[np.float64] = 1 - probabilities[..., -1]
    return result


def shannon_entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """-sum_c p_c log p_c of distributions (..., C) -> (...), in nats; 0 log 0 is 0.

    >>> shannon_entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).round(4).tolist()
    [0.6931, 0.0]
    """
    logs = np.maximum(probabilities, np.finfo(np.float64).tiny)  # its log is finite, and 0 times that is 0
    np.log(logs, out=logs)
    result: NDArray[np.float64] = 0.0 - np.einsum("...c,...c->...", probabilities, logs)
    return result
