from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdal_core.acquisition import prediction_gap, uncertainty
from kdal_core.acquisition.gaps import four_case_uncertainty, label_noise
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
    # Gaps below that are noughts: numbers so close to 0 have few digits, and halves of them fewer.
    a, b = (np.where(gap < 1e-290, 0.0, gap) for gap in (a, b))
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
def test_the_gap_between_classifiers_is_the_share_of_drawn_pairs_that_differ(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.dirichlet(np.ones(3), 2) for _ in range(2))
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    expected = [sum(p[i] * q[j] for i, j in pairs) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(prediction_gap(TASK, a, b), expected, atol=1e-12)


@given(st.integers(0, 1000))
def test_the_gap_between_classifiers_may_be_the_total_variation_distance(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.dirichlet(np.ones(3), 5).astype(np.float32) for _ in range(2))
    subsets = [[i for i in range(3) if mask >> i & 1] for mask in range(8)]  # max over events, by definition
    expected = np.max([np.abs(a[:, s].sum(1) - b[:, s].sum(1)) for s in subsets], axis=0)
    ours = prediction_gap(replace(TASK, gap_kind="total_variation"), a, b)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_predictions_of_other_images_or_classes_are_refused():
    with pytest.raises(KdalError):
        prediction_gap(TASK, np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32))
    with pytest.raises(KdalError):
        prediction_gap(TASK, np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32))


scales = st.floats(0.01, 100)
coarse_gaps = arrays(np.float64, 7, elements=st.just(0.0) | st.floats(1e-6, 100))  # not lost when scaled down


@given(gaps, gaps, scales)
def test_the_four_case_score_follows_its_formula_point_by_point(a, b, scale):
    ours = four_case_uncertainty(a, b, scale)
    large, small = (part / (part + scale) for part in (np.maximum(a, b), np.minimum(a, b)))
    np.testing.assert_allclose(ours, large * (1 - small), rtol=1e-9, atol=1e-300)


@given(gaps, gaps, st.none() | scales)
def test_the_four_case_score_is_symmetric_and_a_share(a, b, scale):
    ours = four_case_uncertainty(a, b, scale)
    assert np.array_equal(ours, four_case_uncertainty(b, a, scale))
    assert ((ours >= 0) & (ours <= 1)).all()


@pytest.mark.parametrize(
    ("d_ss", "d_st", "limit"),
    [(1e-9, 1e-9, 0), (1e9, 1e-9, 1), (1e-9, 1e9, 1), (1e9, 1e9, 0), (0, 0, 0), (0, 1e308, 1), (1e308, 1e308, 0)],
)
def test_the_corners_are_the_four_cases_of_the_paper(d_ss, d_st, limit):
    assert four_case_uncertainty([d_ss], [d_st], scale=1)[0] == pytest.approx(limit, abs=1e-6)


@given(gaps, gaps, scales)
def test_the_four_case_score_rises_with_the_larger_gap_and_falls_with_the_smaller(a, b, scale):
    large, small = np.maximum(a, b), np.minimum(a, b)
    ours = four_case_uncertainty(large, small, scale)
    assert (four_case_uncertainty(large + 1, small, scale) >= ours).all()
    assert (four_case_uncertainty(large, small / 2, scale) >= ours).all()


@given(coarse_gaps, coarse_gaps, st.none() | scales, st.floats(1e-3, 1e3))
def test_the_four_case_score_has_no_unit(a, b, scale, unit):
    other = four_case_uncertainty(a * unit, b * unit, None if scale is None else scale * unit)
    np.testing.assert_allclose(other, four_case_uncertainty(a, b, scale), rtol=1e-9, atol=1e-12)


def test_the_scale_is_the_median_of_the_gaps_that_are_positive():
    d_ss, d_st = [0, 0, 8, 1], [0, 2, 4, 0]  # 1, 2, 4, 8: median 3
    assert np.array_equal(four_case_uncertainty(d_ss, d_st), four_case_uncertainty(d_ss, d_st, scale=3))


def test_two_large_gaps_do_not_beat_a_small_disagreement_as_they_do_in_the_published_formula():
    published, ours = uncertainty([10, 1], [10, 2], eps=0), four_case_uncertainty([10, 1], [10, 2], scale=1)
    assert published[0] > published[1]
    assert ours[0] < ours[1]


def test_no_gap_gives_no_four_case_score():
    assert four_case_uncertainty([], []).shape == (0,)
    assert four_case_uncertainty([0, 0], [0, 0]).tolist() == [0, 0]


@given(gaps, gaps)
def test_a_label_is_suspect_as_far_as_both_gaps_are_large(a, b):
    assert label_noise(a, b).tolist() == [min(pair) for pair in zip(a, b, strict=True)]


@pytest.mark.parametrize("score", [four_case_uncertainty, label_noise])
@pytest.mark.parametrize(
    ("d_ss", "d_st"), [([np.nan], [1]), ([1], [-1]), ([np.inf], [1]), ([1, 2], [1]), ([[1]], [[1]])]
)
def test_bad_gaps_are_refused_by_every_score(score, d_ss, d_st):
    with pytest.raises(KdalError, match="d_s"):
        score(d_ss, d_st)


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(KdalError, match="scale"):
        four_case_uncertainty([1], [1], scale)
