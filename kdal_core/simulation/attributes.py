"""What the images are like that an order picks, and what its scores go with: the paper's claims, measured on the way.

For data whose images have traits (lanes: how many, and how worn and hidden they are); of others nothing is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kdal_core.acquisition import PoolScores, Strategy, four_case_uncertainty, label_noise, strategy, uncertainty
from kdal_core.simulation.images import LabelledImages
from kdal_core.simulation.observation import Models, TrainingSetup
from kdal_core.tasks import Task
from kdal_core.training import infer

ERROR, WRONG = "error", "wrong label"
"""Marks of an image beside its traits: 1 - the metric of S-KD on it; whether the annotator would label it wrong."""
EPS = 1.0
"""Of the published uncertainty where an arm names none, pixels."""

Floats = NDArray[np.float64]


def means(traits: Mapping[str, Floats], indices: NDArray[np.int64]) -> dict[str, float]:
    """Mean of each trait (N,) over the images at these positions that have it; traits that none has are left out.

    >>> means({"lanes": np.array([2.0, 4.0, 9.0]), "worn": np.array([np.nan, np.nan, 0.5])}, np.array([0, 1]))
    {'lanes': 3.0}
    """
    found = {name: values[indices][np.isfinite(values[indices])] for name, values in traits.items()}
    return {name: float(values.mean()) for name, values in found.items() if len(values)}


def scores_of(pool: PoolScores, eps: float = EPS, objects: str = "lanes") -> dict[str, Floats]:
    """What orders go by, side by side for one pool: each (N,), the larger the sooner it is picked.

    Args:
        pool: with d_ss, d_st and dense probabilities.
        eps: of `uncertainty`.
        objects: what images show, "lanes" or "boxes".
    """
    d_ss, d_st = pool.vector("d_ss"), pool.vector("d_st")
    return {
        "entropy": _scores(strategy("entropy"), pool),
        f"entropy of {objects}": _scores(strategy("entropy", over=objects), pool),
        "D_SS + D_ST": d_ss + d_st,
        "Uncr, published": uncertainty(d_ss, d_st, eps),
        "Uncr, four cases": four_case_uncertainty(d_ss, d_st),
        "min(D_SS, D_ST)": label_noise(d_ss, d_st),
    }


def _scores(order: Strategy, pool: PoolScores) -> Floats:
    """(N,) in the order of the pool."""
    ranked = order(pool)
    scores = np.empty(pool.size)
    scores[ranked.indices] = ranked.scores
    return scores


def errors(task: Task, predictions: NDArray[np.float32], targets: Sequence[Any]) -> Floats:
    """(N,) 1 - the task's metric on each image alone, in [0, 1]."""
    return np.array([1 - task.score(predictions[i : i + 1], targets[i : i + 1]) for i in range(len(targets))])


def rank_correlations(scores: Mapping[str, Floats], marks: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """Spearman's correlation of each score with each mark over the images that have it, {score: {mark: rho}}.

    Where a mark or a score is the same for all images there is nothing to go with: the pair is left out.

    >>> rank_correlations({"a": np.array([1.0, 2.0, 3.0])}, {"b": np.array([9.0, 4.0, 1.0]), "c": np.zeros(3)})
    {'a': {'b': -1.0}}
    """
    found: dict[str, dict[str, float]] = {}
    for name, score in scores.items():
        found[name] = {}
        for mark, values in marks.items():
            known = np.isfinite(values)
            if len(np.unique(values[known])) > 1 and len(np.unique(score[known])) > 1:
                rho = stats.spearmanr(score[known], values[known]).statistic
                found[name][mark] = float(np.clip(rho, -1, 1))
    return found


def look(
    setup: TrainingSetup,
    models: Models,
    images: LabelledImages,
    wrong: NDArray[np.bool_],
    seen: PoolScores,
    eps: float = EPS,
) -> dict[str, dict[str, float]]:
    """What the scores of unlabelled images go with, {score: {mark: rho}}.

    Args:
        setup: task and settings.
        models: of the round.
        images: N unlabelled images, with their true labels and traits.
        wrong: (N,) whether the annotator would label them wrong.
        seen: the same images as the arm saw them, with d_ss and d_st.
        eps: of the published uncertainty.
    """
    device = setup.campaign.train_config(0).device
    inferred = infer(setup.task, models.reader, images.images, device=device, distributions=True)
    pool = PoolScores(d_ss=seen.d_ss, d_st=seen.d_st, probabilities=inferred.distributions)
    failing = errors(setup.task, inferred.predictions, images.labels.tolist())
    return rank_correlations(
        scores_of(pool, eps, setup.task.kind), {**images.traits, ERROR: failing, WRONG: wrong.astype(np.float64)}
    )
