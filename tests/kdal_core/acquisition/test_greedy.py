import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdal_core.acquisition import MODES, greedy_select, nearest_neighbors
from kdal_core.errors import KdalError


def diversity(graph, p, picked, mode):
    """|...| of methods.md, by sets."""
    rnn = [{q for q, row in enumerate(graph) if x in row} for x in range(len(graph))]
    if mode == "score":
        return len(rnn[p] - picked)
    if mode == "marginal":
        return len(rnn[p] - picked) - len(set(graph[p]) & picked)
    if mode == "coverage":
        return len(rnn[p] - set().union(*(rnn[v] for v in picked)))
    return len(rnn[p])


def brute_force(values, graph, budget, beta, mode):
    """Recompute every score before every pick; infinite uncertainty first, then the score, then the index."""
    graph, picked, picks = [row.tolist() for row in graph], set(), []
    for _ in range(budget):
        candidates = []
        for p in range(len(values)):
            if p not in picked:
                div = diversity(graph, p, picked, mode)
                infinite = np.isinf(values[p])
                base = 0.0 if infinite else values[p]
                candidates.append((not infinite, -(base + beta * div), p, values[p] + beta * div, div))
        *_, p, score, div = min(candidates)
        picked.add(p)
        picks.append((p, score, div))
    return picks


@st.composite
def pools(draw):
    size, seed = draw(st.integers(2, 14)), draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4, size).astype(float) if draw(st.booleans()) else rng.normal(size=size)
    if draw(st.booleans()):
        values[rng.random(size) < 0.3] = np.inf
    graph = nearest_neighbors(rng.integers(0, 4, (size, 2)), draw(st.integers(0, min(4, size - 1))))
    return values, graph


@settings(max_examples=300)
@given(pools(), st.sampled_from(sorted(MODES)), st.sampled_from([0.0, 0.1, 0.3, 1.0, 5.0]))
def test_the_lazy_pass_picks_what_recomputing_everything_picks(pool, mode, beta):
    values, graph = pool
    picks = greedy_select(values, graph, len(values), beta, mode)
    expected = brute_force(values, graph, len(values), beta, mode)
    assert picks.indices.tolist() == [p for p, _, _ in expected]
    assert picks.scores.tolist() == [score for _, score, _ in expected]
    assert picks.diversity.tolist() == [div for _, _, div in expected]


@pytest.mark.parametrize("factor", [1, 2, 3])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pool=pools(), mode=st.sampled_from(sorted(MODES)), beta=st.sampled_from([0.0, 0.3, 5.0]), part=st.floats(0, 1))
def test_points_first_left_out_are_taken_in_when_the_best_has_fallen_below_them(
    monkeypatch, factor, pool, mode, beta, part
):
    monkeypatch.setattr("kdal_core.acquisition.greedy.FACTOR", factor)
    values, graph = pool
    budget = round(part * len(values))
    picks = greedy_select(values, graph, budget, beta, mode)
    expected = brute_force(values, graph, budget, beta, mode)
    assert picks.indices.tolist() == [p for p, _, _ in expected]
    assert picks.scores.tolist() == [score for _, score, _ in expected]
    assert picks.diversity.tolist() == [div for _, _, div in expected]


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("beta", [0.0, 0.2, 3.0])
def test_a_few_picks_of_a_larger_pool_are_those_of_recomputing_everything(mode, beta):
    rng = np.random.default_rng(5)
    graph = nearest_neighbors(rng.integers(0, 6, (60, 2)), 5)
    for values in (np.zeros(60), rng.random(60), np.where(rng.random(60) < 0.1, np.inf, rng.integers(0, 3, 60))):
        picks = greedy_select(values, graph, 6, beta, mode)
        assert picks.indices.tolist() == [p for p, _, _ in brute_force(values, graph, 6, beta, mode)]


@pytest.mark.parametrize("k", [2, 40])
def test_a_neighbour_listed_twice_is_found_wherever_it_stands(k):
    graph = np.array([[(i + 1 + j) % 100 for j in range(k)] for i in range(100)])
    greedy_select(np.zeros(100), graph, 1, 1.0)
    graph[77, k - 1] = graph[77, 0]
    with pytest.raises(KdalError, match="twice"):
        greedy_select(np.zeros(100), graph, 1, 1.0)


