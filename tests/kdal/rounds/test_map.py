"""The map of a round's images: what lies apart in the features lies apart on it."""

import numpy as np
import pytest

from kdal.rounds.map import FILE, MOST, load_map, save_map
from kdal.rounds.store import RoundStore
from kdal_core.errors import AssetError


@pytest.fixture
def store(resources):
    return RoundStore(resources.assets, "3.1", 2)


def test_two_clusters_are_two_places_and_kinds_are_told_apart(store):
    rng = np.random.default_rng(0)
    pool = np.concatenate([rng.normal(0, 0.1, (30, 8)), rng.normal(5, 0.1, (30, 8))])
    labelled = rng.normal(5, 0.1, (4, 8))
    tasks, known = np.arange(100, 160), np.arange(1, 5)
    arrays = {"teacher_features": pool, "labelled_teacher_features": labelled, "features": np.zeros((60, 2))}
    save_map(store, tasks, [159, 100, 7], arrays, known)
    points = {point.task: point for point in load_map(store)}
    assert sorted(points) == [*known, *tasks]
    assert {task for task, point in points.items() if point.kind == "batch"} == {159, 100}
    assert {task for task, point in points.items() if point.kind == "labelled"} == set(known)
    left, right = points[101], points[158]
    assert abs(left.x - right.x) > 0.8
    assert abs(points[1].x - right.x) < 0.2
    assert all(0 <= point.x <= 1 and 0 <= point.y <= 1 for point in points.values())


def test_of_a_large_pool_a_sample_is_shown(store):
    rng = np.random.default_rng(1)
    tasks = np.arange(5000)
    save_map(store, tasks, tasks[:400].tolist(), {"features": rng.normal(size=(5000, 3))}, tasks[:0])
    kinds = [point.kind for point in load_map(store)]
    assert kinds.count("batch") == MOST["batch"]
    assert 0.8 * MOST["pool"] < kinds.count("pool") <= MOST["pool"]


def test_thumbnails_make_a_map_before_there_is_a_model(store):
    pictures = np.zeros((6, 3, 4, 4))
    pictures[3:] = 1
    save_map(store, np.arange(6), [0], {"thumbnails": pictures}, np.arange(0))
    places = {point.task: point.x for point in load_map(store)}
    assert len({places[0], places[1]}) == 1
    assert places[0] != places[4]


@pytest.mark.parametrize("arrays", [{}, {"features": np.ones((2, 4))}])
def test_where_nothing_can_be_shown_there_is_no_map(store, arrays):
    save_map(store, np.arange(2), [0], arrays, np.arange(0))
    assert load_map(store) == []


def test_images_that_are_all_alike_are_one_place(store):
    save_map(store, np.arange(5), [0], {"features": np.ones((5, 4))}, np.arange(0))
    assert len({(point.x, point.y) for point in load_map(store)}) == 1


def test_a_damaged_map_is_said(store):
    store.write_arrays(FILE, tasks=np.arange(3), places=np.zeros((2, 2)), kinds=np.zeros(3, dtype=np.int8))
    with pytest.raises(AssetError, match="damaged"):
        load_map(store)
