"""Images full of uncertain objects of difficult classes, no two of which show the same objects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.entropy import shannon_entropy
from kdal_core.acquisition.strategies.protocol import PROBABILITY_DIGITS, PoolScores, Strategy, rounded
from kdal_core.acquisition.strategies.ranking import SCORE_DIGITS, followed_by
from kdal_core.validation import InvalidInput, as_floats, as_nonnegative

MOST_OBJECTS = 30
"""Objects of an image that it is compared by, the surest ones."""
MOST_ROUNDS = 100
"""Times that the middles of clusters are looked for anew."""
NO_MATCH = -1.0
"""Similarity of an object to an image that shows none of its class: the least cosine."""

Floats = NDArray[np.float64]


def ppal(pool: PoolScores, *, expand: float = 4.0, alpha: float = 0.3, beta: float = 0.2) -> Selection:
    """Images with the most uncertain objects, difficult classes counting more; of alike ones one.

    Args:
        pool: with detections (N, K, 6), object_features (N, K, E) and, where it is known, class_difficulty (C,),
            without which all classes are alike; picks.
        expand: how many times the picks are candidates, >= 1.
        alpha, beta: how `class_weights` grow with difficulty, > 0 and >= 0.

    Returns:
        Selection; the scores of the picks are their distance to the picks before them, 0 to 2, of the first its
        uncertainty in nats. Images behind the picks follow by uncertainty.

    Raises:
        InvalidInput: NaN but behind an image's last object, arrays of other shapes, scores outside [0, 1], classes
            without a difficulty, or parameters out of range.

    Source: PPAL, Yang et al. 2024 (CVPR; arXiv:2211.11612). Difficulty calibrated uncertainty: the sum over an image's
    objects of the entropy of their scores, each times its class's weight. Category conditioned matching similarity:
    `image_distances`. k-means++ over it: centres that are farthest from each other, moved to the middles of their
    clusters until none moves. P: an object has one score, that of its class, and so one binary entropy; the first
    centre is the most uncertain candidate, not a random one; the picks are ordered farthest first, so that the first of
    them are spread as well; an object none of whose class is shown has the similarity `NO_MATCH`; an image is compared
    by `MOST_OBJECTS`; two images without objects are alike. What difficulty is: `kdal_core.tasks.boxes`.

    Time O(M² · K² · E) for M = expand · picks candidates.
    """
    if not (math.isfinite(expand) and expand >= 1):
        raise InvalidInput(f"expand must be at least 1, not {expand!r}.")
    scores, labels = objects(pool)
    weights = class_weights(difficulties(pool, labels), alpha, beta)
    doubt = np.where(labels >= 0, shannon_entropy(np.stack([scores, 1 - scores], axis=-1)) * weights[labels], 0.0)
    uncertainty = np.round(doubt.sum(axis=1), SCORE_DIGITS)
    if pool.picks == 0:
        return followed_by(np.zeros(0, dtype=np.int64), np.zeros(0), uncertainty)
    wanted = min(pool.size, math.ceil(expand * pool.picks))
    candidates = np.argsort(-uncertainty, kind="stable")[:wanted]
    distances = image_distances(shown(pool, scores, labels, candidates))
    middles = medoids(distances, farthest_first(distances, pool.picks))
    order = farthest_first(distances[np.ix_(middles, middles)], len(middles))
    picks = candidates[middles[order]]
    gains = np.array([distances[middles[pick], middles[order[:i]]].min() for i, pick in enumerate(order) if i])
    return followed_by(picks, np.concatenate([uncertainty[picks[:1]], gains]), uncertainty)


STRATEGY = Strategy("ppal", ppal, frozenset({"detections", "object_features"}), uses=frozenset({"class_difficulty"}))


def objects(pool: PoolScores) -> tuple[Floats, NDArray[np.int64]]:
    """Scores (N, K) in [0, 1] and class numbers (N, K) of the objects found; 0 and -1 where there is none."""
    rows = pool.array("detections")
    if rows.ndim != 3 or rows.shape[2] != 6 or len(rows) != pool.size:
        raise InvalidInput(f"detections must be ({pool.size}, K, 6), not {rows.shape}.")
    there = ~np.isnan(rows).all(axis=2)
    score: Floats = np.where(there, rows[..., 4], 0.0).astype(np.float64)
    scores = np.round(score, PROBABILITY_DIGITS)
    if not np.isfinite(rows[there]).all() or scores.min(initial=0.0) < 0 or scores.max(initial=0.0) > 1:
        raise InvalidInput("detections must have corners without NaN, and scores between 0 and 1.")
    return scores, np.rint(np.where(there, rows[..., 5], -1.0)).astype(np.int64)


def difficulties(pool: PoolScores, labels: NDArray[np.int64]) -> Floats:
    """(C,) of each class, in [0, 1]."""
    if pool.class_difficulty is None:
        return np.ones(labels.max(initial=-1) + 1)
    found: Floats = np.round(as_floats("class_difficulty", pool.array("class_difficulty")), PROBABILITY_DIGITS)
    if found.ndim != 1 or len(found) <= labels.max(initial=-1) or found.min(initial=0) < 0 or found.max(initial=0) > 1:
        raise InvalidInput(f"class_difficulty must be a number in [0, 1] for each class, not {found.shape}.")
    return found


def class_weights(difficulty: Floats, alpha: float, beta: float) -> Floats:
    """How much the uncertainty of a class's objects counts: 1 + alpha · beta · log(1 + (exp(1 / alpha) - 1) · d), (C,).

    From 1 for a class without any difficulty to 1 + beta.

    >>> class_weights(np.array([0.0, 1.0]), alpha=0.3, beta=0.2).round(12).tolist()
    [1.0, 1.2]
    """
    if not (math.isfinite(alpha) and alpha >= 0.01):  # exp(1 / alpha) has to be a number
        raise InvalidInput(f"alpha must be at least 0.01, not {alpha!r}.")
    weights: Floats = 1 + alpha * as_nonnegative("beta", beta) * np.log1p(math.expm1(1 / alpha) * difficulty)
    return weights


@dataclass(frozen=True)
class Shown:
    """What M images show: their O objects one after the other.

    Attributes:
        images: M.
        image, label: (O,) the objects' images, ascending, and classes.
        score: (O,).
        features: (O, E) of length 1, or 0.
    """

    images: int
    image: NDArray[np.int64]
    label: NDArray[np.int64]
    score: Floats
    features: Floats


def shown(pool: PoolScores, scores: Floats, labels: NDArray[np.int64], chosen: NDArray[np.int64]) -> Shown:
    """The objects of some images of the pool, `MOST_OBJECTS` of each."""
    given = pool.stored("object_features")
    if len(given.shape) != 3 or given.shape[:2] != scores.shape:
        raise InvalidInput(f"object_features must be {(*scores.shape, 'E')}, not {given.shape}.")
    surest = np.argsort(-scores[chosen], axis=1, kind="stable")[:, :MOST_OBJECTS]
    label = np.take_along_axis(labels[chosen], surest, axis=1)
    image, place = np.nonzero(label >= 0)
    column = surest[image, place]
    found = rounded(as_floats("object_features", given[chosen][image, column]))
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    directions = found / np.where(lengths > 0, lengths, 1.0)
    return Shown(len(chosen), image, label[image, place], scores[chosen[image], column], directions)


def image_distances(of: Shown) -> Floats:
    """(M, M): 1 - (S(a, b) + S(b, a)) / 2, from 0 to 2.

    S(a, b) is the mean over the objects of a, weighed by their scores, of the largest cosine with an object of b of the
    same class: Yang et al. 2024, section 3.3.
    """
    starts = np.searchsorted(of.image, np.arange(of.images + 1))
    full = np.flatnonzero(np.diff(starts))  # images that show anything
    towards = np.full((of.images, of.images), NO_MATCH)  # S(a, b)
    empty = np.setdiff1d(np.arange(of.images), full)
    towards[np.ix_(empty, empty)] = 1.0
    weight = np.bincount(of.image, of.score, of.images)
    for b in full:
        own = slice(starts[b], starts[b + 1])
        cosines = of.features @ of.features[own].T  # (O, n)
        cosines[of.label[:, None] != of.label[own]] = NO_MATCH
        sums = np.bincount(of.image, of.score * cosines.max(axis=1), of.images)
        towards[full, b] = (sums[full] / np.maximum(weight[full], 1e-12)).clip(-1, 1)
    distances: Floats = np.round(1 - (towards + towards.T) / 2, 9)  # so that equal images tie
    np.fill_diagonal(distances, 0.0)
    return distances


def farthest_first(distances: Floats, count: int) -> NDArray[np.int64]:
    """`count` of M images: the first, and each time the one farthest from those before it; ties by the lowest index.

    >>> farthest_first(np.array([[0.0, 1, 3], [1, 0, 2], [3, 2, 0]]), 2).tolist()
    [0, 2]
    """
    found, nearest = [0], distances[0].copy()
    nearest[0] = -1.0
    while len(found) < count:
        found.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances[found[-1]])
        nearest[found[-1]] = -1.0
    return np.array(found[:count], dtype=np.int64)


def medoids(distances: Floats, centres: NDArray[np.int64]) -> NDArray[np.int64]:
    """Centres (B,) moved to the middles of their clusters, the images nearest to them, until none moves."""
    for _ in range(MOST_ROUNDS):
        cluster = distances[:, centres].argmin(axis=1)
        cluster[centres] = np.arange(len(centres))  # copies of a centre must not leave another without any image
        moved = centres.copy()
        for number in range(len(centres)):
            members = np.flatnonzero(cluster == number)
            moved[number] = members[np.round(distances[np.ix_(members, members)].sum(axis=1), 9).argmin()]
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
