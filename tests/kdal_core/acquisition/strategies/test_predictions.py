"""The strategies that read predictions: entropy, least_confidence, margin, ensemble, bald, acd, learning_loss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from sklearn.neighbors import NearestNeighbors

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.acquisition.shuffling import drawn_order
from kdal_core.acquisition.strategies.acd import neighborhood_divergence
from kdal_core.acquisition.strategies.bald import mutual_information
from kdal_core.acquisition.strategies.ensemble import variation_ratio
from kdal_core.acquisition.strategies.entropy import shannon_entropy
from kdal_core.errors import KdalError

SEEDS = st.integers(0, 10_000)


def distributions(seed, *shape, classes=5):
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), shape)


@given(SEEDS)
def test_entropy_is_that_of_scipy(seed):
    probabilities = distributions(seed, 20)
    probabilities[0] = [1, 0, 0, 0, 0]
    np.testing.assert_allclose(shannon_entropy(probabilities), scipy_entropy(probabilities, axis=1), atol=1e-12)


def test_entropy_of_certainty_is_zero_and_that_of_a_uniform_prediction_the_logarithm_of_the_classes():
    assert shannon_entropy(np.array([[0.0, 1.0, 0.0]])).tolist() == [0.0]
    assert shannon_entropy(np.full((1, 8), 1 / 8))[0] == pytest.approx(np.log(8))


@pytest.mark.parametrize(
    ("name", "order", "scores"),
    [
        ("entropy", [2, 1, 0], [1.0397, 0.8979, 0.0]),
        ("least_confidence", [2, 1, 0], [0.5, 0.4, 0.0]),
        ("margin", [2, 1, 0], [0.75, 0.7, 0.0]),
    ],
)
def test_three_predictions_by_hand(name, order, scores):
    """-(.5 ln .5 + 2 · .25 ln .25) = 1.5 ln 2 = 1.0397; -(.6 ln .6 + .3 ln .3 + .1 ln .1) = .8979."""
    probabilities = np.array([[1.0, 0.0, 0.0], [0.6, 0.3, 0.1], [0.5, 0.25, 0.25]])
    found = strategy(name)(PoolScores(probabilities=probabilities))
    assert found.indices.tolist() == order
    assert found.scores.round(4).tolist() == scores


def test_the_three_disagree_about_two_close_classes_and_a_flat_prediction():
    probabilities = np.array([[0.5, 0.5, 0.0, 0.0], [0.4, 0.2, 0.2, 0.2]])
    found = PoolScores(probabilities=probabilities)
    assert strategy("margin")(found).indices.tolist() == [0, 1]
    assert strategy("entropy")(found).indices.tolist() == [1, 0]
    assert strategy("least_confidence")(found).indices.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["entropy", "least_confidence", "margin"])
@given(SEEDS)
def test_the_same_prediction_of_other_classes_ties_so_the_order_is_random(name, seed):
    rng = np.random.default_rng(seed)
    one = distributions(seed, 1)[0]
    alike = np.stack([rng.permutation(one) for _ in range(8)])
    found = strategy(name)(PoolScores(probabilities=alike, seed=seed))
    assert found.indices.tolist() == drawn_order(8, seed).tolist()


@pytest.mark.parametrize("name", ["entropy", "least_confidence", "margin"])
def test_one_class_leaves_nothing_to_ask_and_no_error(name):
    assert sorted(strategy(name)(PoolScores(probabilities=np.ones((3, 1)))).indices.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("bad", [np.ones((4, 3)), np.array([[1.5, -0.5]]), np.ones(4)])
def test_what_is_no_distribution_is_refused(bad):
    with pytest.raises(KdalError, match="probabilities"):
        strategy("entropy")(PoolScores(probabilities=bad))


def votes(*classes):
    """Members (M, 1, 3) that vote so, each with .8."""
    return np.stack([np.full((1, 3), 0.1) + 0.7 * np.eye(3)[vote] for vote in classes])


def test_variation_ratio_counts_the_votes_against_the_majority():
    members = np.concatenate([votes(0, 0, 0, 0), votes(0, 0, 1, 1), votes(0, 1, 1, 1), votes(2, 0, 1, 0)], axis=1)
    assert variation_ratio(members).tolist() == [0.0, 0.5, 0.25, 0.5]


def test_an_ensembles_ties_go_by_the_entropy_of_the_mean_which_never_outweighs_a_vote():
    sure, unsure = np.array([0.9, 0.05, 0.05]), np.array([0.36, 0.32, 0.32])
    against = np.array([0.05, 0.9, 0.05])
    members = np.stack(
        [
            [sure, sure, unsure],
            [sure, sure, unsure],
            [sure, against, unsure],
        ]
    )
    found = strategy("ensemble")(PoolScores(ensemble=members))
    assert found.indices.tolist() == [1, 2, 0]
    assert found.scores[0] > 1 / 3 > found.scores[1]


@given(SEEDS, st.integers(2, 9), st.integers(1, 6))
def test_sorting_by_votes_then_entropy_is_what_an_ensemble_does(seed, members, classes):
    given_members = np.round(distributions(seed, members, 30, classes=classes), 6)
    ratio, spread = variation_ratio(given_members), shannon_entropy(given_members.mean(axis=0)).round(9)
    expected = np.lexsort((np.arange(30), -spread, -ratio.round(9)))
    found = strategy("ensemble")(PoolScores(ensemble=given_members)).indices
    assert ratio[found].tolist() == ratio[expected].tolist()
    assert spread[found].tolist() == pytest.approx(spread[expected].tolist())


def test_one_member_is_no_ensemble():
    with pytest.raises(KdalError, match="M >= 2"):
        strategy("ensemble")(PoolScores(ensemble=distributions(0, 1, 5)))


@given(SEEDS, st.integers(2, 9))
def test_mutual_information_is_entropy_of_the_mean_less_mean_of_entropies(seed, passes):
    samples = distributions(seed, passes, 20)
    expected = scipy_entropy(samples.mean(axis=0), axis=1) - scipy_entropy(samples, axis=2).mean(axis=0)
    np.testing.assert_allclose(mutual_information(samples), expected, atol=1e-12)


@given(SEEDS)
def test_mutual_information_is_the_mean_divergence_from_the_mean(seed):
    """I = mean over m of KL(p_m || mean p), another form of the same number."""
    samples = distributions(seed, 6, 20)
    mean = np.broadcast_to(samples.mean(axis=0), samples.shape)
    np.testing.assert_allclose(mutual_information(samples), scipy_entropy(samples, mean, axis=2).mean(0), atol=1e-10)


def test_bald_asks_where_passes_disagree_and_not_where_each_is_unsure():
    disagree = np.array([[0.9, 0.1], [0.1, 0.9]])
    unsure = np.array([[0.5, 0.5], [0.5, 0.5]])
    found = strategy("bald")(PoolScores(dropout=np.stack([unsure, disagree], axis=1)))
    assert found.indices.tolist() == [1, 0]
    # ln 2 - (-(.9 ln .9 + .1 ln .1)) = .6931 - .3251
    assert found.scores.round(4).tolist() == [0.3681, 0.0]


def test_mutual_information_of_many_images_is_that_of_each():
    samples = distributions(0, 20, 3000)
    one_by_one = np.concatenate([mutual_information(samples[:, i : i + 1]) for i in range(3000)])
    np.testing.assert_allclose(mutual_information(samples), one_by_one, atol=1e-14)


@given(SEEDS)
def test_neighborhood_divergence_is_mutual_information_of_the_members(seed):
    neighborhoods = distributions(seed, 12, 4)
    expected = scipy_entropy(neighborhoods.mean(axis=1), axis=1) - scipy_entropy(neighborhoods, axis=2).mean(axis=1)
    np.testing.assert_allclose(neighborhood_divergence(neighborhoods), expected, atol=1e-12)


@given(SEEDS, st.integers(1, 40))
def test_acd_compares_an_image_with_its_nearest_ones_as_scikit_learn_finds_them(seed, k):
    rng = np.random.default_rng(seed)
    features, probabilities = np.round(rng.normal(size=(25, 3)), 3), np.round(distributions(seed, 25), 6)
    members = NearestNeighbors(n_neighbors=min(k, 24) + 1).fit(features).kneighbors(features, return_distance=False)
    found = strategy("acd", k=k)(PoolScores(features=features, probabilities=probabilities))
    expected = neighborhood_divergence(probabilities[members])
    np.testing.assert_allclose(found.scores, expected[found.indices], atol=1e-9)
    assert (np.diff(found.scores) <= 0).all()


def test_acd_asks_where_two_regions_of_feature_space_meet():
    features = np.arange(10.0)[:, None]
    probabilities = np.repeat([[0.95, 0.05], [0.05, 0.95]], 5, axis=0)
    found = strategy("acd", k=2)(PoolScores(features=features, probabilities=probabilities))
    assert set(found.indices[:2].tolist()) == {4, 5}
    assert found.scores[4:].tolist() == [0.0] * 6


def test_acd_without_neighbours_is_refused():
    with pytest.raises(KdalError, match="k"):
        strategy("acd", k=0)(PoolScores(features=np.zeros((3, 2)), probabilities=np.ones((3, 1))))


def test_learning_loss_goes_by_the_predicted_loss():
    found = strategy("learning_loss")(PoolScores(predicted_loss=np.array([0.1, 2.0, -1.0, 2.0])))
    assert set(found.indices[:2].tolist()) == {1, 3}
    assert found.indices[2:].tolist() == [0, 2]
    assert found.scores.tolist() == [2.0, 2.0, 0.1, -1.0]
