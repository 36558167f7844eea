import pytest
import yaml

from kdal_core.acquisition import strategy, strategy_names
from kdal_core.errors import ConfigError
from kdal_core.simulation import Campaign, load_campaign, shipped_campaigns
from kdal_core.simulation.campaign import OF_BOXES

PLAIN = {"name": "x", "data": {"name": "digits"}, "budget": 5, "rounds": 2, "strategies": ["random"]}


def test_every_shipped_campaign_can_be_loaded_by_its_name_and_says_what_it_is():
    campaigns = shipped_campaigns()
    assert {"digits", "mnist", "fashion_mnist"} <= set(campaigns)
    for name, campaign in campaigns.items():
        assert load_campaign(name) == campaign
        assert campaign.description
        assert campaign.score_on == "test"


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist"])
def test_the_shipped_campaigns_run_every_strategy_there_is_for_classes(name):
    known = {name for name in strategy_names() if not strategy(name).needs & OF_BOXES}
    assert {arm.strategy for arm in shipped_campaigns()[name].strategies} == known


def test_a_strategy_that_compares_boxes_is_refused_where_there_are_none():
    with pytest.raises(ConfigError, match="ppal compares the boxes of images"):
        Campaign.parse({**PLAIN, "strategies": ["random", "ppal"]})


def test_a_file_is_read_as_a_campaign(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, "strategies": ["random", {"strategy": "kd_gap", "parameters": {"k": 3}}]}))
    campaign = load_campaign(str(path))
    assert [arm.name for arm in campaign.strategies] == ["random", "kd_gap (k=3)"]
    assert campaign.strategies[1].bound().parameters == {"k": 3}
    assert [campaign.labels_after(number) for number in range(2)] == [5, 10]


def test_kdal_starts_with_its_cold_start_and_a_rival_as_its_paper_does():
    starts = {arm.strategy: arm.first for arm in shipped_campaigns()["digits"].strategies if arm.start is None}
    assert starts["kd_gap"] == "cold_start"
    assert starts["typiclust"] == starts["probcover"] == starts["coreset"] == "own"
    assert starts["random"] == "own"
    assert starts["entropy"] == starts["badge"] == "random"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgett": 5}, "budgett"),
        ({"budget": 0}, "budget"),
        ({"strategies": []}, "at least one"),
        ({"strategies": ["random", "random"]}, "distinct"),
        ({"strategies": ["entropy"]}, "baseline"),
        ({"strategies": ["random", "oracle"]}, "oracle"),
        ({"strategies": ["random", {"strategy": "kd_gap", "parameters": {"gamma": 1}}]}, "gamma"),
        ({"strategies": ["random", {"strategy": "entropy", "start": "own"}]}, "cannot start by itself"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"score_on": "validation"}, "validation"),
        ({"training": {"epoch": 3}}, "epoch"),
        ({"training": {"lr": -1}}, "lr"),
        ({"noise": {"kind": "uniform", "rate": 1.5}}, "noise.rate"),
        ({"annotator": {"ahead": 6}}, "ahead"),
        ({"name": "../x"}, "name"),
    ],
)
def test_a_campaign_that_cannot_be_meant_is_refused_by_name(change, message, tmp_path):
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **change}))
    with pytest.raises(ConfigError, match=message):
        load_campaign(str(path))


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "", "\x00"])
def test_a_file_that_is_no_campaign_is_refused(text, tmp_path):
    path = tmp_path / "campaign.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="campaign"):
        load_campaign(str(path))


def test_an_unknown_name_is_refused_with_the_shipped_ones():
    with pytest.raises(ConfigError, match=r"mnist-2.*digits"):
        load_campaign("mnist-2")
