"""Why tasks come first: of gaps, of doubt, of distance to what is labelled, of chance."""

import numpy as np
import pytest

from kdal.rounds.batch import TOLD_FIRST
from kdal.rounds.queue import REASONS, REGIONS, Entry, QueueFile, carry_reasons, reasons, save_reasons, save_regions
from kdal.rounds.store import RoundStore
from kdal_core.acquisition import Selection
from kdal_core.errors import AssetError

COUNT = 40


def selected(order, diversity=None):
    order = np.asarray(order, dtype=np.int64)
    covers = np.zeros(len(order), dtype=np.int64) if diversity is None else np.asarray(diversity)
    return Selection(order, np.zeros(len(order)), covers)


def told(arrays, order=range(COUNT), drawn=(), diversity=None, trained=True, by_chance=False):
    order = np.asarray(order, dtype=np.int64)
    tasks = [100 + row for row in order.tolist()]
    found = reasons(
        tasks,
        order,
        np.asarray(drawn, dtype=np.int64),
        selected(order, diversity),
        arrays,
        trained=trained,
        by_chance=by_chance,
    )
    assert [entry.task for entry in found] == tasks[:TOLD_FIRST]
    return {entry.task - 100: entry for entry in found}


@pytest.fixture
def gaps(rng):
    return {"d_ss": rng.random(COUNT), "d_st": rng.random(COUNT)}


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_the_share_of_the_pool_with_smaller_gaps_is_told(gaps):
    both = gaps["d_ss"] + gaps["d_st"]
    for row, entry in told(gaps).items():
        assert entry.why == "gap"
        assert entry.gap == pytest.approx((both < both[row]).mean(), abs=1e-4)


def test_the_share_of_the_pool_that_is_nearer_to_a_label_is_told(rng):
    features, labelled = rng.normal(size=(COUNT, 5)), rng.normal(size=(3, 5))
    nearest = np.linalg.norm(features[:, None] - labelled, axis=2).min(axis=1)
    for row, entry in told({"features": features, "labelled_features": labelled}).items():
        assert entry.why == "far"
        assert entry.far == pytest.approx((nearest < nearest[row]).mean(), abs=1e-4)


def test_the_teachers_features_tell_where_they_are(rng):
    near, far = np.zeros((COUNT, 2)), np.arange(COUNT)[:, None] * np.ones(2)
    arrays = {"features": near, "labelled_features": near[:1]}
    arrays |= {"teacher_features": far, "labelled_teacher_features": far[:1]}
    assert told(arrays)[COUNT - 1].far == pytest.approx(1 - 1 / COUNT)


def test_doubt_is_told_where_there_are_no_gaps(rng):
    probabilities = rng.dirichlet(np.ones(4), COUNT)
    sure = probabilities.max(axis=1)
    for row, entry in told({"probabilities": probabilities}).items():
        assert entry.why == "unsure"
        assert entry.unsure == pytest.approx((sure > sure[row]).mean(), abs=1e-4)


def test_what_sets_a_task_apart_most_is_its_reason(gaps):
    features = np.zeros((COUNT, 2))
    features[7] = 50.0
    gaps["d_ss"][7] = gaps["d_st"][7] = 0.0
    found = told(gaps | {"features": features, "labelled_features": np.zeros((1, 2))})
    assert found[7].why == "far"
    assert found[7].far > 0.9
    assert found[7].gap == 0.0


def test_a_task_that_stands_for_many_says_so_unless_its_gap_is_large(gaps):
    order = np.argsort(gaps["d_ss"] + gaps["d_st"])
    diversity = np.zeros(COUNT, dtype=np.int64)
    diversity[[0, COUNT - 1]] = 6
    found = told(gaps, order=order, diversity=diversity)
    assert (found[order[0]].why, found[order[0]].covers) == ("covers", 6)
    assert found[order[-1]].why == "gap"


def test_what_was_drawn_at_random_says_so_and_without_a_model_all_is_coverage(gaps):
    assert [row for row, entry in told(gaps, drawn=[4, 9]).items() if entry.why == "random"] == [4, 9]
    cold = told({"thumbnails": np.zeros((COUNT, 3, 4, 4))}, drawn=[4], trained=False)
    assert {entry.why for row, entry in cold.items() if row != 4} == {"cold"}
    assert cold[4].why == "random"
    assert {entry.why for entry in told({}, trained=False, by_chance=True).values()} == {"random"}


def test_a_strategy_that_tells_nothing_has_no_reason_but_its_rank():
    assert told({})[0] == Entry(100, "rank")


def test_infinite_gaps_are_the_largest(gaps):
    gaps["d_st"][3] = np.inf
    assert told(gaps)[3].gap == pytest.approx(1 - 1 / COUNT)


def test_only_the_first_of_a_long_order_are_explained(rng):
    count = TOLD_FIRST + 300
    found = told({"d_ss": rng.random(count), "d_st": rng.random(count)}, order=rng.permutation(count))
    assert len(found) == TOLD_FIRST


def test_what_is_kept_is_read_again(resources):
    store = RoundStore(resources.assets, "3.1", 2)
    entries = [Entry(5, "gap", gap=0.5, far=0.25), Entry(3, "covers", covers=4), Entry(8, "behind")]
    save_reasons(store, entries, "kd_gap")
    assert QueueFile.load(store) == QueueFile({entry.task: entry for entry in entries}, {}, "kd_gap")
    save_regions(store, [5, 3, 8], {5: [{"type": "choices"}], 3: [], 9: [{"type": "choices"}]})
    assert QueueFile.load(store).regions == {5: [{"type": "choices"}]}


def test_a_damaged_file_is_said(resources):
    store = RoundStore(resources.assets, "3.1", 2)
    store.write_json(REASONS, {"entries": [{"nothing": 1}], "strategy": "x"})
    with pytest.raises(AssetError, match=r"queue\.json is damaged"):
        QueueFile.load(store)
    save_reasons(store, [], "x")
    store.write_json(REGIONS, [1])
    with pytest.raises(AssetError, match=r"queue-regions\.json is damaged"):
        QueueFile.load(store)


def test_a_round_that_has_the_order_of_an_earlier_one_has_its_reasons(resources):
    store = RoundStore(resources.assets, "3.1", 2)
    save_reasons(store, [Entry(5, "gap", gap=0.5), Entry(3, "random")], "kd_gap")
    carry_reasons(store.of_round(4), 2, [3, 8, 5])
    found = QueueFile.load(store.of_round(4))
    assert found.strategy == "kd_gap"
    assert [(entry.task, entry.why) for entry in found.entries.values()] == [(3, "random"), (8, "rank"), (5, "gap")]
