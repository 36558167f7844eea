"""A model for other programs answers as kdal does, on files of real photos."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdal.policy import Policy
from kdal.rounds.export import export_model
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import RoundStore
from kdal.storage.tables import now
from kdal.web.service import Service
from kdal_core.errors import AssetError, ConfigError
from kdal_core.models import build_model
from kdal_core.tasks import get_task
from kdal_core.training import ModelSpec, save_checkpoint
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.rounds.test_feature_rounds import PHOTOS, crop, label

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def answers(resources, files, service=None):
    """What /predict says of files: class and confidence."""
    project = resources.storage.project(3)
    tasks = [{"id": i, "data": {"image": address}} for i, address in enumerate(files)]
    found = (service or Service(resources)).predict({"project": project.uid, "tasks": tasks})["results"]
    return [(one["result"][0]["value"]["choices"][0], one["result"][0]["score"]) for one in found]


def by_example(folder, addresses, tmp_path):
    """What the program that was exported says of them, in a process of its own: for each file its lines."""
    paths = []
    for i, address in enumerate(addresses):
        head, _, data = address.partition(",")
        paths.append(str(tmp_path / f"{i}.{'jpg' if 'jpeg' in head else 'png'}"))
        Path(paths[-1]).write_bytes(base64.b64decode(data))
    done = subprocess.run(
        [sys.executable, "predict.py", *paths], cwd=folder, capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["file"] for row in rows} == set(paths)
    return [[{k: v for k, v in row.items() if k != "file"} for row in rows if row["file"] == path] for path in paths]


def test_a_head_on_a_backbone_is_exported_whole_and_answers_as_predict_does(make_loop, tmp_path):
    pictures = [crop(i % 2, i) for i in range(16)]
    policy = dict.fromkeys(("student", "teacher", "epochs", "batch_size"))
    loop = make_loop(
        computes=True, config=PHOTOS, pictures=pictures, budget=4, holdout=0.0, suggest_above=0.0, **policy
    )
    loop.look()
    loop.wait_open(0, looks=3000)  # backbones are loaded
    label(loop, 4)
    opened = loop.wait_open(1)
    assert loop.row.serving_round == 1
    done = export_model(loop.resources, 3, 1, tmp_path / "model")
    assert done.difference <= 1e-4
    about = json.loads((tmp_path / "model" / "model.json").read_text())
    assert about["temperature"] == opened.facts["confidence"]["temperature"] != 1.0
    assert about["weights"] == done.model.weights
    wanted = [*pictures[:6], *[crop(i % 2, 50 + i) for i in range(4)]]
    expected = answers(loop.resources, wanted)
    rows = by_example(tmp_path / "model", wanted, tmp_path)
    found = [max(row.items(), key=lambda item: item[1]) for (row,) in rows]
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-3)
    assert {name for name, _ in found} == {"temple", "flower"}


@pytest.fixture
def project(resources):
    """A project without rounds; `put(number, checkpoint)` gives it a model."""
    resources.storage.put_project(3, "3.1", DIGITS_CONFIG, {})

    def put(number, checkpoint):
        resources.storage.begin_round(3, number, "connect")
        resources.storage.merge_round(3, number, facts={"promoted": True})
        resources.storage.update_round(3, number, state="open", opened_at=now())
        resources.assets.write(RoundStore(resources.assets, "3.1", number).key("distilled.safetensors"), checkpoint)

    return put


def test_what_cannot_be_exported_is_refused_and_leaves_no_folder(resources, project, trained, tmp_path):
    project(0, trained.checkpoint)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(ConfigError, match="not empty"):
        export_model(resources, 3, 0, tmp_path / "full")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        export_model(resources, 3, 0, tmp_path / "file" / "model")
    project(1, trained.checkpoint[:1000])
    with pytest.raises(AssetError, match="cannot be read"):
        export_model(resources, 3, 1, tmp_path / "one")
    lanes = get_task("lanes", ("lane",))
    spec = ModelSpec("lanes", "tiny_rows", ("lane",), (48, 96))
    project(2, save_checkpoint(lanes.build("tiny_rows", (48, 96)), spec))
    with pytest.raises(ConfigError, match="can be exported so far, and this is one of lanes"):
        export_model(resources, 3, 2, tmp_path / "two")
    with pytest.raises(ConfigError, match="round 7 has no model"):
        export_model(resources, 3, 7, tmp_path / "seven")
    assert not any((tmp_path / name).exists() for name in ("one", "two", "seven"))


def test_a_network_of_its_own_is_exported_too(resources, project, tmp_path):
    spec = ModelSpec("classification", "small_cnn", tuple("0123456789"), (8, 8))
    project(0, save_checkpoint(build_model("small_cnn", 10, (8, 8), seed=3), spec))
    assert export_model(resources, 3, 0, tmp_path / "model").difference <= 1e-4


BOXES = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
    '<Label value="cell"/><Label value="dot"/></RectangleLabels></View>'
)


def test_a_detector_is_exported_with_boxes_as_predict_gives_them(resources, tmp_path):
    """One that was never trained finds boxes everywhere, and of them those stay that overlap little."""
    resources.storage.put_project(3, "3.1", BOXES, {"suggest_above": 0.0})
    task = get_task("boxes", ("cell", "dot"))
    torch.manual_seed(0)
    network = task.build("tiny_boxes", (80, 104))
    spec = ModelSpec("boxes", "tiny_boxes", ("cell", "dot"), (80, 104), task.options)
    store = RoundStore(resources.assets, "3.1", 0)
    resources.assets.write(store.key("distilled.safetensors"), save_checkpoint(network, spec))
    Snapshot("3.1", BOXES, Policy(), (80, 104), [], [], [], None).save(store)
    resources.storage.begin_round(3, 0, "connect")
    resources.storage.merge_round(3, 0, facts={"promoted": True})
    resources.storage.update_project(3, serving_round=0)
    assert export_model(resources, 3, 0, tmp_path / "model").difference <= 1e-4
    pictures = [crop(0, 3), crop(1, 4)]
    found = by_example(tmp_path / "model", pictures, tmp_path)
    tasks = [{"id": i, "data": {"image": address}} for i, address in enumerate(pictures)]
    expected = Service(resources).predict({"project": "3.1", "tasks": tasks})["results"]
    for rows, one in zip(found, expected, strict=True):
        regions = one["result"]
        assert len(rows) == len(regions) > 10
        for row, region in zip(rows, regions, strict=True):
            value = region["value"]
            assert [row["class"]] == value["rectanglelabels"]
            assert row["score"] == pytest.approx(region["score"], abs=1e-3)
            left, top, width, height = (value[key] / 100 for key in ("x", "y", "width", "height"))
            wanted = [left * 104, top * 80, (left + width) * 104, (top + height) * 80]
            assert row["box"] == pytest.approx(wanted, abs=0.05)
