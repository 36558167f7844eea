import json
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.errors import AssetError
from kdal_core.models import build_model
from kdal_core.training import ModelSpec, load_checkpoint, save_checkpoint

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
    ],
)
def test_a_header_that_does_not_fit_its_weights_is_refused(change):
    length = int.from_bytes(DATA[:8], "little")
    header = json.loads(DATA[8 : 8 + length])
    header["__metadata__"]["kdal"] = json.dumps({**json.loads(header["__metadata__"]["kdal"]), **change})
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with pytest.raises(AssetError):
        load_checkpoint(len(text).to_bytes(8, "little") + text + DATA[8 + length :])


def test_a_safetensors_file_of_somebody_else_is_refused():
    from safetensors.torch import save

    with pytest.raises(AssetError):
        load_checkpoint(save({"weight": torch.zeros(2)}))
