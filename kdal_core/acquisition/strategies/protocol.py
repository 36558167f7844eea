"""What a strategy is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection


@dataclass(frozen=True)
class PoolScores:
    """The unlabelled pool as the trio sees it, N images in the pool's order, and a strategy's parameters.

    Attributes:
        d_ss: (N,) gap between S-KD and S.
        d_st: (N,) gap between S-KD and T.
        features: (N, D) of S-KD.
        seed: for strategies that draw.
        k: neighbours; a pool of N <= k images uses N - 1.
        beta: weight of diversity against standardised uncertainty.
        eps: of `uncertainty`, in the gaps' unit; the default is for gaps in [0, 1], as those of classes are.
        mode: of `greedy_select`.

    The defaults of k, beta, eps and mode were chosen on digits, see docs/results.md; the paper's mode is "score".
    """

    d_ss: NDArray[np.floating]
    d_st: NDArray[np.floating]
    features: NDArray[np.floating]
    seed: int = 0
    k: int = 10
    beta: float = 0.3
    eps: float = 0.1
    mode: str = "coverage"


class Strategy(Protocol):
    """Orders a whole pool: the first `budget` indices are the batch, the rest is the queue behind it."""

    def __call__(self, pool: PoolScores) -> Selection:
        """All N images, best first; a function of the pool alone."""
