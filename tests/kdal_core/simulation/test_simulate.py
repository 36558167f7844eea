import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from kdal_core.errors import ConfigError
from kdal_core.simulation import collect, simulate
from kdal_core.simulation.annotator import make_annotator
from kdal_core.simulation.campaign import NoiseSettings
from kdal_core.simulation.datasets import load_split
from kdal_core.simulation.runner import Journal, Setting, make_lesson, run_arm, run_every_label


def learnt(results):
    """What a campaign says about learning: everything but the time it took to compute."""
    return [
        (run.arm, run.seed, [replace(point, compute_seconds=0.0) for point in run.points]) for run in results.runs
    ], results.full


def setting(campaign, seed=0):
    split = load_split(campaign, seed)
    annotator = make_annotator(campaign.annotator, campaign.noise, split.pool.labels, 10, seed)
    return Setting(make_lesson(campaign, split), split, annotator, seed)


def test_a_campaign_gives_a_point_for_each_round_arm_and_seed(small, tmp_path):
    seen = []
    results = simulate(small(), tmp_path, workers=2, progress=seen.append)
    assert [(run.arm, run.seed) for run in results.runs] == [("random", 0), ("kd_gap", 0), ("random", 1), ("kd_gap", 1)]
    for run in results.runs:
        assert [point.labels for point in run.points] == [10, 20, 30]
        assert all(0 <= point.score <= 1 and point.wrong == 0 for point in run.points)
    assert set(results.full) == {0, 1}
    assert results.full_labels == 300
    assert seen[-1].done == seen[-1].total == 2 * 2 * 3 + 2
    assert [step.done for step in seen] == sorted(step.done for step in seen)


def test_the_result_hangs_neither_on_the_number_of_workers_nor_on_what_was_there_before(small, tmp_path):
    alone = simulate(small(), tmp_path / "alone", workers=1)
    assert learnt(simulate(small(), tmp_path / "three", workers=3)) == learnt(alone)
    assert learnt(simulate(small(), tmp_path / "alone", workers=1)) == learnt(alone)
    assert learnt(simulate(small(), tmp_path / "alone", workers=1, fresh=True)) == learnt(alone)


def test_a_campaign_may_grow_by_rounds_seeds_and_arms_and_is_what_it_would_have_been(small, tmp_path):
    grown = small(rounds=3, seeds=[0, 1], strategies=["random", "kd_gap", "entropy"])
    simulate(small(rounds=2, seeds=[0]), tmp_path / "grown", workers=2)
    before = {path: path.read_text() for path in (tmp_path / "grown").rglob("seed-0.json")}
    result = simulate(grown, tmp_path / "grown", workers=2)
    for path, text in before.items():
        old, new = (json.loads(value)["points"] for value in (text, path.read_text()))
        assert new[: len(old)] == old, "a finished round was computed again"
    assert learnt(result) == learnt(simulate(grown, tmp_path / "at once", workers=2))


def _run_and_be_killed(campaign, folder):
    os.setsid()
    simulate(campaign, folder, workers=2)


