import numpy as np
import pytest

from kdal_core.simulation.annotator import Difficulty, make_annotator, measure_difficulty
from kdal_core.simulation.campaign import AnnotatorSettings, NoiseSettings
from kdal_core.simulation.datasets import load_split
from kdal_core.simulation.runner import training_setup

TRUTH = np.random.default_rng(0).integers(0, 10, 20_000)
ALL = np.arange(len(TRUTH))


def annotator(seed=0, difficulty=None, pace=None, **noise):
    return make_annotator(pace or AnnotatorSettings(), NoiseSettings(**noise), TRUTH, 10, seed, difficulty)


def test_without_noise_every_answer_is_right():
    assert not annotator().wrong(ALL).any()


def test_uniform_noise_makes_as_many_wrong_as_said_of_every_class_alike():
    found = annotator(kind="uniform", rate=0.3)
    wrong = found.wrong(ALL)
    assert wrong.mean() == pytest.approx(0.3, abs=0.02)
    shares = [wrong[label == TRUTH].mean() for label in range(10)]
    assert max(shares) - min(shares) < 0.08
    given = np.bincount((found.labels[wrong] - TRUTH[wrong]) % 10, minlength=10)
    assert given[0] == 0
    assert given[1:].min() / given[1:].max() > 0.8


def test_an_image_gets_the_same_answer_every_time_and_another_seed_another():
    first, again, other = (annotator(seed, kind="uniform", rate=0.5) for seed in (1, 1, 2))
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.labels, other.labels)


def test_noise_bound_to_difficulty_touches_the_hardest_images_only_with_their_own_mistake():
    loss = np.random.default_rng(1).random(len(TRUTH))
    mistake = (TRUTH + 3) % 10
    found = annotator(kind="difficulty", share=0.3, rate=1.0, difficulty=Difficulty(loss, mistake))
    hardest = np.argsort(-loss)[: int(0.3 * len(TRUTH))]
    assert set(np.flatnonzero(found.wrong(ALL))) == set(hardest)
    assert np.array_equal(found.labels[hardest], mistake[hardest])
    half = annotator(kind="difficulty", share=0.3, rate=0.5, difficulty=Difficulty(loss, mistake))
    assert half.wrong(hardest).mean() == pytest.approx(0.5, abs=0.03)
    assert half.wrong(ALL).sum() == half.wrong(hardest).sum()


def test_labels_take_the_time_that_was_said():
    seconds = annotator(pace=AnnotatorSettings(seconds=4.0, spread=0.5)).seconds
    assert np.median(seconds) == pytest.approx(4.0, rel=0.03)
    assert np.log(seconds).std() == pytest.approx(0.5, rel=0.03)
    assert set(annotator(pace=AnnotatorSettings(seconds=2.0, spread=0)).seconds) == {2.0}


def test_difficulty_is_measured_by_models_that_have_not_seen_the_image(small):
    """A wrong label that a model has seen is learnt by heart; one that it has not seen stays hard."""
    campaign = small(training={"epochs": 20, "min_steps": 200, "device": "cpu"}, data={"name": "digits", "pool": 600})
    split = load_split(campaign, 0)
    spoilt = split.pool.labels.copy()
    spoilt[:20] = (spoilt[:20] + 1) % 10
    split = type(split)(split.classes, type(split.pool)(split.pool.images, spoilt), split.held_out)
    setup = training_setup(campaign, split)
    found = measure_difficulty(campaign, setup.task, setup.spec, split, seed=0)
    assert found.loss[:20].mean() > 10 * np.median(found.loss)
    assert (found.mistake != split.pool.labels).all()
    assert (found.mistake[:20] == (spoilt[:20] - 1) % 10).mean() > 0.7
