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
from kdal_core.simulation.runner import RunState, Setting, run_arm, run_every_label, training_setup


def learnt(results):
    """What a campaign says about learning: everything but the time it took to compute."""
    return [
        (run.arm, run.seed, [replace(point, compute_seconds=0.0) for point in run.points]) for run in results.runs
    ], results.full


def setting(campaign, seed=0):
    split = load_split(campaign, seed)
    annotator = make_annotator(campaign.annotator, campaign.noise, split.pool.labels, 10, seed)
    return Setting(training_setup(campaign, split), split, annotator, seed)


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


def test_the_result_depends_neither_on_the_number_of_workers_nor_on_what_was_there_before(small, tmp_path):
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
        for ours, theirs in zip(new, old, strict=False):
            if theirs is old[-1]:  # the last round of all trained one model; the others' scores come beside its own
                ours["scores"] = {model: ours["scores"][model] for model in theirs["scores"]}
        assert new[: len(old)] == old, "a finished round was computed again"
    assert learnt(result) == learnt(simulate(grown, tmp_path / "at once", workers=2))


SERVED = {"strategy": "kd_gap", "scored": "distilled", "label": "served"}
LABELS_ALONE = {"strategy": "kd_gap", "scored": "student", "label": "labels alone"}


def test_arms_that_differ_in_the_scored_model_alone_share_their_runs(small, tmp_path):
    both = simulate(small(seeds=[0], strategies=["random", SERVED, LABELS_ALONE]), tmp_path / "both", workers=2)
    assert len(list((tmp_path / "both" / "runs").iterdir())) == 3, "random, one for both, every label"
    apart = []
    for arm in (SERVED, LABELS_ALONE):
        alone = simulate(small(seeds=[0], strategies=["random", arm]), tmp_path / arm["label"], workers=2)
        apart += [run for run in alone.runs if run.arm == arm["label"]]
    shared = [run for run in both.runs if run.arm != "random"]
    assert [run.arm for run in shared] == ["served", "labels alone"]
    for ours, theirs in zip(shared, apart, strict=True):
        assert [(point.labels, point.score) for point in ours.points] == [
            (point.labels, point.score) for point in theirs.points
        ]
    assert shared[0].points != shared[1].points
    for point in shared[1].points:
        assert point.score == point.scores["student"]
        assert set(point.scores) == {"student", "teacher", "distilled"}


@pytest.mark.parametrize("ahead", [0, 3])
def test_an_arm_that_is_added_finds_its_model_scored_in_what_was_run_before(small, tmp_path, ahead):
    changes = {"seeds": [0], "annotator": {"ahead": ahead}}
    simulate(small(strategies=["random", SERVED], rounds=2, **changes), tmp_path / "grown", workers=2)
    more = small(strategies=["random", SERVED, LABELS_ALONE], **changes)
    grown = simulate(more, tmp_path / "grown", workers=2)
    assert learnt(grown) == learnt(simulate(more, tmp_path / "at once", workers=2))


def test_strategies_that_read_the_scored_model_do_not_share_runs(small):
    arms = [{"strategy": "entropy", "scored": model, "label": model} for model in ("distilled", "student")]
    campaign = small(strategies=["random", *arms])
    assert [campaign.together(arm) for arm in campaign.strategies] == [(arm,) for arm in campaign.strategies]


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
        RunState.load(path, "x")


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
