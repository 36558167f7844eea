import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from kdal_core.training import projection
from kdal_core.training.projection import normalised, principal_components


@pytest.fixture
def digits():
    return load_digits(return_X_y=True)[0].astype(np.float32)


def components(features, count, seed=0):
    rows = np.arange(len(features))
    return principal_components(features, rows, count, np.random.default_rng(seed))


def test_they_are_the_principal_components_of_scikit_learn(digits):
    """Up to their sign, and to the common number that they are divided by."""
    unit = normalised(digits)
    theirs = PCA(10, svd_solver="full").fit_transform(unit) / np.sqrt(unit.var(axis=0).sum())
    ours = components(digits, 10).components(digits)
    np.testing.assert_allclose(np.abs(ours[:, :6]), np.abs(theirs[:, :6]), atol=0.01)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=0.05)


def test_with_all_components_nothing_is_lost(digits):
    unit = normalised(digits)
    ours = components(digits, 64).components(digits)
    np.testing.assert_allclose((ours**2).sum(axis=1).mean(), 1, atol=1e-3)
    centred = (unit - unit.mean(axis=0)) / np.sqrt(unit.var(axis=0).sum())
    np.testing.assert_allclose(ours[:50] @ ours[:50].T, centred[:50] @ centred[:50].T, atol=1e-3)


def test_rows_are_those_asked_for_block_after_block(digits, monkeypatch):
    made = components(digits, 5)
    rows = np.array([7, 3, 3, 900])
    whole = made.components(digits)
    monkeypatch.setattr(projection, "BLOCK", 2)
    np.testing.assert_allclose(made.components(digits, rows), whole[rows], atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_few_rows_have_few_components(digits, size):
    made = components(digits[:size], 10)
    assert made.axes.shape == (64, max(1, size - 1))
    assert np.isfinite(made.components(digits[:size])).all()


def test_lengths_of_half_precision_do_not_overflow():
    rows = normalised(np.full((1, 100), 6e4, dtype=np.float16))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    assert (normalised(np.zeros((1, 3))) == 0).all()
