import numpy as np
import pytest

from kdal_core.errors import ConfigError
from kdal_core.simulation.annotator import make_annotator
from kdal_core.simulation.campaign import AnnotatorSettings, NoiseSettings
from kdal_core.tasks.lane import Lane, x_at

ROWS = np.linspace(0.3, 0.9, 13)


def pool(size=400, seed=0):
    """Images of 0 to 4 lanes; how worn and hidden each is, on a coarse grid so that many are alike."""
    rng = np.random.default_rng(seed)
    labels, worn, hidden = (np.empty(size, dtype=object) for _ in range(3))
    for image in range(size):
        count = int(rng.integers(0, 5))
        labels[image] = tuple(
            Lane(np.array([[0.45 + 0.02 * n, 0.3], [0.2 + 0.2 * n, 0.9]]), label=n % 2) for n in range(count)
        )
        worn[image] = tuple(np.round(rng.random(count), 1).tolist())
        hidden[image] = tuple(np.round(rng.random(count), 1).tolist())
    return labels, {"worn": worn, "occluded": hidden}


LABELS, ATTRIBUTES = pool()


def annotator(seed=0, given=None, **noise):
    labels, attributes = given or (LABELS, ATTRIBUTES)
    return make_annotator(AnnotatorSettings(), NoiseSettings(**noise), labels, 2, seed, None, attributes)


def changed(before, after):
    """Which lanes of an image are not the same object as before."""
    return [lane for lane in before if not any(lane is other for other in after)]


def test_without_noise_every_lane_is_the_right_one():
    found = annotator()
    assert not found.mistaken.any()
    assert all(a is b for a, b in zip(found.labels, LABELS, strict=True))


def test_noise_touches_the_hardest_lanes_only_and_as_many_as_said():
    found = annotator(kind="attribute", attributes=["worn", "occluded"], share=0.3, rate=1.0)
    hardness, touched = [], []
    for image, lanes in enumerate(LABELS):
        lost = changed(lanes, found.labels[image])
        for number, lane in enumerate(lanes):
            hardness.append(max(ATTRIBUTES["worn"][image][number], ATTRIBUTES["occluded"][image][number]))
            touched.append(any(lane is other for other in lost))
        assert found.mistaken[image] == bool(lost)
    hardness, touched = np.array(hardness), np.array(touched)
    assert touched.sum() == round(0.3 * len(touched))
    assert hardness[touched].min() >= hardness[~touched].max()
    border = hardness == hardness[touched].min()
    assert 0 < touched[border].mean() < 1, "equally hard lanes are taken by lot"


def test_the_rate_is_that_of_the_hard_lanes():
    every = annotator(kind="attribute", attributes=["worn"], share=0.5, rate=1.0)
    some = annotator(kind="attribute", attributes=["worn"], share=0.5, rate=0.4)
    counts = [sum(len(changed(a, b)) for a, b in zip(LABELS, found.labels, strict=True)) for found in (every, some)]
    assert counts[1] / counts[0] == pytest.approx(0.4, abs=0.06)
    assert (every.mistaken | ~some.mistaken).all()


def test_uniform_noise_touches_any_lane_alike():
    found = annotator(kind="uniform", rate=0.3)
    lost = [len(changed(a, b)) for a, b in zip(LABELS, found.labels, strict=True)]
    assert sum(lost) / sum(map(len, LABELS)) == pytest.approx(0.3, abs=0.05)
    worn = np.array([np.mean(values) if values else np.nan for values in ATTRIBUTES["worn"]])
    assert np.nanmean(worn[found.mistaken]) == pytest.approx(np.nanmean(worn), abs=0.05)


def same(a, b):
    return len(a) == len(b) and all(
        np.array_equal(x.points, y.points) and x.label == y.label for x, y in zip(a, b, strict=True)
    )


def test_an_image_gets_the_same_answer_every_time_and_another_seed_another():
    first, again, other = (annotator(seed, kind="uniform", rate=0.5) for seed in (1, 1, 2))
    assert all(same(a, b) for a, b in zip(first.labels, again.labels, strict=True))
    assert not all(same(a, b) for a, b in zip(first.labels, other.labels, strict=True))


def test_an_images_answer_does_not_hang_on_the_images_behind_it():
    part = LABELS[:100], {name: values[:100] for name, values in ATTRIBUTES.items()}
    first, whole = annotator(given=part, kind="uniform", rate=0.5), annotator(kind="uniform", rate=0.5)
    assert all(same(a, b) for a, b in zip(first.labels, whole.labels[:100], strict=True))


def one(way, pixels=30.0):
    """Pairs (right lane, wrong lane or None) of a pool of single lanes that are all drawn wrong in one way."""
    labels = np.empty(300, dtype=object)
    for image in range(300):
        labels[image] = (Lane(np.array([[0.5, 0.3], [0.4, 0.9]]), label=1),)
    found = annotator(given=(labels, {}), kind="uniform", rate=1.0, ways=[way], pixels=pixels)
    assert found.mistaken.all()
    return [(right[0], wrong[0] if wrong else None) for right, wrong in zip(labels, found.labels, strict=True)]


def test_a_shifted_lane_lies_beside_the_right_one_by_about_as_much_as_said():
    distances = []
    for right, wrong in one("shifted"):
        assert wrong.label == 1
        assert wrong.points[[0, -1], 1].tolist() == pytest.approx([0.3, 0.9])
        apart = 1000 * (x_at(wrong, ROWS) - x_at(right, ROWS))
        distances.append(np.abs(apart).mean())
        assert np.abs(apart).max() > 5
    assert np.mean(distances) == pytest.approx(30, rel=0.15)
    sides = [x_at(wrong, [0.6])[0] > x_at(right, [0.6])[0] for right, wrong in one("shifted")]
    assert 0.4 < np.mean(sides) < 0.6


def test_a_lane_cut_short_keeps_its_near_part_where_it_was():
    for right, wrong in one("cut"):
        assert wrong.points[-1].tolist() == pytest.approx(right.points[-1].tolist())
        assert 0.3 <= (0.9 - wrong.points[0, 1]) / 0.6 <= 0.7
        rows = np.linspace(wrong.points[0, 1] + 1e-9, 0.9, 5)
        np.testing.assert_allclose(x_at(wrong, rows), x_at(right, rows), atol=1e-3)


def test_a_missing_lane_is_left_out_and_the_ways_are_as_frequent_as_each_other():
    assert all(wrong is None for _, wrong in one("missing"))
    large, _ = pool(2000)
    found = annotator(given=(large, {}), kind="uniform", rate=1.0)
    left = sum(map(len, found.labels)) / sum(map(len, large))
    assert left == pytest.approx(2 / 3, abs=0.03)


def test_a_lane_that_is_pushed_out_of_the_image_is_left_out():
    assert any(wrong is None for _, wrong in one("shifted", pixels=900.0))


def test_an_attribute_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match="no 'rusty' for each of its lanes; it has worn, occluded"):
        annotator(kind="attribute", attributes=["worn", "rusty"], share=0.5, rate=1.0)
    with pytest.raises(ConfigError, match="it says nothing of its lanes"):
        annotator(given=(LABELS, {}), kind="attribute", attributes=["worn"], rate=1.0)
