"""A project with a black-box teacher on a real Label Studio: pre-annotated before the first label, then put right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from playwright.sync_api import Page

from kdal.demo.examples.digits import Digits as DigitsExample
from kdal.processes.embedded import EmbeddedLabelStudio
from kdal.rounds.store import RoundStore
from kdal.storage.tables import Round, account_of, now
from kdal.teachers import StoredLedger
from tests.integration.harness import DIGITS_CONFIG, Api, Bucket, Project
from tests.integration.loop import digit_teacher
from tests.integration.loop.digit_teacher import SAID, WRONG
from tests.integration.loop.editor import next_ticked
from tests.integration.loop.running import RunningKdal, drain
from tests.kdal.teachers.conftest import Endpoint

Make = Callable[[int], tuple[Project, dict[int, int]]]
MakeKdal = Callable[..., RunningKdal]
BATCH, WORKERS = 10, 2
SECRET = "the-teachers-secret-key"
PRICE = 0.01
POLICY: dict[str, Any] = {
    "black_box": "digits",
    "epochs": 40,
    "batch_size": 32,
    "seed": 1,
    "suggest_above": 0.0,
    "explore": 0.0,
}


class DigitTeacher(Endpoint):
    """The teacher's process."""

    script = Path(digit_teacher.__file__)
    classes = tuple("9876543210")  # not in the order of the project's choices

    @property
    def images(self) -> Counter[str]:
        """How often it worked on each image, as it counts for itself."""
        path = self.folder / "asked"
        return Counter(path.read_text().split()) if path.exists() else Counter()

    def describe(self, **terms: Any) -> str:
        """A file for KDAL_TEACHERS; returns its path."""
        auth = {"env": "DIGITS_TEACHER_KEY"}
        columns = {"order": list("0123456789")}
        teacher = self.settings(batch_size=BATCH, workers=WORKERS, auth=auth, timeout=60, response=columns)
        price = {"price": PRICE, "currency": "EUR", "mixup": {"stages": 2}}
        path = self.folder / "teachers.yaml"
        path.write_text(yaml.safe_dump({"digits": {"teacher": teacher, "budget": 1000, **price, **terms}}))
        return str(path)


@pytest.fixture(scope="module")
def shared_teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DigitTeacher]:
    running = DigitTeacher(tmp_path_factory.mktemp("teacher"))
    yield running
    running.kill()


@pytest.fixture
def teacher(shared_teacher: DigitTeacher) -> DigitTeacher:
    """The teacher, who answers, and has not been asked anything yet."""
    return shared_teacher.reset()


@pytest.fixture(scope="module")
def shared_asking_kdal(
    shared_teacher: DigitTeacher, label_studio: EmbeddedLabelStudio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningKdal]:
    environment = {"KDAL_TEACHERS": shared_teacher.describe(), "DIGITS_TEACHER_KEY": SECRET}
    running = RunningKdal(
        tmp_path_factory.mktemp("asking-kdal"), label_studio, KDAL_RECONCILE_SECONDS="1", **environment
    )
    yield running
    running.stop()


@pytest.fixture
def asking_kdal(shared_asking_kdal: RunningKdal, teacher: DigitTeacher) -> RunningKdal:
    """A kdal that knows the teacher; whichever of its processes the last test left dead is started again."""
    return shared_asking_kdal.start()


def account(kdal: RunningKdal, project: Project) -> tuple[int, int]:
    """Images counted, images answered."""
    store = StoredLedger(kdal.storage, account_of(kdal.uid(project), "digits"))
    return store.account().images, store.answered()


def suggestions(project: Project) -> dict[int, tuple[int, float, float]]:
    """Task id -> digit that is ticked, its probability, the task's place in the queue as a score."""
    found = {}
    for task in project.tasks():
        for prediction in task["predictions"]:
            (region,) = prediction["result"]
            found[task["id"]] = (int(region["value"]["choices"][0]), region["score"], prediction["score"])
    return found


def failed(kdal: RunningKdal, project: Project, number: int = 0) -> Round:
    """Wait until a round has failed."""
    return kdal.wait(
        lambda: next((r for r in kdal.rounds(project) if r.number == number and r.state == "failed"), None),
        f"round {number} to fail",
        timeout=180,
    )


def press_the_button(ls_api: Api, project: Project) -> None:
    (backend,) = ls_api.get("/api/ml/", project=project.id)
    ls_api.request("POST", f"/api/ml/{backend['id']}/train")


