"""The ledger in the tables, held against a count that the teacher keeps for itself in a file."""

import os
import time

import numpy as np
import pytest
import torch
from torch import nn

from kdal.storage.database import Storage
from kdal.teachers.ledger import open_ledger
from kdal_core.distillation import Account, QueryLedger, RequestPolicy, TorchTeacher, ask, unasked
from kdal_core.errors import BudgetExceeded, ConfigError
from tests.forked import FORKED

TEACHER = TorchTeacher(nn.Flatten(), ("cat", "dog", "näbb"), device="cpu")


class Slow:
    """Answers after some seconds, and notes each image that it has worked on in a file."""

    classes = TEACHER.classes

    def __init__(self, seconds):
        self.seconds = seconds

    def query(self, images):
        file = os.open("asked", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, bytes(images[:, 0, 0, 0].tolist()))
        os.close(file)
        time.sleep(self.seconds)
        share = images[:, 0, 0, 0].float() / 256
        return torch.stack([share, 1 - share, 0 * share], dim=1)


def run_asker(parent, url, cwd, start, count, budget, workers, seconds):
    """What a process does: says when it has opened the ledger, waits, asks, says how that went."""
    os.chdir(cwd)
    images, teacher = pictures(count, start), Slow(seconds)
    ledger = QueryLedger(budget, store=open_ledger(Storage(url), "a", teacher, "test"))
    parent.send("ready")
    parent.recv()
    try:
        answers = ask(teacher, images, ledger, manner=RequestPolicy(batch_size=4, workers=workers))
    except BudgetExceeded:
        parent.send("refused")
    else:
        parent.send("right" if (answers[:, 0] * 256 == images[:, 0, 0, 0]).all() else "wrong")


class Asker:
    """A process that has opened the ledger, and asks as soon as it is told to."""

    def __init__(self, url, cwd, *, start=0, count=100, budget=100, workers=1, seconds=0.0):
        self._pipe, theirs = FORKED.Pipe()
        arguments = (theirs, url, cwd, start, count, budget, workers, seconds)
        self._process = FORKED.Process(target=run_asker, args=arguments)
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "ready"

    def go(self):
        self._pipe.send("go")

    def end(self):
        """How it went, once the process has ended by itself."""
        said = self._pipe.recv()
        self._process.join(60)
        assert self._process.exitcode == 0
        self._pipe.close()
        return said

    def kill(self):
        self._process.kill()
        self._process.join()
        self._pipe.close()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/kdal.sqlite"


@pytest.fixture
def storage(url):
    opened = Storage(url)
    yield opened
    opened.close()


def answer(*values):
    return np.array(values, dtype=np.float32)


def asked(folder):
    """Numbers of the images that reached the teacher, each as often as it did."""
    path = folder / "asked"
    return list(path.read_bytes()) if path.exists() else []


def pictures(count, start=0):
    images = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(start, start + count)
    return images


# ---------------------------------------------------------------------- one process


def test_answers_and_account_outlive_the_process(storage, url):
    ledger = open_ledger(storage, "a", TEACHER, "test")
    assert ledger.reserve(3, 70, 10, 1000)
    ledger.record({"x": answer(0.25, 0.5, 0.25), "y": answer(1 / 3, 1 / 3, 1 / 3)})
    other = Storage(url)
    again = open_ledger(other, "a", TEACHER, "test")
    assert again.account() == Account(3, 70)
    assert again.answered() == 2
    found = again.read(["y", "z", "x"])
    assert sorted(found) == ["x", "y"]
    assert np.array_equal(found["y"], answer(1 / 3, 1 / 3, 1 / 3))
    other.close()


def test_neither_images_nor_money_exceed_their_limit(storage):
    ledger = open_ledger(storage, "a", TEACHER, "test")
    assert ledger.reserve(6, 60, 10, 100)
    assert not ledger.reserve(5, 0, 10, 100)
    assert not ledger.reserve(1, 41, 10, 100)
    assert ledger.account() == Account(6, 60)
    assert ledger.reserve(4, 40, 10, 100)
    assert ledger.reserve(0, 10**15, 10, None)


def test_what_is_released_may_be_reserved_again(storage):
    ledger = open_ledger(storage, "a", TEACHER, "test")
    ledger.reserve(10, 100, 10, 100)
    ledger.release(4, 40)
    assert ledger.account() == Account(6, 60)
    assert ledger.reserve(4, 40, 10, 100)


def test_of_two_answers_for_an_image_the_first_stays(storage):
    ledger = open_ledger(storage, "a", TEACHER, "test")
    ledger.record({"x": answer(1, 0, 0)})
    ledger.record({"x": answer(0, 1, 0), "y": answer(0, 0, 1)})
    assert ledger.read(["x"])["x"].tolist() == [1, 0, 0]
    assert ledger.answered() == 2


