import numpy as np
import pytest

from kdal.distill.journal import StageRecord, Stages
from kdal_core.distillation import MixupSelection
from kdal_core.errors import ConfigError


def record(number, accuracy=0.5):
    return StageRecord(number, 10 * number, 0.5, 20 * number, accuracy, 1.5, 0.25)


def mixes(number):
    return MixupSelection(np.array([[0, number]]), np.array([0.3]), np.array([0.125 * number]))


@pytest.fixture
def journal(tmp_path):
    found = Stages.load(tmp_path, "f").with_stage(record(0), None, b"zero")
    return found.with_stage(record(1), mixes(1), b"one").with_stage(record(2), mixes(2), b"two")


def test_stages_mixes_and_student_come_back(journal, tmp_path):
    found = Stages.load(tmp_path, "f")
    assert found == journal
    assert found.student() == b"two"
    assert [selection.pairs.tolist() for selection in found.selections()] == [[[0, 1]], [[0, 2]]]
    assert [selection.confidence.tolist() for selection in found.selections()] == [[0.125], [0.25]]
    assert not found.trained
    assert Stages.load(tmp_path, "f").finished() == Stages.load(tmp_path, "f")


def test_an_empty_folder_is_the_start(tmp_path):
    found = Stages.load(tmp_path, "f")
    assert (found.stages, found.trained, found.selections()) == ((), False, [])


def test_a_stage_that_is_trained_again_takes_the_place_of_the_old_one_and_of_all_behind_it(journal, tmp_path):
    journal.with_stage(record(1, accuracy=0.75), mixes(5), b"new")
    found = Stages.load(tmp_path, "f")
    assert [(stage.number, stage.accuracy) for stage in found.stages] == [(0, 0.5), (1, 0.75)]
    assert [selection.pairs.tolist() for selection in found.selections()] == [[[0, 5]]]
    assert found.student() == b"new"


def test_other_settings_are_refused_in_words(journal, tmp_path):
    with pytest.raises(ConfigError, match=r"other settings.*--fresh: answers that were paid for stay"):
        Stages.load(tmp_path, "g")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"fingerprint": "f"}', '{"fingerprint": "f", "stages": [{}], "trained": 1}']
)
def test_a_damaged_journal_is_refused_in_words(tmp_path, text):
    (tmp_path / "journal.json").write_text(text)
    with pytest.raises(ConfigError, match=r"damaged.*--fresh"):
        Stages.load(tmp_path, "f")


def test_damaged_or_missing_mixes_are_refused_in_words(journal, tmp_path):
    path = tmp_path / "stages" / "0001.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ConfigError, match="--fresh"):
        journal.selections()
    path.unlink()
    with pytest.raises(ConfigError, match="--fresh"):
        journal.selections()
