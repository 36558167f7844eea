import pickle

import numpy as np
import pytest
import torch

from kdal_core.distillation import RecordedTeacher, image_key, record_answers
from kdal_core.errors import AssetError, TeacherError

CLASSES = ("cat", "dog", "näbb")
IMAGES = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
ANSWERS = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8], [0.0, 0.5, 0.5]])
KEYS = [image_key(image) for image in IMAGES]


@pytest.fixture(params=[".safetensors", ".npz"])
def path(request, tmp_path):
    return tmp_path / f"teacher{request.param}"


def test_what_was_recorded_is_answered_by_the_images_content(path):
    record_answers(path, KEYS, ANSWERS, CLASSES)
    teacher = RecordedTeacher(path)
    assert teacher.classes == CLASSES
    assert len(teacher) == 4
    chosen = torch.tensor([2, 0, 2])
    assert torch.equal(teacher.query(IMAGES[chosen]), ANSWERS[chosen])


def test_an_image_that_was_not_recorded_is_an_error_that_costs_nothing(path):
    record_answers(path, KEYS[:3], ANSWERS[:3], CLASSES)
    with pytest.raises(TeacherError, match="1 of 4 images are not among the 3 recorded") as caught:
        RecordedTeacher(path).query(IMAGES)
    assert not caught.value.charged


def test_only_probabilities_are_recorded(path):
    with pytest.raises(TeacherError, match="logits"):
        record_answers(path, KEYS, 10 * ANSWERS - 3, CLASSES)
    assert not path.exists()


def test_a_recording_of_logits_is_refused(path):
    record_answers(path, KEYS, ANSWERS, CLASSES)
    digests = np.frombuffer(bytes.fromhex("".join(KEYS)), dtype=np.uint8).reshape(-1, 32)
    np.savez(path.with_suffix(".npz"), keys=digests, probabilities=9 * ANSWERS.numpy(), classes=np.array(CLASSES))
    with pytest.raises(AssetError, match="no answers of a teacher"):
        RecordedTeacher(path.with_suffix(".npz"))


@pytest.mark.parametrize("cut", [0, 7, 40, 200])
def test_a_damaged_file_is_refused(path, cut):
    record_answers(path, KEYS, ANSWERS, CLASSES)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(AssetError, match="cannot be read"):
        RecordedTeacher(path)


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "teacher.npz"
    np.savez(path, keys=np.array([{"a": 1}], dtype=object), probabilities=ANSWERS.numpy(), classes=np.array(CLASSES))
    with pytest.raises(AssetError, match="cannot be read"):
        RecordedTeacher(path)
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(AssetError, match="cannot be read"):
        RecordedTeacher(path)


def test_a_missing_file_and_another_ending_are_said_in_words(tmp_path):
    with pytest.raises(AssetError, match="cannot be read"):
        RecordedTeacher(tmp_path / "nothing.npz")
    with pytest.raises(AssetError, match=r"ends in \.safetensors or \.npz"):
        record_answers(tmp_path / "teacher.csv", KEYS, ANSWERS, CLASSES)