def test_thousands_of_answers_are_written_and_read(storage):
    ledger = open_ledger(storage, "a", TEACHER, "test")
    answers = {str(number): answer(number, 0, 0) for number in range(2345)}
    ledger.record(answers)
    found = ledger.read(list(answers))
    assert {key: row[0] for key, row in found.items()} == {key: row[0] for key, row in answers.items()}
    assert ledger.read([]) == {}
    ledger.record({})


def test_accounts_of_two_names_know_nothing_of_each_other(storage):
    first, second = open_ledger(storage, "a", TEACHER, "test"), open_ledger(storage, "b", TEACHER, "test")
    first.reserve(5, 0, 10, None)
    first.record({"x": answer(1, 0, 0)})
    assert second.account() == Account(0, 0)
    assert second.read(["x"]) == {}


def test_a_ledger_is_never_shared_by_two_teachers(storage):
    open_ledger(storage, "a", TEACHER, "http https://one")
    with pytest.raises(ConfigError, match=r"belongs to another teacher \(http https://one.*another name"):
        open_ledger(storage, "a", TEACHER, "http https://two")
    two_classes = TorchTeacher(nn.Flatten(), ("cat", "dog"), device="cpu")
    with pytest.raises(ConfigError, match="belongs to another teacher"):
        open_ledger(storage, "a", two_classes, "http https://one")


def test_a_budget_that_was_raised_is_the_budget(storage):
    teacher = TorchTeacher(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), TEACHER.classes, device="cpu")
    store = open_ledger(storage, "a", teacher, "test")
    ask(teacher, pictures(5), QueryLedger(5, store=store))
    with pytest.raises(BudgetExceeded):
        ask(teacher, pictures(8), QueryLedger(5, store=store))
    ledger = QueryLedger(8, store=store)
    ask(teacher, pictures(8), ledger)
    assert (ledger.spent, ledger.left) == (8, 0)


# ---------------------------------------------------------------------- processes, and their end


def test_processes_that_ask_at_once_never_exceed_the_budget_together(storage, url, tmp_path):
    children = [Asker(url, tmp_path, start=60 * i, count=60, budget=100, seconds=0.002) for i in range(3)]
    for child in children:
        child.go()
    assert "refused" in [child.end() for child in children]
    store = open_ledger(storage, "a", TEACHER, "test")
    assert len(asked(tmp_path)) == store.account().images == store.answered() <= 100


@pytest.mark.parametrize("workers", [1, 4])
def test_a_run_that_is_killed_again_and_again_never_exceeds_the_budget_and_comes_to_its_end(
    storage, url, tmp_path, workers
):
    kills, batch = 4, 4
    lost = kills * batch * workers
    for kill in range(kills):
        child = Asker(url, tmp_path, budget=100 + lost, workers=workers, seconds=0.02)
        before = len(asked(tmp_path))
        child.go()
        while len(asked(tmp_path)) < before + 4 + 5 * kill:  # in mid-run, somewhere else each time
            time.sleep(0.001)
        child.kill()
    store = open_ledger(storage, "a", TEACHER, "test")
    known = pictures(100)[
        [i for i in range(100) if unasked(pictures(100)[i : i + 1], QueryLedger(0, store=store)) == 0]
    ]
    answered_before, asked_before = known[:, 0, 0, 0].tolist(), asked(tmp_path)
    assert store.answered() <= len(asked_before) <= store.account().images

    child = Asker(url, tmp_path, budget=100 + lost, workers=workers)
    child.go()
    assert child.end() == "right"
    assert set(asked(tmp_path)) == set(range(100))
    after = asked(tmp_path)[len(asked_before) :]
    assert sorted(after) == sorted(set(range(100)) - set(answered_before))  # paid once, never asked again
    assert len(asked(tmp_path)) <= store.account().images <= 100 + lost


def test_a_run_killed_in_mid_query_is_refused_where_its_lost_images_would_exceed_the_budget(storage, url, tmp_path):
    child = Asker(url, tmp_path, count=8, budget=8, seconds=30)
    child.go()
    while len(asked(tmp_path)) < 4:
        time.sleep(0.001)
    child.kill()
    store = open_ledger(storage, "a", TEACHER, "test")
    assert (store.account().images, store.answered()) == (4, 0)
    with pytest.raises(BudgetExceeded, match="4 of 8 images"):
        ask(TEACHER, pictures(8), QueryLedger(8, store=store), manner=RequestPolicy(batch_size=4))
