import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.errors import AssetError
from kdal_core.models import build_model
from kdal_core.tasks import LaneTask
from kdal_core.training import ModelSpec, TrioSpec, infer, load_checkpoint, save_checkpoint

SPEC = ModelSpec("classification", "small_cnn", ("cat", "dog", "näbb"), (8, 12))
MODEL = build_model("small_cnn", 3, (8, 12), seed=4).eval()
DATA = save_checkpoint(MODEL, SPEC)


def test_a_checkpoint_brings_back_the_model_and_its_spec():
    model, spec = load_checkpoint(DATA)
    images = torch.rand(3, 3, 8, 12)
    assert spec == SPEC
    assert torch.equal(model(images), MODEL(images))
    assert not model.training


def test_saving_again_gives_the_same_bytes():
    assert save_checkpoint(*load_checkpoint(DATA)) == DATA


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, len(DATA) - 1])
def test_a_checkpoint_cut_short_is_refused(length):
    with pytest.raises(AssetError, match="cannot be read"):
        load_checkpoint(DATA[:length])


@given(st.binary(max_size=200))
def test_bytes_that_are_no_checkpoint_are_refused(data):
    with pytest.raises(AssetError):
        load_checkpoint(data)


def test_a_pickle_is_refused_and_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with pytest.raises(AssetError):
        load_checkpoint(pickle.dumps(Bomb()))
    assert not (tmp_path / "ran").exists()


def with_header(data, change):
    """A checkpoint whose spec is changed: `change` takes its fields and gives new ones."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["kdal"] = json.dumps(change(json.loads(header["__metadata__"]["kdal"])))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_a_lane_models_slots_rows_and_columns_are_kept():
    task = LaneTask(("solid", "dashed"), slots=4, rows=20, columns=24)
    spec = TrioSpec("tiny_rows", "mid_rows", (33, 70)).model_spec(task, "student")
    model = task.build("tiny_rows", (33, 70), seed=4)
    images = (torch.rand(9, 3, 33, 70) * 255).to(torch.uint8)
    data = save_checkpoint(model, spec)
    loaded, found = load_checkpoint(data)
    assert found == spec
    assert found.options == {"slots": 4, "rows": 20, "columns": 24}
    assert save_checkpoint(loaded, found) == data
    before, after = infer(task, model, images), infer(task, loaded, images)
    np.testing.assert_array_equal(after.predictions, before.predictions)
    np.testing.assert_array_equal(after.features, before.features)


def test_checkpoints_from_before_there_were_options_still_load():
    old = with_header(DATA, lambda fields: {key: value for key, value in fields.items() if key != "options"})
    assert load_checkpoint(old)[1] == SPEC
    task = LaneTask(("lane",))
    spec = ModelSpec("lanes", "tiny_rows", ("lane",), (32, 64))
    assert load_checkpoint(save_checkpoint(task.build("tiny_rows", (32, 64)), spec))[1] == spec


def test_specs_can_be_told_apart_and_kept_in_sets():
    other = ModelSpec("lanes", "tiny_rows", ("lane",), (32, 64), {"rows": 20})
    assert len({SPEC, SPEC, other, ModelSpec("lanes", "tiny_rows", ("lane",), (32, 64))}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "wide_cnn"},
        {"architecture": "no_such_net"},
        {"kind": "no_such_kind"},
        {"classes": ["cat"]},
        {"classes": 5},
        {"image_size": [8]},
        {"image_size": "8x8"},
        {"options": {"rows": 20}},
        {"options": {"rows": "many"}},
        {"options": 5},
        {"kind": "lanes", "architecture": "tiny_rows", "options": {"slots": 10**9}},
    ],
)
def test_a_header_that_does_not_fit_its_weights_is_refused(change):
    with pytest.raises(AssetError):
        load_checkpoint(with_header(DATA, lambda fields: {**fields, **change}))


def test_a_safetensors_file_of_somebody_else_is_refused():
    from safetensors.torch import save

    with pytest.raises(AssetError):
        load_checkpoint(save({"weight": torch.zeros(2)}))
