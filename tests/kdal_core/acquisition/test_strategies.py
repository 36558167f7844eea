"""What holds for every strategy, whatever its method."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdal_core.acquisition import PoolScores, strategy, strategy_names
from kdal_core.acquisition.shuffling import drawn_order
from kdal_core.acquisition.strategies.registry import STRATEGIES
from kdal_core.errors import ConfigError, KdalError

NAMES = strategy_names()
COLD = [name for name in NAMES if STRATEGIES[name].cold]
ARRAYS = [(name, array) for name in NAMES for array in sorted(STRATEGIES[name].needs)]
USED = [(name, array) for name in NAMES for array in sorted(STRATEGIES[name].uses)]
DRAWS = {"random", "badge", "typiclust", "dropquery", "tcm"}
"""Their order depends on the generator, so it does not follow a permutation of the pool."""


def pool(size=40, seed=0, **changes):
    """A pool with everything, on round numbers."""
    rng = np.random.default_rng(seed)

    def distributions(*shape):
        return np.round(rng.dirichlet(np.ones(4), shape), 4)

    given_pool = PoolScores(
        d_ss=np.round(rng.random(size), 3),
        d_st=np.round(rng.random(size), 3),
        features=np.round(rng.normal(size=(size, 5)), 3),
        probabilities=distributions(size),
        ensemble=distributions(5, size),
        dropout=distributions(6, size),
        predicted_loss=np.round(rng.random(size), 3),
        detections=detections(rng, size),
        object_features=np.round(rng.normal(size=(size, 6, 3)), 3),
        class_difficulty=np.array([0.2, 0.9]),
        labelled_features=np.round(rng.normal(size=(3, 5)), 3),
        labelled_probabilities=distributions(3),
        teacher_features=np.round(rng.normal(size=(size, 6)), 3),
        labelled_teacher_features=np.round(rng.normal(size=(3, 6)), 3),
    )
    return replace(given_pool, **changes)


def detections(rng, size):
    """1 to 6 objects of two classes in each image."""
    found = np.round(rng.random((size, 6, 6)), 3)
    found[..., 5] = rng.integers(0, 2, (size, 6))
    found[np.arange(6) >= rng.integers(1, 7, size)[:, None]] = np.nan
    return found


AXES = {
    **{"d_ss": 0, "d_st": 0, "features": 0, "probabilities": 0, "ensemble": 1, "dropout": 1, "predicted_loss": 0},
    **{"teacher_features": 0, "detections": 0, "object_features": 0},
}
LABELLED = ["class_difficulty", "labelled_features", "labelled_probabilities", "labelled_teacher_features"]


def taken(given_pool, indices):
    """The same pool with other images, or the same in another order."""
    return replace(
        given_pool, **{name: np.take(getattr(given_pool, name), indices, axis=axis) for name, axis in AXES.items()}
    )


def test_the_names_stand_in_the_order_in_which_they_are_offered():
    assert NAMES == [
        "kd_gap",
        "random",
        "entropy",
        "least_confidence",
        "margin",
        "ensemble",
        "bald",
        "acd",
        "learning_loss",
        "badge",
        "coreset",
        "typiclust",
        "probcover",
        "maxherding",
        "dropquery",
        "tcm",
        "uherding",
        "pcoreset",
        "ppal",
    ]
    assert COLD == ["random", "coreset", "typiclust", "probcover", "maxherding", "dropquery", "tcm", "uherding"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 5, 40])
@pytest.mark.parametrize("budget", [None, 0, 1, 7, 100])
def test_every_strategy_orders_every_image_once_whatever_the_pools_size(name, size, budget):
    order = strategy(name)(pool(size, budget=budget))
    assert sorted(order.indices.tolist()) == list(range(size))
    assert len(order.scores) == len(order.diversity) == size
    assert np.isfinite(order.scores).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_is_a_function_of_its_input(name):
    assert np.array_equal(strategy(name)(pool()).indices, strategy(name)(pool()).indices)


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_reads_no_more_than_it_says_it_needs(name):
    whole = pool(budget=10)
    reads = STRATEGIES[name].needs | STRATEGIES[name].uses
    unread = {array: None for array in [*AXES, *LABELLED] if array not in reads}
    if name == "random":
        unread.pop("features")  # the size of the pool has to come from something
    bare = strategy(name)(replace(whole, **unread))
    assert np.array_equal(bare.indices, strategy(name)(whole).indices)


@pytest.mark.parametrize("name", COLD)
@pytest.mark.parametrize("labelled", [None, np.zeros((0, 5)), np.zeros((0, 0))])
def test_a_cold_strategy_begins_with_features_alone(name, labelled):
    order = strategy(name)(PoolScores(features=pool().features, labelled_features=labelled, budget=10))
    assert sorted(order.indices.tolist()) == list(range(40))


@pytest.mark.parametrize(("name", "array"), ARRAYS + USED)
def test_every_strategy_refuses_nan_where_it_reads(name, array):
    values = np.array(getattr(pool(), array))
    values[..., -1] = np.nan
    given_pool = pool() if array in STRATEGIES[name].uses else pool(**dict.fromkeys(STRATEGIES[name].uses))
    with pytest.raises(KdalError, match="NaN"):
        strategy(name)(replace(given_pool, **{array: values}))


@pytest.mark.parametrize(("name", "array"), [pair for pair in ARRAYS if pair[1] != "labelled_features"])
def test_a_strategy_that_lacks_an_array_says_which(name, array):
    with pytest.raises(KdalError, match=array):
        strategy(name)(pool(**dict.fromkeys(STRATEGIES[name].uses), **{array: None}))


@pytest.mark.parametrize("name", ["kd_gap", "acd", "badge"])
def test_arrays_of_different_pools_are_refused(name):
    with pytest.raises(KdalError, match="same images"):
        strategy(name)(pool(features=np.zeros((39, 5))))


@pytest.mark.parametrize("name", [name for name in NAMES if "labelled_features" in STRATEGIES[name].needs])
def test_labelled_features_of_another_network_are_refused(name):
    with pytest.raises(KdalError, match="columns"):
        strategy(name)(pool(labelled_features=np.zeros((3, 4))))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DRAWS | {"kd_gap", "probcover", "maxherding"}])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_pools_order_does_not_matter_where_no_scores_tie(name, seed):
    rng = np.random.default_rng(seed)
    whole, moved = pool(30, seed=seed, budget=12), rng.permutation(30)
    order = strategy(name)(whole)
    if len(np.unique(order.scores)) < 30:
        return  # ties go by index, which is what a permutation changes
    assert moved[strategy(name)(taken(whole, moved)).indices].tolist() == order.indices.tolist()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"kd_gap", "random"}])
def test_equal_images_come_in_the_order_in_which_they_were_drawn(name):
    for budget in (0, 4, None):
        equal = taken(pool(budget=budget, labelled_features=None), np.zeros(12, dtype=int))
        assert strategy(name)(equal).indices.tolist() == drawn_order(12, 0).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_features_and_predictions_without_any_difference_can_be_ordered(name):
    zeros = pool(features=np.zeros((40, 5)), labelled_features=np.zeros((3, 5)), budget=10)
    assert sorted(strategy(name)(zeros).indices.tolist()) == list(range(40))


@pytest.mark.parametrize("name", NAMES)
def test_differences_in_the_last_bits_do_not_change_the_order(name):
    rng = np.random.default_rng(0)
    plain = pool(200, budget=50)
    for _ in range(3):
        noise = {array: rng.normal(size=getattr(plain, array).shape) * 1e-8 for array in [*AXES, *LABELLED]}
        noisy = replace(
            plain,
            **{
                array: np.abs(getattr(plain, array) + part) * np.sign(getattr(plain, array))
                for array, part in noise.items()
            },
        )
        assert np.array_equal(strategy(name)(noisy).indices, strategy(name)(plain).indices)


@pytest.mark.parametrize("name", ["coreset", "probcover", "maxherding", "uherding", "pcoreset"])
def test_the_first_picks_do_not_depend_on_how_many_are_asked_for(name):
    orders = [strategy(name)(pool(60, budget=budget)).indices for budget in (None, 30, 9)]
    assert orders[1][:30].tolist() == orders[0][:30].tolist()
    assert orders[2][:9].tolist() == orders[0][:9].tolist()


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="kd_gap, random"):
        strategy("oracle")


def test_an_unknown_parameter_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="known: delta, alpha, classes"):
        strategy("probcover", radius=1.0)
    with pytest.raises(ConfigError, match="it has none"):
        strategy("random", beta=1.0)


def test_a_random_order_follows_its_seed_and_nothing_else():
    first = strategy("random")(pool(seed=0))
    other_pool = strategy("random")(pool(seed=1))
    other_seed = strategy("random")(replace(pool(), seed=1))
    assert np.array_equal(first.indices, other_pool.indices)
    assert not np.array_equal(first.indices, other_seed.indices)
    assert (np.diff(first.scores) <= 0).all()