def test_tasks_are_pre_annotated_before_any_label_and_peoples_labels_outrank_the_teacher(
    make_kdal: MakeKdal, teacher: DigitTeacher, ls_api: Api, digits_project: Make, s3: Bucket, monkeypatch: Any
) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    assets = {**s3.env, "KDAL_ASSETS": f"s3://{s3.name}/kdal"}
    kdal = make_kdal(KDAL_TEACHERS=teacher.describe(), DIGITS_TEACHER_KEY=SECRET, **assets).start()
    project, truth = digits_project(120)
    threes = [task for task, digit in truth.items() if digit == WRONG]
    kdal.connect(project, **POLICY, queries=300, budget=30)

    # Before anybody has labelled anything: a choice in every task, the least sure first.
    opened = kdal.wait_open(project, 0, timeout=300)
    assert (opened.facts["labels"], opened.facts["queries"], opened.facts["asked_images"]) == (0, 300, 120)
    first = suggestions(project)
    assert set(first) == set(truth)
    queue = sorted(first, key=lambda task: first[task][2])
    assert queue == kdal.order(project, 0)
    sure = [first[task][1] for task in queue]
    assert sure == sorted(sure)
    others = [task for task in truth if task not in threes]
    assert np.mean([first[task][0] == truth[task] for task in others]) > 0.9
    assert {first[task][0] for task in threes} == {SAID}  # as the teacher says
    assert project.next_task() == queue[0]

    # What it cost, as kdal counts and as the teacher counts: each image once.
    assert account(kdal, project) == (300, 300)
    assert (teacher.images.total(), max(teacher.images.values())) == (300, 1)
    shown = kdal.cli("status").stdout
    assert "300 of 300 queries, 3.00 EUR" in shown
    mixes = kdal.assets.read_arrays(RoundStore(kdal.assets, kdal.uid(project), 0).key("mixes.npz"))
    assert mixes["pairs"].shape == (180, 2)
    assert set(mixes["pairs"].flatten()) <= set(truth)
    assert np.allclose(mixes["probabilities"].sum(axis=1), 1, atol=1e-5)
    assert (mixes["probabilities"][:, teacher.classes.index(str(WRONG))] == 0).all()

    # People take what they are served, and somebody puts the threes right.
    for task in threes:
        project.annotate(task, WRONG)
    drain(project, [ls_api], 30 - len(threes), truth.__getitem__)
    opened = kdal.wait_open(project, 1, timeout=300)
    assert opened.facts["labels"] == 30
    assert opened.facts["taught_by_people"] >= 30
    assert opened.facts["queries"] == 300
    assert teacher.images.total() == 300  # nothing is asked again
    with_label = ask_kdal(kdal, project, threes)
    assert sum(digit == WRONG for digit in with_label.values()) >= 0.8 * len(threes)
    assert len(suggestions(project)) == 90

    # The teacher's secret and address stay where they belong.
    for text in (str(project.tasks()), str(ls_api.get("/api/ml/", project=project.id)), str(kdal.report(project))):
        assert SECRET not in text
        assert teacher.url not in text
    assert SECRET in {request["headers"]["Authorization"].removeprefix("Bearer ") for request in teacher.requests}


def ask_kdal(kdal: RunningKdal, project: Project, tasks: list[int]) -> dict[int, int]:
    """What the serving model says of tasks, labelled ones too, when Label Studio asks."""
    wanted = [task for task in project.tasks() if task["id"] in tasks]
    body = {"tasks": wanted, "project": kdal.uid(project), "label_config": DIGITS_CONFIG, "params": {}}
    answer = requests.post(f"{kdal.url}/predict", json=body, auth=kdal.user, timeout=60).json()
    choices = [result["result"][0]["value"]["choices"][0] for result in answer["results"]]
    return {task["id"]: int(choice) for task, choice in zip(wanted, choices, strict=True)}


