from hypothesis import given
from hypothesis import strategies as st

from kdal.rounds.batch import TOLD_FIRST, NewLabels, batch_window, count_labels, drawn, labelled_by, told

ids = st.integers(1, 40)
orders = st.lists(ids, unique=True)


def test_without_skips_the_batch_is_the_first_of_the_order():
    assert batch_window([9, 2, 5, 7], [], 3) == [9, 2, 5]


def test_a_skipped_task_is_replaced_by_the_next_in_rank_and_stays():
    assert batch_window([9, 2, 5, 7], [2], 3) == [9, 2, 5, 7]


def test_a_replacement_that_is_skipped_too_is_replaced_again():
    assert batch_window([9, 2, 5, 7, 1], [9, 2, 5], 2) == [9, 2, 5, 7, 1]


def test_skips_behind_the_batch_change_nothing():
    assert batch_window([9, 2, 5, 7], [7], 2) == [9, 2]


def test_a_batch_larger_than_the_order_is_all_of_it():
    assert batch_window([9, 2], [], 5) == [9, 2]
    assert batch_window([], [1], 5) == []


def test_labels_outside_the_batch_count_unless_a_window_is_given():
    assert count_labels([1, 2, 3, 4], [1]) == 3
    assert count_labels([1, 2, 3, 4], [1], window=[2, 3]) == 2
    assert count_labels([], [1]) == 0


def test_a_batch_of_objects_goes_as_far_as_its_tasks_seem_to_show_so_many():
    assert batch_window([9, 2, 5, 7], [], 4, [1.5, 2.0, 1.0, 9.0]) == [9, 2, 5]
    assert batch_window([9, 2, 5, 7], [2], 4, [1.5, 2.0, 1.0, 9.0]) == [9, 2, 5, 7]
    assert batch_window([9, 2], [], 40, [1.5, 2.0]) == [9, 2]


def test_objects_count_where_they_are_asked_for_and_an_empty_label_counts_as_one():
    objects = {2: drawn(("a", "b", "c")), 3: drawn(()), 4: drawn(2)}
    assert count_labels([1, 2, 3, 4], [1], objects=objects) == 3 + 1 + 1
    assert count_labels([1, 2, 3, 4], [1], window=[2], objects=objects) == 3


@given(orders, st.sets(ids), st.integers(1, 50))
def test_the_batch_is_a_prefix_with_as_many_servable_tasks_as_the_budget_asks(order, skipped, budget):
    window = batch_window(order, skipped, budget)
    assert window == order[: len(window)]
    servable = [task for task in window if task not in skipped]
    assert len(servable) == min(budget, sum(task not in skipped for task in order))
    assert len(window) == len(order) or window[-1] not in skipped


@given(st.lists(ids), st.sets(ids))
def test_each_task_counts_once_however_often_it_was_labelled(labelled, before):
    assert count_labels(labelled + labelled, before) == count_labels(labelled, before) == len({*labelled} - before)


@given(st.sets(ids, min_size=1), st.sets(ids), st.data())
def test_a_deleted_label_is_not_counted_any_more(labelled, before, data):
    gone = data.draw(st.sampled_from(sorted(labelled)))
    assert count_labels(labelled - {gone}, before) == count_labels(labelled, before) - (gone not in before)


@given(orders.filter(lambda order: len(order) > 2), st.sets(ids), st.integers(1, 10), st.data())
def test_a_skipped_task_that_is_labelled_later_counts_and_takes_nothing_away(order, labelled, budget, data):
    """Label Studio's API keeps the skip beside the later label, so the task stays among the skipped."""
    skipped = {data.draw(st.sampled_from(batch_window(order, [], budget)))}
    others = labelled - skipped
    window = batch_window(order, skipped, budget)
    before = count_labels(others, [], window=window)
    after = count_labels(others | skipped, [], window=batch_window(order, skipped, budget))
    assert after == before + 1


@given(orders, st.sets(ids), st.integers(1, 20), st.data())
def test_another_skip_never_lowers_the_count(order, labelled, budget, data):
    skipped = data.draw(st.sets(ids))
    more = skipped | data.draw(st.sets(ids))
    fewer = count_labels(labelled, [], window=batch_window(order, skipped, budget))
    assert count_labels(labelled, [], window=batch_window(order, more, budget)) >= fewer


def test_people_are_told_who_labelled_and_which_of_the_first_tasks_are_done():
    labels = NewLabels(None, 3, None, frozenset(), None, usable={5, 9, 7, 600}, people={5: 2, 9: 1, 7: 2, 8: 2})
    order = [9, 5, 4, *range(1000, 1000 + TOLD_FIRST), 600]
    assert told(labels, order) == {"labelled_by": {"2": 2, "1": 1}, "labelled_first": [9, 5]}


def test_a_label_is_by_whoever_made_the_last_one_that_counts():
    assert labelled_by({"annotations": [{"completed_by": 1}, {"completed_by": 2, "was_cancelled": True}]}) == 1
    assert labelled_by({"annotations": [{"completed_by": None}]}) is None
    assert labelled_by({"annotations": []}) is None
    assert labelled_by({}) is None
