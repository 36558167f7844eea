"""A tiny campaign on lanes, from its YAML file to its page."""

import json

import numpy as np
import pytest
import yaml

from kdal_core.errors import ConfigError
from kdal_core.simulation import collect, load_campaign, simulate, write_report
from kdal_core.simulation.annotator import make_annotator
from kdal_core.simulation.datasets import load_split
from kdal_core.simulation.observation import observe, train_models
from kdal_core.simulation.runner import Setting, run_arm, training_setup
from kdal_core.tasks import Lane

NOISE = {"kind": "attribute", "attributes": ["occluded", "worn"], "share": 0.5, "rate": 1.0}
ALL = ["entropy", "least_confidence", "margin", "ensemble", "acd", "learning_loss", "badge", "coreset"]


def setting(campaign, data, seed=0):
    split = load_split(campaign, seed, data)
    annotator = make_annotator(
        campaign.annotator, campaign.noise, split.pool.labels, 1, seed, None, split.pool.attributes
    )
    return Setting(training_setup(campaign, split), split, annotator, seed)


def test_a_campaign_on_lanes_goes_from_its_file_to_its_page(lanes_campaign, roads, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(lanes_campaign(noise=NOISE).model_dump(mode="json")))
    campaign = load_campaign(str(path))
    results = simulate(campaign, tmp_path / "out", data=roads, workers=1)
    assert results.metric == "lane F1"
    assert results.full_labels == 24
    assert [[point.labels for point in run.points] for run in results.runs] == [[4, 8], [4, 8]]
    for run in results.runs:
        assert set(run.points[0].picked) == set(run.points[0].offered) == {"lanes", "occluded", "worn"}
    page = write_report(results, tmp_path / "out").read_text()
    assert "Lane F1" in page
    assert "What the orders look for" in page
    assert collect(campaign, tmp_path / "out").runs == results.runs


@pytest.mark.parametrize("name", ALL)
def test_every_strategy_orders_a_pool_of_lanes(name, lanes_campaign, roads, tmp_path):
    found = setting(lanes_campaign(strategies=["random", name], ensemble=2), roads)
    points = list(run_arm(found, found.setup.campaign.strategies[1], tmp_path / "run.json"))
    assert [point.labels for point in points] == [4, 8]
    labelled = json.loads((tmp_path / "run.json").read_text())["labelled"]
    assert len(set(labelled)) == 8


def test_points_tell_what_was_picked_and_what_the_scores_go_with(lanes_campaign, roads, tmp_path):
    found = setting(lanes_campaign(noise=NOISE), roads)
    first, last = run_arm(found, found.setup.campaign.strategies[1], tmp_path / "run.json")
    labelled, traits = json.loads((tmp_path / "run.json").read_text())["labelled"], found.split.pool.traits
    assert first.picked["lanes"] == pytest.approx(traits["lanes"][labelled[:4]].mean())
    assert first.offered["lanes"] == pytest.approx(traits["lanes"].mean())
    assert last.picked["worn"] == pytest.approx(traits["worn"][labelled[4:]].mean())
    left = np.setdiff1d(np.arange(24), labelled[:4])
    assert last.offered["worn"] == pytest.approx(traits["worn"][left].mean())
    assert set(first.correlations) == {
        *("entropy", "entropy of lanes", "D_SS + D_ST", "Uncr, published", "Uncr, four cases", "min(D_SS, D_ST)")
    }
    assert {"lanes", "worn", "wrong label"} <= set(first.correlations["entropy"])
    assert last.correlations == {}
    wrong = found.annotator.wrong(np.array(labelled))
    assert (first.wrong, last.wrong) == (wrong[:4].sum(), wrong.sum())
    assert last.wrong > 0


def test_what_a_shorter_campaign_left_unmeasured_is_measured_when_it_grows(lanes_campaign, roads, tmp_path):
    short, long = (lanes_campaign(noise=NOISE, rounds=rounds) for rounds in (1, 2))
    arm = short.strategies[1]
    (alone,) = run_arm(setting(short, roads), arm, tmp_path / "run.json")
    assert alone.correlations == {}
    list(run_arm(setting(long, roads), arm, tmp_path / "run.json"))
    grown = json.loads((tmp_path / "run.json").read_text())["points"]
    at_once = list(run_arm(setting(long, roads), arm, tmp_path / "other.json"))
    for name in ("correlations", "noise_auroc", "picked", "score"):
        assert [point[name] for point in grown] == [getattr(point, name) for point in at_once]


def test_arms_of_a_seed_get_the_same_labels_and_the_held_out_images_the_right_ones(lanes_campaign, roads):
    first, second = (setting(lanes_campaign(noise=NOISE), roads) for _ in range(2))
    assert [len(lanes) for lanes in first.annotator.labels] == [len(lanes) for lanes in second.annotator.labels]
    assert first.annotator.mistaken.tolist() == second.annotator.mistaken.tolist()
    assert 0 < first.annotator.mistaken.mean() < 1
    assert all(isinstance(lane, Lane) for lanes in first.split.held_out.labels for lane in lanes)


def test_an_ensemble_is_seen_as_members_of_half_precision(lanes_campaign, roads):
    found = setting(lanes_campaign(ensemble=3, strategies=["random", "ensemble"]), roads)
    setup, pool = found.setup, found.split.pool
    config = setup.campaign.train_config(0)
    models = train_models(setup, pool.images[:8], pool.labels[:8].tolist(), config, frozenset({"ensemble"}))
    seen = observe(setup, models, pool.images[8:], pool.images[:8], frozenset({"ensemble"}), seed=0, budget=4)
    assert [member.shape for member in seen.ensemble] == [(16, 8, 36, 65)] * 3
    assert {member.dtype for member in seen.ensemble} == {np.dtype(np.float16)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": {"kind": "difficulty", "rate": 1.0}}, "difficulty, which task: lanes"),
        ({"noise": {"kind": "attribute", "rate": 1.0}}, "must name what"),
        ({"noise": {"kind": "uniform", "rate": 0.1, "attributes": ["worn"]}}, "must name what"),
        ({"noise": {"kind": "uniform", "rate": 0.1, "ways": ["smudged"]}}, "noise.ways"),
        ({"noise": {"kind": "uniform", "rate": 0.1, "ways": []}}, "noise.ways"),
        ({"strategies": ["random", "bald"]}, "bald asks a network many times with dropout"),
        ({"task": "classification", "noise": NOISE}, "attribute, which task: classification"),
        ({"task": "keypoints"}, "task"),
    ],
)
def test_what_lanes_have_no_meaning_for_is_refused_by_name(change, message, lanes_campaign):
    with pytest.raises(ConfigError, match=message):
        lanes_campaign(**change)


def test_noise_bound_to_what_the_data_does_not_say_is_refused_before_anything_is_trained(
    lanes_campaign, roads, tmp_path
):
    campaign = lanes_campaign(noise={**NOISE, "attributes": ["rusty"]})
    with pytest.raises(ConfigError, match="no 'rusty' for each of its lanes; it has occluded, worn"):
        simulate(campaign, tmp_path, data=roads, workers=1)
    assert not (tmp_path / "runs").exists()
