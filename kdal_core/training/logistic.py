"""Multinomial logistic regression from soft targets, and the choice of its decay by cross-validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float32]
BIAS = 1e-2  # of the weights' decay: what keeps the bias of a class that no target names from running away


def fit_logistic(
    features: Floats,
    targets: NDArray[Any],
    weights: NDArray[Any],
    decay: float,
    *,
    start: NDArray[np.float64] | None = None,
    steps: int = 80,
) -> NDArray[np.float64]:
    """The linear map whose softmax has the least mean cross-entropy against the targets, plus decay / 2 · |W|².

    Args:
        features: (N, D).
        targets: (N, C) probabilities.
        weights: (N,) what each row counts, >= 0; their sum does not matter.
        decay: > 0. Scikit-learn's C is 1 / (decay · N).
        start: (D + 1, C) to start from; None is zero.
        steps: of L-BFGS, at most.

    Returns:
        (D + 1, C): the weights, and below them the biases.
    """
    dimensions, classes = features.shape[1], targets.shape[1]
    shares = (weights / weights.sum()).astype(np.float32)[:, None]
    wanted = targets.astype(np.float32)
    penalty = np.full((dimensions + 1, 1), decay)
    penalty[-1] *= BIAS

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values = flat.reshape(dimensions + 1, classes)
        logits = linear(values, features)
        logits -= logits.max(axis=1, keepdims=True)
        likely = np.exp(logits)
        sums = likely.sum(axis=1, keepdims=True)
        losses = np.log(sums[:, 0]) - np.einsum("nc,nc->n", wanted, logits)
        likely /= sums
        likely -= wanted
        likely *= shares
        gradient = penalty * values
        gradient[:-1] += features.T @ likely
        gradient[-1] += likely.sum(axis=0)
        mean = float(losses @ shares[:, 0]) + float((penalty * values**2).sum()) / 2
        return mean, gradient.ravel()

    first = np.zeros((dimensions + 1, classes)) if start is None else start
    found = minimize(
        loss, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps, "gtol": 1e-4, "ftol": 1e-9}
    )
    result: NDArray[np.float64] = found.x.reshape(dimensions + 1, classes)
    return result


def linear(values: NDArray[np.float64], features: Floats) -> Floats:
    """Logits (N, C) of features (N, D) by the map (D + 1, C)."""
    logits: Floats = features @ values[:-1].astype(np.float32)
    logits += values[-1].astype(np.float32)
    return logits


def softmax(logits: NDArray[Any]) -> Floats:
    """Probabilities (N, C) float32 of logits (N, C)."""
    likely: Floats = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float32)
    likely /= likely.sum(axis=1, keepdims=True)
    return likely


def best_decay(
    features: Floats, targets: NDArray[np.int64], folds: NDArray[np.int64], classes: int, decays: tuple[float, ...]
) -> tuple[float, Floats]:
    """The decay with the least cross-entropy on labels that were left out, the largest of equals; what it said of them.

    Args:
        features: (L, D).
        targets: (L,) class numbers.
        folds: (L,) which fold each label is left out in.
        classes: C.
        decays: those tried.

    Returns:
        The decay, and (L, C) probabilities of each label by a map that was fitted without its fold; where all labels
        are of one fold, so that there is nothing to fit, all alike.
    """
    wanted = np.eye(classes, dtype=np.float32)[targets]
    said = {decay: np.full(wanted.shape, 1 / classes, dtype=np.float32) for decay in sorted(decays, reverse=True)}
    for fold in np.unique(folds):
        out, start = folds == fold, None
        if out.all():
            continue
        for decay, words in said.items():
            start = fit_logistic(features[~out], wanted[~out], np.ones(int((~out).sum())), decay, start=start)
            words[out] = softmax(linear(start, features[out]))
    right = {decay: words[np.arange(len(targets)), targets] for decay, words in said.items()}
    best = max(said, key=lambda decay: float(np.log(np.maximum(right[decay], 1e-4)).sum()))
    return best, said[best]


def stratified_folds(targets: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """(L,) fold numbers below `count`, each class spread over the folds as evenly as it goes, all folds as large."""
    folds = np.empty(len(targets), dtype=np.int64)
    order = np.argsort(targets[shuffled := generator.permutation(len(targets))], kind="stable")
    folds[shuffled[order]] = np.arange(len(targets)) % count
    return folds