def test_a_killed_campaign_goes_on_where_it_was(small, tmp_path):
    campaign = small(rounds=6)
    process = multiprocessing.get_context("spawn").Process(
        target=_run_and_be_killed, args=(campaign, tmp_path / "killed")
    )
    process.start()
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob("seed-*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    kept = {path: json.loads(path.read_text())["points"] for path in (tmp_path / "killed").rglob("seed-*.json")}
    assert sum(map(len, kept.values())) < 6 * 4 + 2, "it was over before it was killed"
    result = simulate(campaign, tmp_path / "killed", workers=2)
    for path, points in kept.items():
        assert json.loads(path.read_text())["points"][: len(points)] == points
    assert learnt(result) == learnt(simulate(campaign, tmp_path / "whole", workers=2))


def test_runs_of_other_settings_are_not_mixed_in(small, tmp_path):
    simulate(small(rounds=1, seeds=[0]), tmp_path, workers=1)
    with pytest.raises(ConfigError, match="--fresh"):
        simulate(small(rounds=1, seeds=[0], budget=11), tmp_path, workers=1)
    simulate(small(rounds=1, seeds=[0], budget=11), tmp_path, workers=1, fresh=True)


def test_a_damaged_journal_is_named(small, tmp_path):
    path = tmp_path / "seed-0.json"
    path.write_text('{"points": [')
    with pytest.raises(ConfigError, match=r"seed-0\.json.*delete"):
        Journal.load(path, "x")


def test_every_arm_of_a_seed_starts_with_the_same_models_and_random_labels(small, tmp_path):
    campaign = small(rounds=1, strategies=["random", "entropy", "margin", {"strategy": "kd_gap", "start": "random"}])
    points = [next(run_arm(setting(campaign), arm, tmp_path / f"{arm.strategy}.json")) for arm in campaign.strategies]
    assert len({point.score for point in points}) == 1


def test_no_image_is_labelled_twice_and_the_annotator_may_run_ahead(small, tmp_path):
    campaign = small(rounds=4, annotator={"ahead": 4})
    plain = small(rounds=4)
    chosen = {}
    for name, one in (("ahead", campaign), ("plain", plain)):
        list(run_arm(setting(one), one.strategies[1], tmp_path / f"{name}.json"))
        chosen[name] = json.loads((tmp_path / f"{name}.json").read_text())["labelled"]
        assert len(set(chosen[name])) == 40
    assert chosen["ahead"][:10] == chosen["plain"][:10]
    assert chosen["ahead"][10:14] != chosen["plain"][10:14]


def test_wrong_labels_are_counted_and_teach_wrong(small, tmp_path):
    training = {"epochs": 20, "min_steps": 150, "device": "cpu"}
    clean, noisy = (
        small(rounds=2, budget=60, training=training),
        small(rounds=2, budget=60, training=training, noise={"kind": "uniform", "rate": 0.6}),
    )
    right = list(run_arm(setting(clean), clean.strategies[1], tmp_path / "right.json"))
    wrong = list(run_arm(setting(noisy), noisy.strategies[1], tmp_path / "wrong.json"))
    assert [point.wrong for point in right] == [0, 0]
    labelled = json.loads((tmp_path / "wrong.json").read_text())["labelled"]
    assert wrong[-1].wrong == setting(noisy).annotator.wrong(np.array(labelled)).sum() > 40
    assert wrong[-1].score < right[-1].score - 0.1
    assert wrong[0].noise_auroc is not None
    assert right[0].noise_auroc is None


def test_the_model_of_every_label_has_them_all(small, tmp_path):
    campaign = small(training={"epochs": 20, "min_steps": 150, "device": "cpu"})
    point = run_every_label(setting(campaign), tmp_path / "full.json")
    assert point.labels == 300
    assert point.score > 0.85
    assert run_every_label(setting(campaign), tmp_path / "full.json") == point


def test_difficulty_is_measured_once_for_all_arms(small, tmp_path):
    campaign = small(rounds=2, noise=NoiseSettings(kind="difficulty", rate=1.0, share=0.3).model_dump())
    results = simulate(campaign, tmp_path, workers=2)
    assert len(list((tmp_path / "runs").glob("difficulty-*.npz"))) == 2
    shares = [run.points[-1].wrong / run.points[-1].labels for run in results.runs if run.arm == "random"]
    assert 0 < np.mean(shares) < 0.6


def test_what_an_interrupted_campaign_has_can_be_collected(small, tmp_path):
    half, whole = small(rounds=2, seeds=[0]), small(rounds=3, seeds=[0, 1])
    assert collect(whole, tmp_path).runs == ()
    simulate(half, tmp_path, workers=2)
    found = collect(whole, tmp_path)
    assert [(run.seed, len(run.points)) for run in found.runs] == [(0, 2), (0, 2)]
    assert set(found.full) == {0}
