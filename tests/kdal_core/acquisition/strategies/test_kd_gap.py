import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from kdal_core.acquisition import PoolScores, greedy_select, nearest_neighbors, strategy, uncertainty
from kdal_core.acquisition.coverage import GRID, UnitRows
from kdal_core.acquisition.gaps import four_case_uncertainty
from kdal_core.acquisition.strategies.kd_gap import relative, standardized, typical_distance
from kdal_core.acquisition.strategies.protocol import rounded
from kdal_core.errors import KdalError


def pool(**changes):
    rng = np.random.default_rng(0)
    arrays = {"d_ss": rounded(rng.random(40)), "d_st": rounded(rng.random(40)), "features": rng.normal(size=(40, 5))}
    return PoolScores(**(arrays | changes))


@pytest.mark.parametrize("mode", ["score", "marginal", "coverage", "static"])
@pytest.mark.parametrize("eps", [0.0, 1.0])
def test_kd_gap_is_the_greedy_pass_over_standardised_uncertainty(mode, eps):
    given_pool = pool()
    scores = uncertainty(given_pool.d_ss, given_pool.d_st, eps)
    scores = (scores - scores.mean()) / scores.std()
    neighbors = nearest_neighbors(rounded(given_pool.features), 4)
    expected = greedy_select(scores, neighbors, 40, 0.7, mode)
    order = strategy("kd_gap", beta=0.7, k=4, eps=eps, mode=mode)(given_pool)
    assert order.indices.tolist() == expected.indices.tolist()
    assert order.scores.tolist() == pytest.approx(expected.scores.tolist())


def test_without_diversity_the_four_cases_alone_decide():
    given_pool = pool()
    scores = four_case_uncertainty(given_pool.d_ss, given_pool.d_st)
    order = strategy("kd_gap", beta=0.0, formula="four_case")(given_pool)
    assert order.indices.tolist() == np.argsort(-scores, kind="stable").tolist()


def test_without_diversity_the_most_uncertain_image_comes_first():
    given_pool = pool(d_ss=np.linspace(0, 1, 40), d_st=np.zeros(40))
    assert strategy("kd_gap", beta=0.0)(given_pool).indices.tolist() == list(range(39, -1, -1))


@given(st.integers(0, 1000), st.floats(0.01, 1000))
def test_the_unit_of_uncertainty_does_not_change_what_beta_means(seed, unit):
    values = np.random.default_rng(seed).normal(size=30)
    np.testing.assert_allclose(standardized(values * unit), standardized(values), atol=1e-9)


def test_standardising_keeps_infinity_and_turns_equal_values_into_zero():
    assert standardized(np.array([1.0, 3.0, np.inf])).tolist() == [-1, 1, np.inf]
    assert standardized(np.array([2.0, 2.0])).tolist() == [0, 0]
    assert standardized(np.array([np.inf])).tolist() == [np.inf]


def test_equal_images_are_not_picked_in_a_row():
    """Ten copies of the most uncertain image: diversity sends the second copy behind other images."""
    rng = np.random.default_rng(0)
    features = np.concatenate([np.zeros((10, 3)), rng.normal(size=(40, 3))])
    gaps = np.concatenate([np.full(10, 0.3), rng.random(40) * 0.25])
    given_pool = PoolScores(d_ss=gaps, d_st=gaps, features=features)
    order = strategy("kd_gap", beta=1.0, k=5, mode="coverage")(given_pool).indices
    assert set(order[:10].tolist()) != set(range(10))


@pytest.mark.parametrize(
    "bad",
    [{"d_st": np.zeros(39)}, {"features": np.zeros((39, 5))}, {"d_ss": -np.ones(40)}, {"d_ss": np.ones((40, 1))}],
)
def test_a_pool_that_cannot_be_ranked_is_refused(bad):
    with pytest.raises(KdalError):
        strategy("kd_gap")(pool(**bad))


@pytest.mark.parametrize("bad", [{"k": 0}, {"beta": -1.0}, {"eps": -1.0}, {"mode": "best"}, {"formula": "other"}])
def test_a_parameter_out_of_range_is_refused(bad):
    with pytest.raises(KdalError):
        strategy("kd_gap", **bad)(pool())


def test_a_small_eps_puts_one_gap_of_three_tenths_before_two_gaps_of_two_tenths():
    far_apart = np.array([[0.0], [10.0], [20.0], [30.0]])
    given_pool = PoolScores(
        d_ss=np.array([0.2, 0.0, 0.3, 0.0]), d_st=np.array([0.2, 0.3, 0.0, 0.0]), features=far_apart
    )
    order = strategy("kd_gap", beta=0.0, eps=0.1)(given_pool).indices.tolist()
    assert (set(order[:2]), order[2:]) == ({1, 2}, [0, 3])
    order = strategy("kd_gap", beta=0.0)(given_pool).indices.tolist()
    assert (order[0], set(order[1:3]), order[3]) == (
        0,
        {1, 2},
        3,
    )  # the gaps of 1 and 2 are the same the other way round