@given(pools(), st.sampled_from(sorted(MODES)))
def test_a_smaller_budget_is_the_beginning_of_a_larger_one(pool, mode):
    values, graph = pool
    whole = greedy_select(values, graph, len(values), 0.3, mode)
    for budget in range(len(values) + 1):
        part = greedy_select(values, graph, budget, 0.3, mode)
        assert part.indices.tolist() == whole.indices[:budget].tolist()
        assert len(part.scores) == len(part.diversity) == budget


@given(pools(), st.sampled_from(sorted(MODES)))
def test_a_budget_of_the_whole_pool_orders_every_point_once(pool, mode):
    values, graph = pool
    indices = greedy_select(values, graph, len(values), 1.0, mode).indices
    assert sorted(indices.tolist()) == list(range(len(values)))


@given(st.integers(0, 1000), st.sampled_from(sorted(MODES)))
def test_renumbering_the_points_renumbers_the_picks(seed, mode):
    rng = np.random.default_rng(seed)
    values, points, order = rng.normal(size=15), rng.normal(size=(15, 2)), rng.permutation(15)
    plain = greedy_select(values, nearest_neighbors(points, 3), 15, 0.37, mode)
    moved = greedy_select(values[order], nearest_neighbors(points[order], 3), 15, 0.37, mode)
    assert order[moved.indices].tolist() == plain.indices.tolist()


def test_equal_scores_go_to_the_lowest_index():
    graph = [[1], [0], [3], [2]]
    for mode in MODES:
        assert greedy_select([0, 0, 0, 0], graph, 4, 0.0, mode).indices.tolist() == [0, 1, 2, 3]


def test_infinite_uncertainty_comes_first_and_is_ordered_by_diversity():
    graph = [[2], [2], [1], [2]]  # reverse neighbours: 0, 1, 3, 0
    picks = greedy_select([np.inf, 9, np.inf, np.inf], graph, 4, 1.0)
    assert picks.indices.tolist() == [2, 0, 3, 1]
    assert picks.scores[:3].tolist() == [np.inf] * 3


def test_without_beta_the_order_is_that_of_uncertainty():
    values = [0.2, 0.9, -0.5, 0.4]
    assert greedy_select(values, [[1], [0], [0], [0]], 4, 0.0).indices.tolist() == [1, 3, 0, 2]


def objective(values, graph, chosen, beta):
    """Uncertainty of the set, plus beta for each arc from a point outside to a neighbour inside."""
    arcs = sum(1 for q, row in enumerate(graph) if q not in chosen for p in row if p in chosen)
    return sum(values[p] for p in chosen) + beta * arcs


def test_marginal_picks_reach_nearly_the_best_set_and_report_their_true_gain():
    ratios = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        values, graph = rng.random(9), nearest_neighbors(rng.normal(size=(9, 2)), 3)
        picks = greedy_select(values, graph, 4, 0.5, "marginal")
        reached = objective(values, graph, set(picks.indices.tolist()), 0.5)
        assert picks.scores.sum() == pytest.approx(reached)
        best = max(objective(values, graph, set(c), 0.5) for c in itertools.combinations(range(9), 4))
        ratios.append(reached / best)
    assert np.mean(ratios) > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uncertainty": [np.nan, 0, 0]}, "NaN"),
        ({"uncertainty": [-np.inf, 0, 0]}, "-inf"),
        ({"uncertainty": [0, 0]}, "2 entries"),
        ({"neighbors": [[1], [2], [3]]}, "row numbers"),
        ({"neighbors": [[0], [2], [1]]}, "own neighbour"),
        ({"budget": 4}, "budget"),
        ({"budget": -1}, "budget"),
        ({"budget": 1.5}, "budget"),
        ({"beta": -0.1}, "beta"),
        ({"beta": np.nan}, "beta"),
        ({"mode": "best"}, "mode"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, message):
    good = {"uncertainty": [0, 1, 2], "neighbors": [[1], [2], [0]], "budget": 2, "beta": 0.3, "mode": "score"}
    with pytest.raises(KdalError, match=message):
        greedy_select(**{**good, **change})


def test_an_empty_pool_has_an_empty_order():
    picks = greedy_select([], np.empty((0, 0), dtype=np.int64), 0, 1.0, "coverage")
    assert len(picks.indices) == len(picks.scores) == len(picks.diversity) == 0