def test_a_worker_killed_while_it_asks_goes_on_and_the_ledger_agrees_with_the_teacher(
    asking_kdal: RunningKdal, teacher: DigitTeacher, digits_project: Make
) -> None:
    kdal = asking_kdal
    project, _ = digits_project(60)
    teacher.behave(seconds=0.3)
    kdal.connect(project, **POLICY, queries=160)
    for least in (25, 100):  # among the real images, and among the mixes
        kdal.wait(lambda: True if teacher.images.total() >= least else None, f"{least} images to be asked", 180)  # noqa: B023
        kdal.kill(kdal.worker)
        counted, answered = account(kdal, project)
        assert answered <= teacher.images.total() <= counted <= answered + 2 * BATCH * WORKERS
        kdal.start_worker()
    teacher.behave()
    opened = kdal.wait_open(project, 0, timeout=300)
    counted, answered = account(kdal, project)
    assert teacher.images.total() <= counted == opened.facts["queries"] == 160
    assert opened.facts["unanswered"] == counted - answered <= 2 * BATCH * WORKERS
    twice = sum(times - 1 for times in teacher.images.values())
    assert twice <= counted - answered  # only what was under way when the worker died
    assert len(suggestions(project)) == 60
    assert [r.number for r in kdal.settled(project)] == [0]


def test_a_teacher_that_is_down_fails_the_round_in_words_and_costs_nothing_and_the_round_goes_on_when_it_is_back(
    asking_kdal: RunningKdal, teacher: DigitTeacher, ls_api: Api, digits_project: Make
) -> None:
    kdal = asking_kdal
    project, _ = digits_project(30)
    teacher.kill()
    kdal.connect(project, **POLICY, queries=60)
    error = failed(kdal, project).error or ""
    assert "The teacher http://127.0.0.1" in error
    assert "cannot be reached" in error
    assert "cannot be reached" in " ".join(kdal.cli("status").stdout.split())
    assert account(kdal, project) == (0, 0)
    waiting = kdal.wait(lambda: kdal.rounds(project)[0].retry_at, "the round to be put off")
    assert waiting - now() < timedelta(minutes=5)  # it costs nothing to try again

    teacher.start()
    press_the_button(ls_api, project)
    kdal.wait_open(project, 0, timeout=300)
    assert account(kdal, project) == (60, 60)
    assert (teacher.images.total(), max(teacher.images.values())) == (60, 1)


def test_a_teacher_whose_answers_are_none_is_not_paid_again_and_again_by_itself(
    asking_kdal: RunningKdal, teacher: DigitTeacher, ls_api: Api, digits_project: Make
) -> None:
    kdal = asking_kdal
    project, _ = digits_project(30)
    teacher.behave(answer="logits")
    kdal.connect(project, **POLICY, queries=100)
    found = failed(kdal, project)
    assert "look like logits" in (found.error or "")
    lost = account(kdal, project)[0]
    assert lost == teacher.images.total() <= BATCH * WORKERS
    assert found.retry_at is not None
    assert found.retry_at - now() > timedelta(hours=23)

    teacher.behave()
    press_the_button(ls_api, project)
    opened = kdal.wait_open(project, 0, timeout=300)
    assert account(kdal, project) == (100, 100 - lost)
    assert opened.facts["unanswered"] == lost
    assert teacher.images.total() == 100


def test_the_labelling_screen_shows_the_teachers_choice_before_the_first_label(
    asking_kdal: RunningKdal,
    make_project: Callable[..., Project],
    digits: Callable[..., Any],
    page: Page,
    tmp_path: Path,
) -> None:
    kdal, found = asking_kdal, digits(60)
    project = make_project(DigitsExample.label_config, found.images, title="Handwritten digits")
    kdal.connect(project, **POLICY, queries=160)
    kdal.wait_open(project, 0, timeout=300)
    digit, sure, _ = suggestions(project)[kdal.order(project, 0)[0]]
    assert sure == min(probability for _, probability, _ in suggestions(project).values())
    assert next_ticked(page, project, "Which digit is this?", tmp_path / "black-box.png") == str(digit)


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"black_box": "pets"}, "known: digits"),
        ({"black_box": "digits", "strategy": "kd_gap"}, "compares three networks"),
        ({"black_box": "http://127.0.0.1:1/"}, "black_box"),
    ],
)
def test_a_policy_that_the_server_cannot_serve_is_refused_where_the_owner_typed_it(
    params: dict[str, Any], word: str, asking_kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, _ = digits_project(2)
    body = {"project": project.id, "url": asking_kdal.url, "title": "kdal", "extra_params": params}
    answer = ls_api.session.post(f"{ls_api.url}/api/ml/", json=body | asking_kdal.form, timeout=60)
    assert answer.status_code == 400
    assert word in answer.text