def photos(seed=0, labelled=6, **changes):
    """A pool with what T sees of it, in features whose mean is about zero."""
    rng = np.random.default_rng(seed)
    arrays = {"d_ss": rounded(rng.random(30)), "d_st": rounded(rng.random(30)), "features": rng.normal(size=(30, 2))}
    seen = rng.normal(size=(30 + labelled, 4))
    both = {"teacher_features": seen[:30], "labelled_teacher_features": seen[30:]}
    return PoolScores(**(arrays | both | {"budget": 8} | changes))


@given(st.integers(0, 10_000), st.sampled_from([0, 1, 6]))
def test_with_what_the_teacher_sees_each_pick_covers_most_of_the_uncertainty_that_is_left(seed, labelled):
    given_pool = photos(seed, labelled)
    order = strategy("kd_gap")(given_pool)
    seen = np.concatenate([given_pool.teacher_features, given_pool.labelled_teacher_features])
    seen = rounded(seen) - rounded(seen).mean(axis=0)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    rows, known = seen[:30], seen[30:]
    width = np.median(cdist(rows, known).min(axis=1)) if labelled else 1.0
    weights = uncertainty(given_pool.d_ss, given_pool.d_st)
    near = np.exp(-cdist(rows, rows, "sqeuclidean") / width**2)
    held = np.exp(-cdist(rows, known, "sqeuclidean") / width**2).max(axis=1, initial=0.0)
    for pick, score in zip(order.indices[:8], order.scores[:8], strict=True):
        gains = weights / weights.mean() @ np.maximum(near - held[:, None], 0) / (30 + labelled)
        assert gains[pick] >= gains.max() - 1e-3
        assert gains[pick] == pytest.approx(score, abs=1e-3)
        held = np.maximum(held, near[pick])


def test_labelled_images_count_as_covered():
    rows = np.array([[3.0, 0.0], [3.0, 0.1], [3.0, -0.1], [-1.0, 3.0], [-1.0, -3.0]])
    gaps = np.full(5, 0.3)
    given_pool = PoolScores(d_ss=gaps, d_st=gaps, features=rows, teacher_features=rows, budget=2)
    assert strategy("kd_gap")(given_pool).indices[0] == 0
    known = PoolScores(
        d_ss=gaps, d_st=gaps, features=rows, teacher_features=rows, labelled_teacher_features=rows[:1], budget=2
    )
    assert set(strategy("kd_gap")(known).indices[:2].tolist()) == {3, 4}


def test_images_on_which_the_models_agree_need_not_be_covered():
    agreed = np.zeros(30)
    agreed[17] = 0.5
    assert strategy("kd_gap")(photos(d_ss=agreed, d_st=np.zeros(30))).indices[0] == 17


def test_the_papers_order_and_others_are_the_same_with_and_without_what_the_teacher_sees():
    bare = photos(teacher_features=None, labelled_teacher_features=None)
    for mode in ("score", "marginal", "coverage", "static"):
        with_it, without = (strategy("kd_gap", mode=mode)(given_pool) for given_pool in (photos(), bare))
        assert with_it.indices.tolist() == without.indices.tolist()
    assert strategy("kd_gap")(bare).indices.tolist() == strategy("kd_gap", mode="coverage")(bare).indices.tolist()
    assert strategy("kd_gap")(photos()).indices.tolist() == strategy("kd_gap", mode="kernel")(photos()).indices.tolist()


def test_the_kernel_needs_what_the_teacher_sees():
    with pytest.raises(KdalError, match="needs teacher_features"):
        strategy("kd_gap", mode="kernel")(photos(teacher_features=None))
    with pytest.raises(KdalError, match="labelled_teacher_features has 3 columns"):
        strategy("kd_gap")(photos(labelled_teacher_features=np.zeros((2, 3))))


def test_rare_classes_draw_the_kernel_too():
    objects = np.ones((30, 2))
    objects[:, 1] = 0
    objects[4, 1] = 1
    equal = np.full(30, 0.2)
    order = strategy("kd_gap", rarity=100.0)(photos(d_ss=equal, d_st=equal, objects=objects))
    assert order.indices[0] == 4


def test_the_kernel_is_as_wide_as_the_pool_is_typically_far_from_labels():
    def rows(*values):
        return np.array(values, np.float32).reshape(-1, 2)

    pool_rows = rows((GRID, 0), (GRID - 300, 400), (GRID - 600, 800))
    assert typical_distance(UnitRows(pool_rows, rows((GRID, 0)))) == pytest.approx(500 / GRID)
    assert typical_distance(UnitRows(pool_rows, rows())) == 1
    assert typical_distance(UnitRows(rows((0, 0)), rows((0, 0)))) == 1 / GRID


def test_weights_are_relative_to_their_mean_and_infinite_ones_as_large_as_the_largest():
    assert relative(np.array([1.0, 3.0])).tolist() == [0.5, 1.5]
    assert relative(np.array([1.0, 4.0, np.inf])).tolist() == pytest.approx([1 / 3, 4 / 3, 4 / 3])
    assert relative(np.array([0.0, np.inf])).tolist() == [0, 2]
    assert relative(np.zeros(2)).tolist() == [0, 0]
