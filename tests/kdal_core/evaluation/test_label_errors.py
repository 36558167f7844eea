"""Which labels look wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from kdal_core.errors import KdalError
from kdal_core.evaluation import label_errors
from kdal_core.training import HeadPool


def noisy(rng, truth, classes, share):
    """Labels of which a share is replaced by another class, and which they are."""
    wrong = np.zeros(len(truth), dtype=bool)
    wrong[rng.choice(len(truth), round(share * len(truth)), replace=False)] = True
    shifted = (truth + rng.integers(1, classes, len(truth))) % classes
    return np.where(wrong, shifted, truth), wrong


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_most_of_the_first_digits_shown_are_those_that_were_spoilt(share):
    """Heads on the digits' pixels, predicted out of fold; a label picked at random would be wrong in 5 or 10 of 100."""
    pixels, truth = load_digits(return_X_y=True)
    pixels = pixels.astype(np.float32)
    labels, wrong = noisy(np.random.default_rng(0), truth[:200], 10, share)
    pool = HeadPool(pixels[:600], [pixels[:600]])
    said = pool.out_of_fold(np.arange(200), labels, 10)
    taught = pool.fit(np.arange(200), labels, 10).teacher[:200]
    found = label_errors(labels, said, [taught])
    count = int(wrong.sum())
    assert wrong[found.order[:count]].mean() >= 0.8
    assert (found.suggested[:count] == truth[found.order[:count]]).mean() >= 0.8
    assert 0.5 * count <= found.expected <= 2.5 * count


def test_where_no_class_is_likely_a_label_is_not_held_wrong():
    """The label's own probability is as low in both; only in one of them another class is likely."""
    out_of_fold = [[0.2, 0.2, 0.2, 0.2, 0.2], [0.2, 0.8, 0, 0, 0]]
    found = label_errors([0, 0], out_of_fold)
    assert found.order.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([np.log(4), 0])


def test_a_teacher_that_does_not_believe_what_it_was_taught_speaks_against_the_label():
    out_of_fold = [[0.4, 0.6], [0.4, 0.6]]
    found = label_errors([0, 0], out_of_fold, [[[0.9, 0.1], [0.3, 0.7]]])
    assert found.order.tolist() == [1, 0]
    assert found.scores == pytest.approx([np.log(1.5 * 7 / 3), np.log(1.5 / 9)])


@given(st.integers(0, 40), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_each_image_is_shown_once_and_its_own_class_never_suggested(images, classes, seed):
    rng = np.random.default_rng(seed)
    labels, said = rng.integers(0, classes, images), rng.dirichlet(np.ones(classes), images).reshape(images, classes)
    found = label_errors(labels, said)
    assert sorted(found.order) == list(range(images))
    assert (np.diff(found.scores) <= 0).all()
    assert (found.suggested != labels[found.order]).all()
    assert 0 <= found.expected <= images
    assert (found.scores > 0).sum() == (said.argmax(axis=1) != labels).sum()


def test_without_a_label_or_a_doubt_the_sentence_says_so():
    assert label_errors([], np.empty((0, 3))).sentence == "There is no label to look at yet."
    assert label_errors([0, 1], [[1, 0], [0, 1]]).sentence == "None of 2 labels looks wrong."
    assert label_errors([0, 1, 1], [[0.9, 0.1], [0.95, 0.05], [0.1, 0.9]]).sentence.startswith("About 1 of 3 labels")


@pytest.mark.parametrize(
    "arguments",
    [
        ([0], [[0.5, 0.5], [0.5, 0.5]]),
        ([2], [[0.5, 0.5]]),
        ([0.5], [[0.5, 0.5]]),
        ([0], [[1.5, -0.5]]),
        ([0], [[1.0]]),
        ([0], [0.5, 0.5]),
        ([0], [[0.5, 0.5]], [[[0.2, 0.2, 0.6]]]),
    ],
)
def test_bad_input_is_refused(arguments):
    with pytest.raises(KdalError):
        label_errors(*arguments)
