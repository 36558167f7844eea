"""The strategies that read predictions, where an image has many distributions: lanes, S slots of R rows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.acquisition.shuffling import drawn_order
from kdal_core.acquisition.strategies import badge as badge_module
from kdal_core.acquisition.strategies import protocol
from kdal_core.acquisition.strategies.acd import lane_map, map_divergence
from kdal_core.acquisition.strategies.badge import residuals
from kdal_core.errors import KdalError

SEEDS = st.integers(0, 10_000)
SLOTS, ROWS, PLACES = 2, 5, 7
RANKED = ["entropy", "least_confidence", "margin", "ensemble", "bald"]
DENSE = [*RANKED, "acd", "badge"]


def distributions(rng, *shape, places=PLACES):
    return np.round(rng.dirichlet(np.full(places, 0.3), shape), 6)


def pool(seed=0, size=20, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        "features": np.round(rng.normal(size=(size, 4)), 3),
        "probabilities": distributions(rng, size, SLOTS, ROWS),
        "ensemble": distributions(rng, 4, size, SLOTS, ROWS),
        "dropout": distributions(rng, 6, size, SLOTS, ROWS),
    }
    return PoolScores(**arrays | {"seed": seed} | changes)


def by_index(order):
    scores = np.empty(len(order.scores))
    scores[order.indices] = order.scores
    return scores


@given(SEEDS)
@settings(max_examples=15)
def test_entropy_is_the_mean_of_scipys_over_an_images_distributions(seed):
    given_pool = pool(seed)
    expected = scipy_entropy(given_pool.probabilities, axis=-1).mean(axis=(1, 2))
    # scipy makes rows that sum to 1 but for their six digits sum to 1
    np.testing.assert_allclose(by_index(strategy("entropy")(given_pool)), expected, atol=1e-6)


def test_entropy_over_lanes_does_not_hang_on_how_many_there_are():
    """One unsure lane of four rows, and two of them; the other slots are surely empty."""
    unsure, empty = [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]
    images = np.array([[[unsure] * 4, [empty] * 4], [[unsure] * 4, [unsure] * 4], [[empty] * 4, [empty] * 4]])
    pools = PoolScores(probabilities=images)
    assert by_index(strategy("entropy")(pools)) == pytest.approx([np.log(2) / 2, np.log(2), 0])
    assert by_index(strategy("entropy", over="lanes")(pools)) == pytest.approx([np.log(2), np.log(2), 0])
    with pytest.raises(KdalError, match="each row of each lane"):
        strategy("entropy", over="lanes")(PoolScores(probabilities=images[:, 0, 0]))
    with pytest.raises(KdalError, match="all, lanes or boxes"):
        strategy("entropy", over="roads")(pools)


@pytest.mark.parametrize("name", RANKED)
def test_a_dense_score_is_the_mean_of_what_each_distribution_scores_alone(name):
    given_pool = pool()
    array = {"ensemble": "ensemble", "bald": "dropout"}.get(name, "probabilities")
    alone = [
        by_index(strategy(name)(PoolScores(**{array: getattr(given_pool, array)[..., slot, row, :]})))
        for slot in range(SLOTS)
        for row in range(ROWS)
    ]
    np.testing.assert_allclose(by_index(strategy(name)(given_pool)), np.mean(alone, axis=0), atol=1e-9)


@pytest.mark.parametrize("name", [*RANKED, "badge"])
@given(SEEDS)
@settings(max_examples=10)
def test_with_one_distribution_an_image_the_order_is_that_of_classification(name, seed):
    rng = np.random.default_rng(seed)
    flat = PoolScores(
        features=np.round(rng.normal(size=(15, 3)), 3),
        probabilities=distributions(rng, 15),
        ensemble=distributions(rng, 3, 15),
        dropout=distributions(rng, 3, 15),
        seed=seed,
        budget=6,
    )
    one = replace(
        flat,
        probabilities=flat.probabilities[:, None],
        ensemble=flat.ensemble[:, :, None],
        dropout=flat.dropout[:, :, None],
    )
    plain, dense = strategy(name)(flat), strategy(name)(one)
    assert plain.indices.tolist() == dense.indices.tolist()
    assert plain.scores.tolist() == dense.scores.tolist()


def brute_force_divergence(heat, window):
    """Cell by cell, for one map (R, G)."""

    def entropy(values):
        return scipy_entropy(np.stack([values, 1 - values]), axis=0)

    found = np.zeros(heat.shape)
    for row in range(heat.shape[0]):
        for column in range(heat.shape[1]):
            cells = np.array(
                [
                    heat[min(max(row + i, 0), heat.shape[0] - 1), min(max(column + j, 0), heat.shape[1] - 1)]
                    for i in (-1, 0, 1)
                    for j in (-1, 0, 1)
                ]
            )
            found[row, column] = entropy(cells.mean()) - entropy(cells).mean()
    squares = [
        found[i : i + window, j : j + window].max()
        for i in range(0, heat.shape[0], window)
        for j in range(0, heat.shape[1], window)
    ]
    return np.mean(squares)


@given(SEEDS, st.integers(1, 8))
@settings(max_examples=10)
def test_acd_reads_a_map_cell_by_cell_as_its_paper_does(seed, window):
    given_pool = pool(seed, size=4)
    heat = 1 - np.prod(1 - given_pool.probabilities[..., :-1], axis=1)
    expected = [brute_force_divergence(image, window) for image in heat]
    found = by_index(strategy("acd", window=window)(replace(given_pool, features=None)))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@given(SEEDS, st.integers(1, 4))
@settings(max_examples=15)
def test_acd_reads_each_classs_map_of_boxes_for_itself(seed, window):
    there = np.round(np.random.default_rng(seed).random((3, 2, 5, 6)), 6)  # N, classes, rows, columns
    expected = [np.mean([brute_force_divergence(map_, window) for map_ in image]) for image in there]
    given_pool = PoolScores(probabilities=np.stack([there, 1 - there], axis=-1))
    np.testing.assert_allclose(by_index(strategy("acd", window=window)(given_pool)), expected, atol=1e-9)


def test_entropy_over_boxes_weighs_cells_by_how_probable_a_box_is():
    unsure, empty = [0.5, 0.5], [0.0, 1.0]
    images = np.array(
        [[[[unsure, empty]]], [[[unsure, unsure]]], [[[empty, empty]]]]
    )  # one class, one row, two columns
    pools = PoolScores(probabilities=images)
    assert by_index(strategy("entropy", over="boxes")(pools)) == pytest.approx([np.log(2) / 2, np.log(2), 0])


def test_a_map_without_a_difference_diverges_nowhere_and_a_speckle_does():
    sure = np.zeros((1, 1, 6, 9))
    sure[..., -1] = 1
    assert map_divergence(lane_map(sure), window=2).tolist() == [0.0]
    speckle = sure.copy()
    speckle[0, 0, 3, -1], speckle[0, 0, 3, 4] = 0, 1
    assert map_divergence(lane_map(speckle), window=2)[0] > 0.05


def gradients(given_pool):
    """The (N, S · R · K · D) gradients themselves."""
    probabilities = given_pool.probabilities
    residual = probabilities - np.eye(PLACES)[probabilities.argmax(axis=-1)]
    flat = residual.reshape(len(residual), -1)
    return (flat[:, :, None] * given_pool.features[:, None, :]).reshape(len(flat), -1)


@given(SEEDS)
@settings(max_examples=15)
def test_dense_badge_is_k_means_plus_plus_over_the_gradients_it_never_makes(seed):
    given_pool = pool(seed, budget=6)
    drawn = drawn_order(20, seed)  # it is given the pool in this order
    embedded, generator = gradients(given_pool)[drawn], given_pool.generator()
    picks = [int((embedded**2).sum(axis=1).argmax())]
    while len(picks) < 6:
        distance = ((embedded[:, None] - embedded[picks]) ** 2).sum(axis=2).min(axis=1)
        picks.append(badge_module.draw(np.where(np.isin(np.arange(20), picks), 0, distance), generator))
    order = strategy("badge")(given_pool)
    assert order.indices[:6].tolist() == drawn[picks].tolist()
    left = ((embedded[:, None] - embedded[picks]) ** 2).sum(axis=2).min(axis=1)[np.argsort(drawn)]
    np.testing.assert_allclose(by_index(order)[order.indices[6:]], left[order.indices[6:]], atol=1e-9)


def test_many_residuals_are_projected_so_that_inner_products_stay():
    rng = np.random.default_rng(0)
    given_pool = PoolScores(
        probabilities=distributions(rng, 30, 8, 36, places=17), features=np.round(rng.normal(size=(30, 4)), 3)
    )
    probabilities = given_pool.probabilities
    exact = (probabilities - np.eye(17)[probabilities.argmax(axis=-1)]).reshape(30, -1)
    found, one = residuals(given_pool)
    assert found.shape == (30, badge_module.REDUCED)
    assert np.array_equal(found, np.rint(found))
    assert (np.einsum("nd,nd->n", found, found) < 2**53).all()
    lengths = np.linalg.norm(exact, axis=1)
    error = (found @ found.T / one**2 - exact @ exact.T) / np.outer(lengths, lengths)
    assert np.abs(error).mean() < 0.07
    assert sorted(strategy("badge")(given_pool).indices.tolist()) == list(range(30))


@pytest.mark.parametrize("name", DENSE)
def test_the_order_does_not_hang_on_how_many_images_are_held_at_a_time(name, monkeypatch):
    whole = strategy(name)(pool(budget=5))
    monkeypatch.setattr(protocol, "BLOCK", 3 * SLOTS * ROWS * PLACES)
    parts = strategy(name)(pool(budget=5))
    assert whole.indices.tolist() == parts.indices.tolist()
    assert whole.scores.tolist() == parts.scores.tolist()


@pytest.mark.parametrize("name", [name for name in DENSE if name != "badge"])
@given(SEEDS)
@settings(max_examples=8)
def test_the_pools_order_does_not_matter(name, seed):
    given_pool, moved = pool(seed), np.random.default_rng(seed).permutation(20)
    other = replace(
        given_pool,
        features=given_pool.features[moved],
        probabilities=given_pool.probabilities[moved],
        ensemble=given_pool.ensemble[:, moved],
        dropout=given_pool.dropout[:, moved],
    )
    assert moved[strategy(name)(other).indices].tolist() == strategy(name)(given_pool).indices.tolist()


@pytest.mark.parametrize("name", ["ensemble", "bald"])
def test_members_may_be_arrays_of_their_own(name):
    apart = replace(pool(), ensemble=list(pool().ensemble), dropout=tuple(pool().dropout))
    assert strategy(name)(apart).scores.tolist() == strategy(name)(pool()).scores.tolist()


@pytest.mark.parametrize("name", DENSE)
def test_half_precision_hardly_moves_a_score(name):
    half = replace(
        pool(),
        probabilities=pool().probabilities.astype(np.float16),
        ensemble=pool().ensemble.astype(np.float16),
        dropout=pool().dropout.astype(np.float16),
        budget=0,
    )
    plain = by_index(strategy(name)(replace(pool(), budget=0)))
    np.testing.assert_allclose(by_index(strategy(name)(half)), plain, rtol=3e-3, atol=1e-3)


def test_members_of_different_shapes_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(KdalError, match="one shape"):
        strategy("ensemble")(PoolScores(ensemble=[distributions(rng, 3, 2), distributions(rng, 4, 2)]))


@pytest.mark.parametrize("name", DENSE)
def test_what_is_no_dense_distribution_is_refused(name):
    array = {"ensemble": "ensemble", "bald": "dropout"}.get(name, "probabilities")
    values = np.array(getattr(pool(), array))
    values[..., 3, 2] += 0.1
    with pytest.raises(KdalError, match="summing to 1"):
        strategy(name)(replace(pool(), **{array: values}))
