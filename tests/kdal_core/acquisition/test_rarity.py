import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdal_core.acquisition import PoolScores, rarity, strategy
from kdal_core.errors import KdalError


def test_a_rare_object_counts_for_as_many_frequent_ones_as_the_pool_shows_for_each_of_its_own():
    objects = [[10, 0], [20, 0], [0, 1], [10, 1]]  # 40 of one class, 2 of the other: one counts for twenty
    found = rarity(objects)
    np.testing.assert_allclose(found, [10 / 20, 20 / 20, 20 / 20, 30 / 20])


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_it_is_one_on_average_and_each_class_has_as_much_of_it(seed):
    rng = np.random.default_rng(seed)
    objects = rng.random((30, 3)) * [100, 1, 0.01]
    assert rarity(objects).mean() == pytest.approx(1)
    alone = [rarity(np.where(np.arange(3) == number, objects, 0)) for number in range(3)]
    np.testing.assert_allclose(np.mean(alone, axis=0), rarity(objects))


def test_a_class_that_nobody_sees_says_nothing_and_no_objects_at_all_are_no_nan():
    assert rarity([[1, 0], [3, 0]]).tolist() == [0.5, 1.5]
    assert rarity(np.zeros((2, 3))).tolist() == [0, 0]
    assert rarity(np.zeros((0, 3))).tolist() == []


@pytest.mark.parametrize("bad", [[[-1.0]], [[np.nan]], [1.0, 2.0]])
def test_what_is_no_number_of_objects_is_refused(bad):
    with pytest.raises(KdalError):
        rarity(bad)


def pool(**changes):
    rng = np.random.default_rng(0)
    given_pool = {"d_ss": rng.random(20), "d_st": rng.random(20), "features": rng.normal(size=(20, 4))}
    return PoolScores(**(given_pool | changes))


def test_kd_gap_asks_for_objects_only_where_rare_classes_count():
    assert "objects" not in strategy("kd_gap").needs
    assert "objects" not in strategy("kd_gap", rarity=0.0).needs
    assert strategy("kd_gap", rarity=0.5).needs == strategy("kd_gap").needs | {"objects"}
    with pytest.raises(KdalError, match="needs objects"):
        strategy("kd_gap", rarity=0.5)(pool())


def test_where_the_models_agree_alike_rare_objects_come_first():
    objects = np.random.default_rng(1).integers(0, 9, (20, 2)) + 0.25
    equal = pool(d_ss=np.ones(20), d_st=np.ones(20), objects=objects)
    order = strategy("kd_gap", rarity=1.0, beta=0.0)(equal).indices
    assert rarity(objects)[order].tolist() == sorted(rarity(objects), reverse=True)


def test_the_more_rarity_weighs_the_more_of_it_is_picked():
    objects = np.random.default_rng(2).exponential(size=(20, 3))
    first = [strategy("kd_gap", rarity=weight)(pool(objects=objects)).indices[:5] for weight in (0.0, 1.0, 100.0)]
    shown = [rarity(objects)[picked].sum() for picked in first]
    assert shown[0] < shown[1] < shown[2]
    assert first[2].tolist() == np.argsort(-rarity(objects))[:5].tolist()


def test_a_negative_weight_is_refused():
    with pytest.raises(KdalError, match="rarity"):
        strategy("kd_gap", rarity=-1.0)(pool(objects=np.ones((20, 1))))
