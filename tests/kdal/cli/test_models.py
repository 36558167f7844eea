"""`kdal models`, as an owner types it."""

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from kdal.cli.main import app
from kdal.rounds.lineage import CHOSEN
from kdal.rounds.store import RoundStore
from kdal.storage.tables import now
from kdal_core.errors import KdalError
from tests.kdal.conftest import DIGITS_CONFIG, TOKEN

UID = "3.1"
FACTS = {"labels": 50, "pool": 400, "trained_on": 45, "metric": "accuracy", "held_out": 5, "seed": 0}


@pytest.fixture
def home(resources, trained, env):
    """Three rounds with a model; that of round 1 was refused, that of 2 serves."""
    storage = resources.storage
    env.setenv("KDAL_HOME", str(resources.settings.home))
    env.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    storage.put_project(3, UID, DIGITS_CONFIG, {})
    for number in range(3):
        storage.begin_round(3, number, "connect")
        facts = {"promoted": number != 1, "held_out_score": 0.5 + number / 10, "code": "kdal 9", "verdict": "so be it"}
        storage.merge_round(3, number, facts=FACTS | facts | {"weights": {"distilled.safetensors": "a" * 64}})
        storage.update_round(3, number, state="open", opened_at=now(), version=f"kdal-r{number}")
        store = RoundStore(resources.assets, UID, number)
        resources.assets.write(store.key("distilled.safetensors"), trained.checkpoint)
        storage.merge_round(3, number, facts={"weights": {"distilled.safetensors": store.digest(store.served_file)}})
    storage.update_project(3, serving_round=2, version="kdal-r2", connected_at=now())
    return resources


@pytest.fixture
def kdal(env):
    """`kdal("models", "list", ...)` in this process: output, message of the error, exit status as of `main`."""

    def run(*arguments, **variables):
        for name, value in variables.items():
            env.setenv(name, value)
        done = CliRunner().invoke(app, list(arguments))
        error = done.exception if isinstance(done.exception, KdalError) else None
        if done.exception is not None and error is None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return SimpleNamespace(returncode=done.exit_code, stdout=done.stdout, stderr=str(error or done.stderr))

    return run


def test_the_list_shows_each_model_and_which_one_serves(home, kdal):
    shown = kdal("models", "list", "--project", "3").stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "kdal-r0 50 50.0% accuracy on 5" in lines
    assert any(line.startswith("kdal-r1 50 60.0% accuracy on 5 kdal-r0 refused") for line in lines)
    assert "kdal-r2 50 70.0% accuracy on 5 kdal-r0 serves" in lines
    found = json.loads(kdal("models", "list", "--project", "3", "--json").stdout)
    assert [(one["name"], one["parent"], one["serves"]) for one in found] == [
        ("kdal-r0", None, False),
        ("kdal-r1", 0, False),
        ("kdal-r2", 0, True),
    ]


def test_show_says_what_a_model_was_made_from(home, kdal):
    shown = kdal("models", "show", "2", "--project", "3").stdout
    for part in ("serves", "50, trained on 45; 400 tasks without one", "kdal 9", "kdal-r0", "sha256", "so be it"):
        assert part in shown
    assert json.loads(kdal("models", "show", "1", "--project", "3", "--json").stdout)["promoted"] is False
    missing = kdal("models", "show", "9", "--project", "3")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "rounds that have one: 0, 1, 2" in missing.stderr


def test_a_rollback_without_a_worker_waits_for_one_and_says_so(home, kdal):
    done = kdal("models", "rollback", "--project", "3")
    assert done.returncode == 0, done.stderr
    assert "once a worker runs: `kdal worker`" in " ".join(done.stdout.split())
    last = home.storage.last_round(3)
    assert (last.number, last.state, last.facts[CHOSEN], last.trigger) == (3, "computing", 0, "models")
    again = kdal("models", "promote", "1", "--project", "3")
    assert again.returncode == 1
    assert "kdal cancel --project 3" in again.stderr


def test_waiting_ends_with_what_became_of_the_round(home, kdal):
    home.storage.beat("worker-9")
    home.storage.begin_round(3, 3, "models", facts={CHOSEN: 0})
    home.storage.update_round(3, 3, state="cancelled")
    not_waiting = kdal("models", "promote", "1", "--project", "3", "--no-wait")
    assert "Round 4 of project 3 brings kdal-r1 into force" in not_waiting.stdout


def test_prune_says_what_it_deleted(home, kdal):
    assert "Deleted the weights of kdal-r1." in kdal("models", "prune", "--project", "3", "--keep", "1").stdout
    assert "Nothing to delete" in kdal("models", "prune", "--project", "3", "--keep", "1").stdout
    assert "weights deleted" in kdal("models", "list", "--project", "3").stdout


@pytest.mark.parametrize("command", [["list"], ["show", "1"], ["promote", "1"], ["rollback"], ["prune"]])
def test_a_project_that_kdal_does_not_know_is_named_with_those_it_knows(home, kdal, command):
    done = kdal("models", *command, "--project", "8")
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not know project 8; projects that it knows: 3" in done.stderr


def test_where_no_kdal_was_started_nothing_is_made(kdal, tmp_path):
    done = kdal("models", "rollback", "--project", "3", KDAL_HOME=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "no kdal has been started here" in done.stderr
    assert not (tmp_path / "none").exists()


def test_an_export_is_written_and_tells_how_to_try_it(home, kdal, tmp_path):
    done = kdal("models", "export", "--project", "3", "--to", "model")
    assert done.returncode == 0, done.stderr
    assert "Wrote kdal-r2 to model/model.onnx" in done.stdout
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.onnx", "predict.py"]
    home.storage.update_project(3, serving_round=None)
    assert "no model serves yet" in kdal("models", "export", "--project", "3", "--to", "other").stderr


def test_the_list_loads_no_torch(home, loaded_by):
    shown, loaded = loaded_by("models", "list", "--project", "3", KDAL_HOME=str(home.settings.home))
    assert "kdal-r2" in shown
    assert loaded == []
