"""Typical images first, uncertain ones later: TypiClust for the first labels, then the margin."""

from __future__ import annotations

import numpy as np

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.margin import margin
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.typiclust import typiclust
from kdal_core.validation import as_count

ANY = np.iinfo(np.int64).max


def tcm(pool: PoolScores, *, typical: int = 2) -> Selection:
    """TypiClust for the first batches, by the margin from then on.

    Args:
        pool: with features (N, D); labelled_features (L, D) where there are any; probabilities once the margin's turn
            has come; seed; picks.
        typical: batches that TypiClust chooses, at least 1: it does as long as L < typical · picks.

    Returns:
        Selection of `typiclust` or of `margin`, with its scores.

    Raises:
        InvalidInput: what those raise; a number of batches below 1.

    Source: TCM, Doucet et al. 2024 (arXiv:2403.03728): with features of self-supervised pre-training they change from
    TypiClust to the margin after few batches, the sooner the larger a batch is. P: the change comes by the number of
    labels in units of the batch, so that the order stays a function of the pool.
    """
    as_count("typical", typical, low=1, high=ANY)
    labelled = 0 if pool.labelled_features is None else len(pool.labelled_features)
    if labelled == 0 and pool.probabilities is None:
        return typiclust(pool)
    later = margin(pool)  # reads the predictions: bad ones are refused now, not some batches later
    return typiclust(pool) if labelled < typical * pool.picks else later


STRATEGY = Strategy("tcm", tcm, frozenset({"features", "labelled_features", "probabilities"}), cold=True)
