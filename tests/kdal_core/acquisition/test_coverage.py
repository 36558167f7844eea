from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from kdal_core.acquisition import coverage
from kdal_core.acquisition.coverage import GRID, UnitRows, kernel_cover, unit_rows
from kdal_core.acquisition.strategies.points import Points


def on_grid(rows, labelled=0):
    """Random directions on the grid of `unit_rows`, the last ones labelled."""
    whole = np.rint(GRID * rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return UnitRows(whole[: len(whole) - labelled], whole[len(whole) - labelled :])


def kernels(rows, width):
    """K (N, N) of the pool, and (N, L) with the labelled ones, in float64."""
    pool, labelled = rows.pool.astype(float) / GRID, rows.labelled.astype(float) / GRID
    return (np.exp(-cdist(pool, other, "sqeuclidean") / width**2) for other in (pool, labelled))


@given(st.integers(0, 10_000), st.integers(0, 4), st.sampled_from([0.2, 0.6, 1.0]))
@settings(max_examples=40, deadline=None)
def test_each_pick_adds_as_much_to_the_coverage_as_any_could(seed, labelled, width):
    rng = np.random.default_rng(seed)
    rows, weights = on_grid(rng.normal(size=(30 + labelled, 4)), labelled), rng.random(30)
    within, known = kernels(rows, width)
    found = kernel_cover(rows, weights, width, 12)
    held = known.max(axis=1, initial=0.0)
    for pick, gain in zip(found.picks, found.gains, strict=True):
        gains = weights @ np.maximum(within - held[:, None], 0)
        assert gains[pick] == pytest.approx(gain, abs=1e-4)
        assert gains[pick] >= gains.max() - 1e-4
        held = np.maximum(held, within[pick])
    np.testing.assert_allclose(found.left, weights * (1 - held), atol=1e-5)
    assert len(set(found.picks.tolist())) == 12
    assert (np.diff(found.gains) <= 0).all()


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_greedy_picks_are_within_the_bound_of_submodular_maximisation(seed, count):
    rng = np.random.default_rng(seed)
    rows, weights = on_grid(rng.normal(size=(10, 3))), rng.random(10)
    within, _ = kernels(rows, 0.7)
    best = max(weights @ within[:, list(chosen)].max(axis=1) for chosen in combinations(range(10), count))
    found = kernel_cover(rows, weights, 0.7, count)
    assert weights @ within[:, found.picks].max(axis=1) >= (1 - 1 / np.e) * best - 1e-5


def test_the_blocks_do_not_change_anything(monkeypatch):
    rng = np.random.default_rng(0)
    rows, weights = on_grid(rng.normal(size=(330, 6)), 30), rng.random(300)
    whole = kernel_cover(rows, weights, 0.8, 60)
    monkeypatch.setattr(coverage, "BLOCK", (17, 23))
    parts = kernel_cover(rows, weights, 0.8, 60)
    assert parts.picks.tolist() == whole.picks.tolist()
    np.testing.assert_allclose(parts.gains, whole.gains, rtol=1e-4, atol=1e-4)


def test_in_a_large_pool_the_first_images_are_the_candidates_and_all_images_are_to_be_covered(monkeypatch):
    rng = np.random.default_rng(0)
    rows = on_grid(rng.normal(size=(400, 6)))
    within, _ = kernels(rows, 0.8)
    monkeypatch.setattr(coverage, "CANDIDATES", 100)
    found = kernel_cover(rows, np.ones(400), 0.8, 20)
    assert found.picks.max() < 100
    assert found.picks[0] == within[:100].sum(axis=1).argmax()


def test_copies_tie_and_the_first_of_them_comes_first():
    rng = np.random.default_rng(0)
    rows = on_grid(np.repeat(rng.normal(size=(7, 50)), 40, axis=0))
    picks = kernel_cover(rows, np.ones(280), 1.0, 20).picks
    assert sorted((picks[:7] // 40).tolist()) == list(range(7))
    assert (picks[:7] % 40).tolist() == [0] * 7
    assert picks[7:].tolist() == sorted(set(range(280)) - set(picks[:7].tolist()))[:13]  # all is covered


def test_the_mean_is_taken_from_features_and_their_length_does_not_count():
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(20, 5))
    plain -= plain.mean(axis=0)
    moved, none = unit_rows(Points(plain + 100, plain[:0], 1.0)), np.zeros((0, 5))
    np.testing.assert_allclose(moved.pool / GRID, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=2e-4)
    assert np.array_equal(unit_rows(Points(plain * 8, none, 1.0)).pool, unit_rows(Points(plain, none, 1.0)).pool)


def test_many_columns_are_reduced_and_their_angles_stay():
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(60, 300)) * np.r_[np.ones(50), np.zeros(250)]
    rotated = plain @ np.linalg.qr(rng.normal(size=(300, 300)))[0]
    rows = unit_rows(Points(rotated[:50], rotated[50:], 1.0))
    assert (rows.pool.shape, rows.labelled.shape) == ((50, 128), (10, 128))
    centred = plain - plain.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(cdist(rows.pool, rows.labelled) / GRID, cdist(centred[:50], centred[50:]), atol=0.01)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_pools_without_a_difference_have_rows(size):
    rows = unit_rows(Points(np.full((size, 4), 7.0), np.zeros((0, 4)), 1.0))
    assert rows.pool.shape == (size, 4)
    assert kernel_cover(rows, np.ones(size), 1.0, size).picks.tolist() == list(range(size))


def test_in_a_large_pool_a_part_of_the_images_speaks_for_all(monkeypatch):
    monkeypatch.setattr(coverage, "CANDIDATES", 100)
    rng = np.random.default_rng(3)
    rows, weights = on_grid(rng.normal(size=(3_005, 3)), 5), rng.random(3_000)
    exact = kernel_cover(rows, weights, 0.5, 8)
    monkeypatch.setattr(coverage, "SEEN", 1_000)
    found = kernel_cover(rows, weights, 0.5, 8)
    assert found.left.sum() <= 1.03 * exact.left.sum()
    assert found.gains.sum() == pytest.approx(exact.gains.sum(), rel=0.1)
    within, known = kernels(rows, 0.5)
    held = np.maximum(within[:, found.picks].max(axis=1), known.max(axis=1))
    np.testing.assert_allclose(found.left, weights * (1 - held), atol=1e-4)
