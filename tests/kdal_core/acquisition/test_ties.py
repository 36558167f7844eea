"""Where nothing is known to tell images apart the order is random, never the order of import (design, invariant 12).

The pools are imported class by class, 10 classes of 40 images: an order of import shows as a batch of few classes.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from kdal_core.acquisition import MODES, PoolScores, Selection, Strategy, cold_start, cold_start_features, strategy
from kdal_core.acquisition.shuffling import Rows, drawn_order
from kdal_core.acquisition.strategies.kd_gap import FORMULAS
from kdal_core.acquisition.strategies.registry import STRATEGIES
from kdal_core.errors import ConfigError

CLASSES, EACH, BATCH = 10, 40, 50
SIZE = CLASSES * EACH
CLASS = np.repeat(np.arange(CLASSES), EACH)
CHOICES = [
    *[(name, {}) for name in STRATEGIES],
    *[("kd_gap", {"mode": mode, "beta": beta}) for mode in MODES for beta in (0.0, 0.1, 5.0)],
    *[("kd_gap", {"formula": formula, "eps": 0.0, "mode": mode}) for formula in FORMULAS for mode in ("auto", "score")],
    *[("kd_gap", {"rarity": 1.0, "mode": mode}) for mode in ("kernel", "coverage")],
    ("kd_gap", {"k": 1, "mode": "coverage"}),
    ("typiclust", {"max_clusters": 5}),
    ("probcover", {"delta": 0.0}),
    ("probcover", {"delta": 2.0}),
]


def pool(features, *, gap=0.3, sure=None, budget=BATCH, seed=0):
    """A pool of which only the features may tell images apart; all predictions are the same."""
    one = np.full(4, 0.25) if sure is None else np.eye(4)[sure]
    return PoolScores(
        d_ss=np.full(SIZE, gap),
        d_st=np.full(SIZE, gap),
        features=features,
        probabilities=np.tile(one, (SIZE, 1)),
        ensemble=np.tile(one, (3, SIZE, 1)),
        dropout=np.tile(one, (3, SIZE, 1)),
        predicted_loss=np.full(SIZE, 0.7),
        objects=np.ones((SIZE, 2)),
        detections=np.tile([0.2, 0.2, 0.6, 0.6, one.max(), 0.0], (SIZE, 1, 1)),
        object_features=features[:, None],
        labelled_features=np.zeros((0, features.shape[1])),
        labelled_probabilities=one[None][:0],
        teacher_features=features,
        labelled_teacher_features=np.zeros((0, features.shape[1])),
        seed=seed,
        budget=budget,
    )


ALIKE = np.ones((SIZE, 8))
COPIES = np.random.default_rng(0).normal(size=(CLASSES, 8))[CLASS]
"""Each class is one image, 40 times."""


def spread(order):
    """How many classes are among the first batch, and how many images of it the largest has."""
    counts = np.bincount(CLASS[order[:BATCH]], minlength=CLASSES)
    return int((counts > 0).sum()), int(counts.max())


def follows_import(order):
    """Rank correlation of the order with that of import."""
    return abs(float(np.corrcoef(order, np.arange(len(order)))[0, 1]))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("budget", [BATCH, 0])
@pytest.mark.parametrize("sure", [None, 0], ids=["unsure", "sure"])
@pytest.mark.parametrize("gap", [0.0, 0.3])
@pytest.mark.parametrize(("name", "parameters"), CHOICES)
def test_images_without_any_difference_come_in_random_order(name, parameters, gap, sure, budget, seed):
    order = strategy(name, **parameters)(pool(ALIKE, gap=gap, sure=sure, budget=budget, seed=seed)).indices
    classes, most = spread(order)
    assert classes >= 8
    assert most <= 15
    assert follows_import(order) < 0.15


@pytest.mark.parametrize(("name", "parameters"), CHOICES)
def test_among_copies_neither_classes_nor_images_come_first_because_they_were_imported_first(name, parameters):
    orders = [strategy(name, **parameters)(pool(COPIES, seed=seed)).indices for seed in range(4)]
    first = {int(CLASS[order[0]]) for order in orders}
    # nearest the mean, of the longest gradient, like most others: that is known of a class
    known = {"coreset", "badge", "maxherding", "uherding", "kd_gap"}
    assert len(first) > 1 or name in known
    for order in orders:
        assert spread(order)[0] >= 5
        within = [int(i) % EACH for i in order[:BATCH]]  # of its class, the first copies that were imported?
        assert np.mean(within) > EACH / 4


@pytest.mark.parametrize("mode", ["kernel", *MODES])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_cold_start_among_copies_and_blank_images_is_random(mode, seed):
    for features in (ALIKE, COPIES):
        order = cold_start(features, mode=mode, seed=seed).indices
        assert spread(order)[0] >= 5
        assert np.mean(order[:BATCH] % EACH) > EACH / 4
    assert follows_import(cold_start(ALIKE, mode=mode, seed=seed).indices) < 0.15


def photos():
    """Digits sorted by class, as a folder a class is imported."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.argsort(labels, kind="stable")
    images = torch.from_numpy(pixels[order] * 255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    return images.repeat(1, 3, 1, 1), labels[order]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", [10, 1, 300])
def test_photos_imported_class_by_class_give_a_first_batch_of_all_classes(mode, k):
    images, labels = photos()
    order = cold_start(cold_start_features(images), mode=mode, k=k).indices
    for start in (0, BATCH, 2 * BATCH):  # the batch, and the queue behind it
        counts = np.bincount(labels[order[start : start + BATCH]], minlength=CLASSES)
        if mode == "coverage" or (mode == "marginal" and k <= 10):
            assert (counts > 0).sum() >= 6
            assert counts.max() <= 20
    if mode == "coverage":  # a few picks hold all neighbourhoods; nothing is known of the others
        assert abs(np.corrcoef(np.arange(len(order)), order)[0, 1]) < 0.15


def test_a_cold_start_is_a_function_of_features_and_seed():
    features = cold_start_features(photos()[0])
    assert np.array_equal(cold_start(features, seed=3).indices, cold_start(features, seed=3).indices)
    assert not np.array_equal(cold_start(features, seed=3).indices, cold_start(features, seed=4).indices)
    assert np.array_equal(cold_start(features).indices, cold_start(features, seed=0).indices)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_the_seed_alone_decides_between_images_without_a_difference(name):
    first, again, other = (strategy(name)(pool(ALIKE, seed=seed)).indices for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_strategy_from_outside_that_ranks_by_index_is_random_too():
    def idle(given_pool):
        nothing = np.zeros(given_pool.size)
        return Selection(np.arange(given_pool.size), nothing, nothing.astype(np.int64))

    order = Strategy("idle", idle)(pool(ALIKE)).indices
    assert spread(order)[0] >= 8
    assert follows_import(order) < 0.15


@pytest.mark.parametrize("indices", [[0, 1, 1], [0, 1], [1, 2, 3], []])
def test_a_strategy_that_leaves_images_out_is_refused(indices):
    def careless(given_pool):
        return Selection(np.array(indices, dtype=np.int64), np.zeros(len(indices)), np.zeros(len(indices), dtype=int))

    with pytest.raises(ConfigError, match="'careless' must return a Selection that names each of 3 images once"):
        Strategy("careless", careless)(PoolScores(features=np.zeros((3, 1))))


def test_dense_predictions_are_not_copied_for_another_order_but_read_in_it():
    rng = np.random.default_rng(0)
    dense = rng.dirichlet(np.ones(3), (20, 2, 5)).astype(np.float16)
    members = rng.dirichlet(np.ones(3), (2, 20, 4))
    order = drawn_order(20, 0)
    plain = PoolScores(probabilities=dense, ensemble=members, features=dense[:, 0, :, 0])
    other = plain.reordered(order)
    assert isinstance(other.probabilities, Rows)
    assert other.probabilities.values is dense
    assert (other.probabilities.shape, other.probabilities.ndim, len(other.probabilities)) == ((20, 2, 5, 3), 4, 20)
    assert np.array_equal(np.asarray(other.probabilities), dense[order])
    assert np.asarray(other.probabilities).dtype == np.float16
    assert np.array_equal(other.features, plain.features[order])
    for name, whole in (("probabilities", dense[order]), ("ensemble", members[:, order])):
        read = np.concatenate([block for _, block in other.blocks(name)], axis=int(name == "ensemble"))
        np.testing.assert_allclose(read, whole.astype(float), atol=1e-6)
    again = other.reordered(np.argsort(order))
    assert np.array_equal(np.asarray(again.probabilities), dense)
    assert replace(plain, probabilities=None, ensemble=None).reordered(order).size == 20
