"""`kdal distill` as a user starts it, with a checkpoint as the teacher and with one behind a real HTTP server."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from kdal.storage.assets import Assets
from kdal.storage.database import Storage
from kdal.teachers import open_ledger, open_teacher, parse_teacher
from kdal_core.training import load_checkpoint
from tests.forked import ForkedKdal
from tests.kdal.teachers.conftest import Endpoint, pictures
from tests.paths import PYTHONPATH

QUICK = {"epochs": 1, "min_steps": 20, "batch_size": 16, "max_steps": 20, "augment": False}


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KDAL_", "AWS_", "LABEL_"))}
    return kept | {"PYTHONPATH": PYTHONPATH, "COLUMNS": "200"}


def start(folder, *arguments):
    return ForkedKdal("distill", *arguments, cwd=folder, env=environment())


def kdal(folder, *arguments):
    child = start(folder, *arguments)
    out, errors = child.communicate(timeout=580)
    return child.returncode, out, errors


def write(folder, **plan):
    (folder / "distill.yaml").write_text(yaml.safe_dump(plan))


# ---------------------------------------------------------------------- a checkpoint as the teacher


@pytest.fixture(scope="module")
def digits(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distill")
    (folder / "teacher.safetensors").write_bytes(trained.checkpoint)
    write(
        folder,
        name="digits",
        data={"name": "digits", "count": 60, "test": 200},
        teacher={"kind": "checkpoint", "path": "teacher.safetensors"},
        student="tiny_cnn",
        budget=160,
        price=0.01,
        currency="EUR",
        mixup={"stages": 2},
        training=QUICK | {"min_steps": 60, "max_steps": 60},
    )
    command = [sys.executable, "-m", "kdal", "distill", "distill.yaml", "--out", "out"]
    ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=580)
    return folder, (ended.returncode, ended.stdout, ended.stderr)


def test_a_distillation_spends_its_budget_and_writes_student_report_and_figures(digits):
    folder, (status, out, errors) = digits
    assert status == 0, errors
    found = json.loads((folder / "out" / "summary.json").read_text())
    assert (found["queries"], found["budget"], found["cost"]) == (160, 160, 1.6)
    assert [stage["images"] for stage in found["stages"]] == [60, 110, 160]
    assert 0.1 < found["accuracy"] <= 1
    assert found["success_rate"] == pytest.approx(found["accuracy"] / found["teacher_accuracy"])
    assert found["headline"] in " ".join(out.split())
    page = html.unescape((folder / "out" / "index.html").read_text())
    assert found["headline"] in page
    assert page.count('class="mix"') == 16  # eight mixes of each stage
    assert "1.60 EUR" in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert (folder / "out" / "curve.png").stat().st_size > 5000


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_the_student_is_a_checkpoint_like_any_other_and_the_figures_are_its_own(digits):
    folder, _ = digits
    data = (folder / "out" / "student.safetensors").read_bytes()
    student, spec = load_checkpoint(data)
    assert (spec.kind, spec.architecture, spec.image_size, spec.classes) == (
        "classification", "tiny_cnn", (8, 8), tuple("0123456789"),
    )  # fmt: skip
    assets = Assets(str(folder / ".kdal" / "assets"))
    assert assets.read("models/digits/student.safetensors") == data
    card = assets.read_json("models/digits/card.json")
    assert card["accuracy"] == json.loads((folder / "out" / "summary.json").read_text())["accuracy"]
    mixes = assets.read_arrays("models/digits/mixes.npz")
    assert mixes["pairs"].shape == (100, 2)
    assert np.allclose(mixes["probabilities"].sum(axis=1), 1, atol=1e-5)
    assert len(np.unique(mixes["pairs"], axis=0)) == 100
    assert torch.jit.load(str(folder / "out" / "student.torchscript.pt")) is not None
    assert sum(parameter.numel() for parameter in student.parameters()) == card["parameters"]


def test_a_finished_distillation_is_not_computed_again_and_a_fresh_one_asks_nothing_and_comes_to_the_same(digits):
    folder, _ = digits
    out = folder / "out"
    student, stage = (out / "student.safetensors").read_bytes(), out / "stages" / "0002.safetensors"
    before = stage.stat().st_mtime_ns
    assert kdal(folder, "distill.yaml", "--out", "out")[0] == 0
    assert stage.stat().st_mtime_ns == before
    status, _, errors = kdal(folder, "distill.yaml", "--out", "out", "--fresh")
    assert status == 0, errors
    assert stage.stat().st_mtime_ns > before
    assert json.loads((out / "summary.json").read_text())["queries"] == 160
    assert (out / "student.safetensors").read_bytes() == student


def test_other_settings_in_the_same_folder_are_refused(digits):
    folder, _ = digits
    plan = yaml.safe_load((folder / "distill.yaml").read_text())
    (folder / "other.yaml").write_text(yaml.safe_dump({**plan, "seed": 5}))
    status, _, errors = kdal(folder, "other.yaml", "--out", "out")
    assert status == 1
    assert "other settings" in errors
    assert "Traceback" not in errors


# ---------------------------------------------------------------------- a teacher over the wire


@pytest.fixture
def remote(tmp_path):
    """A folder with 40 images and a plan whose teacher is a server; the server."""
    server = Endpoint(tmp_path)
    (tmp_path / "data").mkdir()
    for number, image in enumerate(pictures(40, start=100, size=(8, 8))):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "data" / f"{number:02}.png")
    plan = {
        "name": "remote",
        "data": {"name": "images"},
        "teacher": server.settings(batch_size=5, workers=2),
        "student": "tiny_cnn",
        "budget": 140,
        "mixup": {"stages": 2},
        "training": QUICK,
        "exports": [],
    }
    write(tmp_path, **plan)
    yield tmp_path, server, plan
    server.kill()


def account(folder, plan):
    """Images counted, images answered, as the store has them."""
    storage = Storage(f"sqlite:///{folder}/.kdal/kdal.sqlite")
    teacher = parse_teacher(plan["teacher"])
    ledger = open_ledger(storage, "distill/remote", open_teacher(teacher), teacher.identity("http"))
    found = ledger.account().images, ledger.answered()
    storage.close()
    return found


def test_a_run_killed_in_mid_query_goes_on_where_it_was_and_never_exceeds_its_budget(remote):
    folder, server, plan = remote
    server.behave(seconds=0.2)
    child = start(folder, "distill.yaml", "--out", "out")
    while len(server.asked) < 60:  # the real images are done, the first mixes under way
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    counted, answered = account(folder, plan)
    assert answered <= len(server.asked) <= counted <= answered + 10
    server.behave()
    status, _, errors = kdal(folder, "distill.yaml", "--out", "out")
    assert status == 0, errors
    counted, answered = account(folder, plan)
    assert len(server.asked) <= counted <= 140
    assert counted - answered <= 10
    found = json.loads((folder / "out" / "summary.json").read_text())
    assert found["queries"] == counted
    assert [stage["number"] for stage in found["stages"]] == [0, 1, 2]
    assert found["accuracy"] is None


def test_a_teacher_that_fails_is_one_sentence_and_the_same_command_goes_on(remote):
    folder, server, plan = remote
    server.behave(answer="logits")
    status, _, errors = kdal(folder, "distill.yaml", "--out", "out")
    assert status == 1
    assert "look like logits" in errors
    assert "Traceback" not in errors
    assert account(folder, plan) == (len(server.asked), 0)
    server.behave()
    status, _, errors = kdal(folder, "distill.yaml", "--out", "out")
    assert status == 0, errors
    assert "have no answer" in (folder / "out" / "index.html").read_text()
    assert len(server.asked) == account(folder, plan)[0] <= 140


# ---------------------------------------------------------------------- refused before a query


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 30}, "exceed the teacher's budget"),
        ({"data": {"name": "images", "count": 50}}, "asks for 50 images"),
        ({"data": {"name": "images", "root": "nowhere"}}, "holds 0 image files"),
        ({"data": {"name": "nothing"}}, "no images called 'nothing'"),
        ({"student": "no_such_net"}, "no_such_net"),
        ({"data": {"name": "digits"}}, "of the classes 0, 1"),
    ],
)
def test_what_cannot_work_is_said_before_a_single_query(remote, change, message):
    folder, server, plan = remote
    write(folder, **{**plan, **change})
    status, _, errors = kdal(folder, "distill.yaml", "--out", "out")
    assert status == 1
    assert message in errors
    assert "Traceback" not in errors
    assert server.requests == []


def test_images_of_two_sizes_or_grey_among_colours_are_said_before_a_single_query(remote):
    folder, server, _ = remote
    Image.new("RGB", (9, 8), "red").save(folder / "data" / "odd.png")
    status, _, errors = kdal(folder, "distill.yaml")
    assert status == 1
    assert "2 sizes, from 8 x 8 to 9 x 8 pixels" in errors
    Image.new("L", (8, 8), 7).save(folder / "data" / "odd.png")
    status, _, errors = kdal(folder, "distill.yaml")
    assert status == 1
    assert "grey" in errors
    assert server.requests == []
