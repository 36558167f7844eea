"""Exports, read by other programs' own means: the test does not trust the check that is made when they are written."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kdal.distill.export import TOLERANCE, ExportError, available, check_available, export
from kdal_core.models import Network, build_model

CLASSES = ("cat", "dog", "näbb")
IMAGES = torch.randint(0, 256, (9, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def by_onnx(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, found.name) == ("images", "tensor(float)", "probabilities")
    names = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    return session.run(None, {"images": images.numpy()})[0], names["classes.json"]


def by_torch_export(path, images):
    extra = {"classes.json": ""}
    program = torch.export.load(path, extra_files=extra)
    return program.module()(images).detach().numpy(), extra["classes.json"]


def by_torchscript(path, images):
    extra = {"classes.json": ""}
    program = torch.jit.load(str(path), _extra_files=extra)
    names = extra["classes.json"]
    return program(images).detach().numpy(), names.decode() if isinstance(names, bytes) else names


READERS = {"onnx": by_onnx, "torch_export": by_torch_export, "torchscript": by_torchscript}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", list(READERS))
@pytest.mark.parametrize("network", ["small_cnn", "lenet5"])
def test_a_student_answers_the_same_in_every_form_for_any_number_of_images(kind, network, tmp_path):
    student = build_model(network, 3, (28, 28), seed=1).eval()
    (written,) = export(student, CLASSES, IMAGES, tmp_path, [kind])
    for count in (1, 2, 9):
        floats = IMAGES[:count].float() / 255
        answers, classes = READERS[kind](written.path, floats)
        with torch.inference_mode():
            expected = student(floats).softmax(1).numpy()
        assert np.abs(answers - expected).max() <= TOLERANCE
        assert json.loads(classes) == list(CLASSES)
    assert written.size == written.path.stat().st_size
    assert written.difference <= TOLERANCE


class Forgetful(Network):
    """Answers what it answered when it was traced: the number of images, too, is built in."""

    def forward_with_features(self, images):
        constant = torch.tensor(np.ones((len(images), 3), np.float32))
        return constant, constant


class Moody(Network):
    """What it answers depends on a branch that tracing freezes."""

    def forward_with_features(self, images):
        found = torch.ones(len(images), 3)
        if len(images) == 2:
            found[:, 0] = 5.0
        return found, found


@pytest.mark.parametrize("student", [Forgetful(), Moody()])
def test_a_form_that_answers_differently_is_refused_and_not_kept(student, tmp_path):
    with pytest.raises(ExportError, match=r"answers differently as torchscript|cannot be written as torchscript"):
        export(student.eval(), CLASSES, IMAGES, tmp_path, ["torchscript"])
    assert not (tmp_path / "student.torchscript.pt").exists()


def test_all_forms_are_at_hand_where_the_extra_is_installed():
    assert available() == ("onnx", "torch_export", "torchscript")
    check_available(available())
