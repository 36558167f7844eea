import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from kdal_core.errors import KdalError
from kdal_core.metrics import accuracy


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 6))
def test_accuracy_is_that_of_sklearn(seed, size, classes):
    rng = np.random.default_rng(seed)
    predictions, targets = rng.random((size, classes)), rng.integers(0, classes, size)
    expected = accuracy_score(targets, predictions.argmax(axis=1))
    assert accuracy(predictions, targets) == pytest.approx(expected, abs=1e-6)


def test_a_single_class_is_always_right():
    assert accuracy([[1.0], [1.0]], [0, 0]) == 1.0


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [([], []), ([[0.5, 0.5]], [2]), ([[0.5, 0.5]], [-1]), ([[np.nan, 1]], [0]), ([[0.5, 0.5]], [0, 1])],
)
def test_bad_input_is_refused(predictions, targets):
    with pytest.raises(KdalError):
        accuracy(predictions, targets)
