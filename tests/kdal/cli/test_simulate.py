"""`kdal simulate` as a user starts it: the shipped digits campaign, cut to what CI has time for."""

import json
import os
import subprocess

import pytest
import yaml

from kdal.processes.child import KDAL
from kdal_core.acquisition import strategy_names
from kdal_core.simulation import Results, shipped_campaigns
from kdal_core.simulation.mixup import shipped_grids
from tests.forked import run_kdal


def kdal(*arguments, cwd):
    return run_kdal(*arguments, cwd=cwd, env=os.environ, timeout=550)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The digits campaign with every arm, but one seed and two rounds."""
    folder = tmp_path_factory.mktemp("digits")
    settings = shipped_campaigns()["digits"].model_dump(mode="json")
    settings["training"] = {"epochs": 5, "min_steps": 70}
    (folder / "digits.yaml").write_text(yaml.safe_dump({**settings, "rounds": 2, "seeds": [0], "ensemble": 2}))
    command = [*KDAL, "simulate", "digits.yaml", "--out", "out"]
    return folder, subprocess.run(command, capture_output=True, text=True, timeout=550, cwd=folder, check=False)


def test_the_digits_campaign_runs_every_strategy_and_writes_its_report(digits):
    folder, ended = digits
    assert ended.returncode == 0, ended.stderr
    results = Results.from_json((folder / "out" / "results.json").read_text())
    campaign = shipped_campaigns()["digits"]
    of_classes = set(strategy_names()) - {"ppal"}
    assert len(results.runs) == len(campaign.strategies) >= len(of_classes)
    for run in results.runs:
        assert [point.labels for point in run.points] == [campaign.budget, 2 * campaign.budget]
        assert run.points[-1].score > 0.5, run.arm
    assert results.full[0] > 0.85
    for name in ("summary.json", "table.md", "curves.png", "curves.svg", "index.html"):
        assert (folder / "out" / name).stat().st_size > 500
    page = (folder / "out" / "index.html").read_text()
    assert all(run.arm in page for run in results.runs)
    assert json.loads((folder / "out" / "summary.json").read_text())["headline"] in ended.stdout.replace(
        "\n", " "
    ).replace("  ", " ")
    assert "index.html" in ended.stdout


def test_a_finished_campaign_is_not_computed_again(digits):
    folder, _ = digits
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("seed-0.json")}
    assert kdal("simulate", "digits.yaml", "--out", "out", cwd=folder).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("seed-0.json")} == before


def test_the_list_names_each_shipped_campaign(tmp_path):
    shown = kdal("simulate", "--list", cwd=tmp_path)
    assert shown.returncode == 0
    for name in (*shipped_campaigns(), *shipped_grids()):
        assert name in shown.stdout


def test_a_grid_of_distillations_is_run_and_reported_by_the_same_command(tmp_path):
    short = {"epochs": 1, "batch_size": 16, "min_steps": 5, "max_steps": 5, "device": "cpu"}
    grid = {
        "kind": "mixup_grid",
        "name": "tiny",
        "data": {"name": "digits", "test": 50},
        "student": "tiny_cnn",
        "teacher": {"model": "tiny_cnn", "training": short},
        "training": short,
        "real": [6],
        "mixes": [0, 5],
        "seeds": [0],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(grid))
    ended = kdal("simulate", "tiny.yaml", "--out", "out", "--workers", "1", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "4 of 4 cells" in ended.stdout
    assert (tmp_path / "out" / "table.md").read_text().count("| 6 real |") == 5
    cells = (tmp_path / "out" / "cells.jsonl").read_bytes()
    assert kdal("simulate", "tiny.yaml", "--out", "out", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / "cells.jsonl").read_bytes() == cells


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.yaml"], "no campaign file 'nothing.yaml'"),
        (["mnist", "--data", "nowhere"], "MNIST is not in 'nowhere'"),
        ([], "--list"),
    ],
)
def test_what_cannot_be_run_is_one_sentence_and_no_traceback(arguments, message, tmp_path):
    ended = kdal("simulate", *arguments, cwd=tmp_path)
    assert ended.returncode != 0
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
