import numpy as np
import pytest
from sklearn.datasets import load_digits

from kdal_core.training.heads import fit_heads, out_of_fold
from kdal_core.validation import InvalidInput


@pytest.fixture(scope="module")
def pool():
    """900 digits as features: shuffled, (N, 64) float32, and their classes."""
    pixels, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(classes))
    return pixels[order].astype(np.float32), classes[order]


def accuracy(said, classes):
    return float((said.argmax(axis=1) == classes).mean())


def test_the_teachers_word_makes_a_better_student_of_few_labels(pool):
    features, classes = pool
    labelled = np.arange(30)
    trio = fit_heads(features[:900], [features[:900]], labelled, classes[labelled], 10)
    alone = accuracy(trio.student.logits(features[900:]), classes[900:])
    assert accuracy(trio.distilled.logits(features[900:]), classes[900:]) > alone + 0.05
    assert trio.teacher.shape == (900, 10)


def test_left_out_labels_are_not_known(pool):
    features, classes = pool
    rng = np.random.default_rng(1)
    labelled, random = np.arange(60), rng.integers(0, 10, 60)
    said = out_of_fold(features[:900], [features[:900]], labelled, random, 10)
    assert said.shape == (60, 10)
    assert accuracy(said, random) < 0.3
    assert accuracy(out_of_fold(features[:900], [features[:900]], labelled, classes[:60], 10), classes[:60]) > 0.7


def test_labels_that_do_not_fit_are_refused(pool):
    features, _ = pool
    with pytest.raises(InvalidInput, match="positions from 0 to 99"):
        fit_heads(features[:100], [features[:100]], [100], [0], 10)
