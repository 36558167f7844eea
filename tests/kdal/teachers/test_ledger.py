"""The ledger in the tables, held against a count that the teacher keeps for itself in a file."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from kdal.storage.database import Storage
from kdal.teachers.ledger import open_ledger
from kdal_core.distillation import Account, QueryLedger, RequestPolicy, TorchTeacher, ask, unasked
from kdal_core.errors import BudgetExceeded, ConfigError
from tests.paths import PYTHONPATH

TEACHER = TorchTeacher(nn.Flatten(), ("cat", "dog", "näbb"), device="cpu")

ASKER = """
import os, sys, time, torch
from kdal.storage.database import Storage
from kdal.teachers.ledger import open_ledger
from kdal_core.distillation import RequestPolicy, QueryLedger, ask
from kdal_core.errors import BudgetExceeded

url, start, count, budget, workers, seconds = sys.argv[1], *map(int, sys.argv[2:6]), float(sys.argv[6])

class Teacher:
    classes = ("cat", "dog", "näbb")
    def query(self, images):
        file = os.open("asked", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, bytes(images[:, 0, 0, 0].tolist()))
        os.close(file)
        time.sleep(seconds)
        share = images[:, 0, 0, 0].float() / 256
        return torch.stack([share, 1 - share, 0 * share], dim=1)

images = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
images[:, 0, 0, 0] = torch.arange(start, start + count)
teacher = Teacher()
ledger = QueryLedger(budget, store=open_ledger(Storage(url), "a", teacher, "test"))
print("ready", flush=True)
sys.stdin.readline()
try:
    answers = ask(teacher, images, ledger, manner=RequestPolicy(batch_size=4, workers=workers))
    print("right" if (answers[:, 0] * 256 == images[:, 0, 0, 0]).all() else "wrong")
except BudgetExceeded:
    print("refused")
"""


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


def start_asker(url, cwd, *, start=0, count=100, budget=100, workers=1, seconds=0.0):
    """A process that has opened the ledger and asks as soon as it is sent a line."""
    arguments = [url, start, count, budget, workers, seconds]
    child = subprocess.Popen(
        [sys.executable, "-c", ASKER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout.readline() == "ready\n", child.communicate()[1]
    return child


def go(child):
    child.stdin.write("\n")
    child.stdin.flush()


def asked(folder):
    """Numbers of the images that reached the teacher, each as often as it did."""
    path = folder / "asked"
    return list(path.read_bytes()) if path.exists() else []


def pictures(count):
    images = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count)
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
    children = [start_asker(url, tmp_path, start=60 * i, count=60, budget=100, seconds=0.002) for i in range(3)]
    for child in children:
        go(child)
    ended = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], ended
    assert "refused\n" in [out for out, _ in ended]
    store = open_ledger(storage, "a", TEACHER, "test")
    assert len(asked(tmp_path)) == store.account().images == store.answered() <= 100


@pytest.mark.parametrize("workers", [1, 4])
def test_a_run_that_is_killed_again_and_again_never_exceeds_the_budget_and_comes_to_its_end(
    storage, url, tmp_path, workers
):
    kills, batch = 4, 4
    lost = kills * batch * workers
    for kill in range(kills):
        child = start_asker(url, tmp_path, budget=100 + lost, workers=workers, seconds=0.02)
        before = len(asked(tmp_path))
        go(child)
        while len(asked(tmp_path)) < before + 4 + 5 * kill:  # in mid-run, somewhere else each time
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    store = open_ledger(storage, "a", TEACHER, "test")
    known = pictures(100)[
        [i for i in range(100) if unasked(pictures(100)[i : i + 1], QueryLedger(0, store=store)) == 0]
    ]
    answered_before, asked_before = known[:, 0, 0, 0].tolist(), asked(tmp_path)
    assert store.answered() <= len(asked_before) <= store.account().images

    child = start_asker(url, tmp_path, budget=100 + lost, workers=workers)
    go(child)
    out, errors = child.communicate(timeout=60)
    assert out == "right\n", errors
    assert set(asked(tmp_path)) == set(range(100))
    after = asked(tmp_path)[len(asked_before) :]
    assert sorted(after) == sorted(set(range(100)) - set(answered_before))  # paid once, never asked again
    assert len(asked(tmp_path)) <= store.account().images <= 100 + lost


def test_a_run_killed_in_mid_query_is_refused_where_its_lost_images_would_exceed_the_budget(storage, url, tmp_path):
    child = start_asker(url, tmp_path, count=8, budget=8, seconds=30)
    go(child)
    while len(asked(tmp_path)) < 4:
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    store = open_ledger(storage, "a", TEACHER, "test")
    assert (store.account().images, store.answered()) == (4, 0)
    with pytest.raises(BudgetExceeded, match="4 of 8 images"):
        ask(TEACHER, pictures(8), QueryLedger(8, store=store), manner=RequestPolicy(batch_size=4))
