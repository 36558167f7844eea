import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdal_core.acquisition import prediction_gap, uncertainty
from kdal_core.errors import KdalError
from kdal_core.tasks import ClassificationTask

gaps = arrays(np.float64, 7, elements=st.floats(0, 100))
TASK = ClassificationTask(("a", "b", "c"))


@pytest.mark.parametrize(
    ("d_ss", "d_st", "expected"), [(3, 1, 12), (1, 3, 12), (2, 2, 4), (1, 4, 20), (0.1, 0.2, 0.6), (10, 10, 20)]
)
def test_strict_uncertainty_has_the_printed_values(d_ss, d_st, expected):
    assert uncertainty([d_ss], [d_st], eps=0)[0] == pytest.approx(expected)


def test_strict_uncertainty_of_two_zero_gaps_is_zero_and_of_one_is_infinite():
    assert uncertainty([0, 0, 5], [0, 5, 0], eps=0).tolist() == [0, np.inf, np.inf]


def test_strict_uncertainty_of_a_gap_too_small_to_divide_by_is_infinite_not_nan():
    assert uncertainty([5e-324], [1.0], eps=0)[0] == np.inf


@example(np.full(7, 100.0), np.zeros(7), 5e-324)
@given(gaps, gaps, st.floats(0, 10))
def test_uncertainty_follows_the_formula_point_by_point(a, b, eps):
    for ours, ss, st_ in zip(uncertainty(a, b, eps), a, b, strict=True):
        if ss + eps > 0 and st_ + eps > 0:
            with np.errstate(over="ignore"):
                expected = (ss + st_) * max((st_ + eps) / (ss + eps), (ss + eps) / (st_ + eps))
            assert ours == pytest.approx(expected, rel=1e-12)
        else:
            assert ours == (0 if ss == st_ == 0 else np.inf)


@given(gaps, gaps, st.floats(0, 10))
def test_uncertainty_does_not_care_which_gap_is_which_and_is_never_nan(a, b, eps):
    first, second = uncertainty(a, b, eps), uncertainty(b, a, eps)
    assert np.array_equal(first, second)
    assert (first >= 0).all()


@given(gaps, gaps)
def test_one_large_gap_outranks_two_of_the_same_sum(a, b):
    assert (uncertainty(a, b) >= uncertainty((a + b) / 2, (a + b) / 2) * (1 - 1e-12)).all()


@pytest.mark.parametrize(
    ("d_ss", "d_st", "eps"),
    [
        ([np.nan], [1], 1),
        ([1], [np.nan], 1),
        ([-1], [1], 1),
        ([np.inf], [1], 1),
        ([1, 2], [1], 1),
        ([[1]], [[1]], 1),
        ([1], [1], -1),
        ([1], [1], np.nan),
        (["x"], [1], 1),
    ],
)
def test_bad_gaps_are_refused(d_ss, d_st, eps):
    with pytest.raises(KdalError):
        uncertainty(d_ss, d_st, eps)


def test_bad_gaps_are_value_errors_too():
    with pytest.raises(ValueError, match="d_ss"):
        uncertainty([np.nan], [1])


def test_no_gap_at_all_gives_no_uncertainty():
    assert uncertainty([], []).shape == (0,)


@given(st.integers(0, 1000))
def test_the_gap_between_classifiers_is_the_total_variation_distance(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.dirichlet(np.ones(3), 5).astype(np.float32) for _ in range(2))
    subsets = [[i for i in range(3) if mask >> i & 1] for mask in range(8)]  # max over events, by definition
    expected = np.max([np.abs(a[:, s].sum(1) - b[:, s].sum(1)) for s in subsets], axis=0)
    ours = prediction_gap(TASK, a, b)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_predictions_of_other_images_or_classes_are_refused():
    with pytest.raises(KdalError):
        prediction_gap(TASK, np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32))
    with pytest.raises(KdalError):
        prediction_gap(TASK, np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32))
