"""Teachers over the wire, against a real HTTP server in a process of its own."""

import threading
import time

import pytest
import torch

from kdal.storage.database import Storage
from kdal.teachers import open_ledger, open_teacher, parse_teacher
from kdal_core.distillation import QueryLedger, ask, unasked
from kdal_core.errors import BudgetExceeded, ConfigError, TeacherError
from tests.kdal.teachers.conftest import pictures, truth

NAMED = {"probabilities": "predictions[].scores"}
ORDERED = {"probabilities": "probabilities", "classes": "labels"}
IN_PAIRS = {"probabilities": "out", "label": "label", "score": "p"}


def teacher_at(endpoint, **fields):
    return open_teacher(parse_teacher(endpoint.settings(**fields)))


@pytest.fixture
def storage(tmp_path):
    opened = Storage(f"sqlite:///{tmp_path}/kdal.sqlite")
    yield opened
    opened.close()


# ---------------------------------------------------------------------- what is sent, what is read


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        ("plain", {}),
        ("plain", {"request": {"form": "json", "body": {"instances": "$images"}, "item": {"b64": "$image"}}}),
        ("plain", {"request": {"form": "json", "body": {"images": "$images"}, "item": "data:image/png;base64,$image"}}),
        ("plain", {"request": {"form": "multipart", "field": "f", "fields": {"model": "big"}}}),
        ("plain", {"request": {"form": "raw"}, "batch_size": 1}),
        ("bare", {"request": {"form": "raw"}, "batch_size": 1, "response": {"probabilities": "@"}}),
        ("plain", {"picture": {"mode": "L"}}),
        ("named", {"response": NAMED}),
        ("pairs", {"response": IN_PAIRS, "names": {"CAT": "cat", "DOG": "dog", "HEN": "hen"}}),
        ("other_order", {"response": ORDERED}),
        ("other_order", {"response": {"order": ["hen", "cat", "dog"]}}),
        ("backend_all", {"kind": "ml_backend"}),
        ("backend_all", {"kind": "ml_backend", "rest": "refuse"}),
    ],
)
def test_every_form_of_request_and_answer_gives_the_teachers_probabilities_in_our_order(endpoint, answer, fields):
    endpoint.behave(answer=answer)
    images = pictures(20)
    ledger = QueryLedger(20)
    assert torch.allclose(ask(teacher_at(endpoint, **fields), images, ledger), truth(images), atol=1e-6)
    assert sorted(endpoint.asked) == list(range(20))
    assert ledger.spent == 20


def test_our_order_of_classes_is_the_students_not_the_teachers(endpoint):
    endpoint.behave(answer="named")
    teacher = teacher_at(endpoint, classes=["hen", "dog", "cat"], response=NAMED)
    assert torch.allclose(ask(teacher, pictures(9), QueryLedger(9)), truth(pictures(9)).flip(1), atol=1e-6)


def test_a_jpeg_is_nearly_the_image(endpoint):
    images = torch.full((3, 3, 16, 16), 100, dtype=torch.uint8)
    images += torch.arange(3, dtype=torch.uint8)[:, None, None, None] * 50
    answers = ask(teacher_at(endpoint, picture={"format": "jpeg"}), images, QueryLedger(3))
    assert torch.allclose(answers, truth(images), atol=2 / 256)


def test_an_ml_backend_that_names_its_best_class_alone_spreads_the_rest_or_is_refused(endpoint):
    endpoint.behave(answer="backend_best")
    images = pictures(4, start=40)
    answers = ask(teacher_at(endpoint, kind="ml_backend"), images, QueryLedger(4))
    best = truth(images)[:, 1]
    assert torch.allclose(answers[:, 1], best, atol=1e-6)
    assert torch.allclose(answers[:, 0], (1 - best) / 2, atol=1e-6)
    assert torch.equal(answers[:, 0], answers[:, 2])
    with pytest.raises(TeacherError, match="too few classes: 2 of 3 have no probability"):
        ask(teacher_at(endpoint, kind="ml_backend", rest="refuse"), images, QueryLedger(4))


def test_an_ml_backend_is_asked_at_predict_as_label_studio_does(endpoint):
    endpoint.behave(answer="backend_all")
    ask(
        teacher_at(endpoint, kind="ml_backend", url=endpoint.url.removesuffix("/classify")), pictures(2), QueryLedger(2)
    )
    assert [request["path"] for request in endpoint.requests] == ["/predict"]


# ---------------------------------------------------------------------- answers that are none


@pytest.mark.parametrize(
    ("answer", "fields", "message"),
    [
        ("logits", {}, "look like logits"),
        ("nan", {}, "NaN"),
        ("too_few", {}, "too few classes: 2 where 3"),
        ("too_many", {}, "too many classes: 4 where 3"),
        ("one_short", {}, "asked about 8 images and answered about 7"),
        ("words", {}, 'holds "a" where a probability'),
        ("other_classes", {"response": NAMED}, 'class "ape", which is not among cat, dog, hen'),
        ("other_order", {"response": {"classes": "names"}}, 'holds nothing at "names"'),
        ("nothing", {}, 'holds nothing at "probabilities".*model is loading'),
        ("plain", {"kind": "ml_backend"}, 'holds no "results"'),
        ("backend_error", {"kind": "ml_backend"}, "cannot read"),
    ],
)
def test_an_answer_that_is_none_ends_the_run_in_words_and_is_counted_once(endpoint, answer, fields, message):
    endpoint.behave(answer=answer)
    ledger = QueryLedger(1000)
    with pytest.raises(TeacherError, match=message):
        ask(teacher_at(endpoint, workers=1, **fields), pictures(32), ledger)
    assert len(endpoint.asked) == ledger.spent == 8  # not asked again: it would answer the same
    assert unasked(pictures(32), ledger) == 32


@pytest.mark.parametrize(
    ("mode", "message", "spent"),
    [
        ({"body": "<html><style>p{}</style><h1>Welcome</h1></html>", "headers": {"Content-Type": "text/html"}},
         "does not answer in JSON but text/html: Welcome", 8),
        ({"body": "[" * 100_000}, "does not answer in JSON", 8),
        ({"status": 401, "body": "no such key"}, "status 401: no such key", 0),
        ({"status": 404}, "status 404", 0),
        ({"status": 302, "headers": {"Location": "http://elsewhere/"}}, "redirects to http://elsewhere/", 0),
    ],
)  # fmt: skip
def test_a_server_that_is_no_teacher_is_not_asked_twice(endpoint, mode, message, spent):
    endpoint.behave(**mode)
    ledger = QueryLedger(1000)
    with pytest.raises(TeacherError, match=message):
        ask(teacher_at(endpoint, workers=1), pictures(32), ledger)
    assert ledger.spent == spent
    assert len(endpoint.requests) == 1


# ---------------------------------------------------------------------- a server in trouble


def test_a_teacher_that_is_down_is_an_error_after_bounded_attempts_that_costs_nothing(endpoint):
    endpoint.kill()
    ledger, began = QueryLedger(100), time.monotonic()
    with pytest.raises(TeacherError, match=r"cannot be reached \(.*refused"):
        ask(teacher_at(endpoint), pictures(32), ledger)
    assert ledger.spent == 0
    assert time.monotonic() - began < 30
    endpoint.start()
    assert torch.allclose(ask(teacher_at(endpoint), pictures(32), ledger), truth(pictures(32)))


def test_a_teacher_killed_in_mid_run_costs_what_it_had_been_asked_and_the_run_goes_on_later(endpoint, storage):
    teacher = teacher_at(endpoint, attempts=2)
    ledger = QueryLedger(200, price=0.01, store=open_ledger(storage, "a", teacher, "test"))
    endpoint.behave(seconds=0.03)
    images = pictures(160)

    def kill_later():
        while len(endpoint.asked) < 50:
            time.sleep(0.005)
        endpoint.kill()

    killer = threading.Thread(target=kill_later)
    killer.start()
    with pytest.raises(TeacherError):
        ask(teacher, images, ledger)
    killer.join()
    missing = unasked(images, ledger)
    assert len(endpoint.asked) <= ledger.spent <= 160 - missing + 4 * 8  # two workers, each a batch lost, repeated once
    assert 0 < missing < 160
    worked_on = len(endpoint.asked)
    endpoint.start()
    endpoint.behave()
    assert torch.allclose(ask(teacher, images, ledger), truth(images))
    assert len(endpoint.asked) == worked_on + missing  # what was answered is not asked again
    assert len(endpoint.asked) <= ledger.spent <= 200
    assert ledger.cost == pytest.approx(ledger.spent / 100)


def test_a_teacher_that_comes_back_within_the_attempts_is_never_noticed(endpoint):
    endpoint.kill()
    back = threading.Timer(0.5, endpoint.start)
    back.start()
    ledger = QueryLedger(16)
    answers = ask(teacher_at(endpoint, attempts=8, pause=0.2), pictures(16), ledger)
    back.join()
    assert torch.allclose(answers, truth(pictures(16)))
    assert ledger.spent == 16


def test_a_rate_limit_is_waited_out_at_no_cost_by_all_workers(endpoint):
    endpoint.behave(status=429, headers={"Retry-After": "1"}, times=1)
    ledger = QueryLedger(64)
    answers = ask(teacher_at(endpoint, workers=1), pictures(64), ledger)
    assert torch.allclose(answers, truth(pictures(64)))
    assert len(endpoint.asked) == ledger.spent == 64
    times = [request["time"] for request in endpoint.requests]
    assert times[1] - times[0] >= 0.99


def test_a_rate_limit_longer_than_our_patience_ends_the_run_at_once(endpoint):
    endpoint.behave(status=429, headers={"Retry-After": "3600"})
    ledger = QueryLedger(64)
    with pytest.raises(TeacherError, match="left alone for 3,600 s"):
        ask(teacher_at(endpoint, workers=1), pictures(64), ledger)
    assert (len(endpoint.requests), ledger.spent) == (1, 0)


def test_a_server_that_refuses_for_good_is_asked_so_often_and_no_more(endpoint):
    endpoint.behave(status=503, body="overloaded")
    ledger = QueryLedger(64)
    with pytest.raises(TeacherError, match="refuses, status 503: overloaded"):
        ask(teacher_at(endpoint, workers=1, attempts=3), pictures(64), ledger)
    assert (len(endpoint.requests), ledger.spent) == (3, 0)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ({"seconds": 5}, "did not answer within 0.4 s"),
        ({"drip": 0.05}, "did not answer within 0.4 s"),
        ({"break": True}, "broke the connection off"),
        ({"promise": 10}, "broke its answer off"),
        ({"status": 500}, "failed, status 500"),
    ],
)
def test_an_answer_lost_on_the_way_is_paid_for_each_time_it_is_asked_for_and_that_is_bounded(endpoint, mode, message):
    endpoint.behave(**mode)
    ledger = QueryLedger(1000)
    with pytest.raises(TeacherError, match=message):
        ask(teacher_at(endpoint, workers=1, timeout=0.4, paid_attempts=3), pictures(32), ledger)
    assert len(endpoint.asked) == ledger.spent == 24
    endpoint.behave()
    assert torch.allclose(ask(teacher_at(endpoint), pictures(32), ledger), truth(pictures(32)))
    assert len(endpoint.asked) == ledger.spent == 56


def test_lost_answers_never_make_a_run_exceed_its_budget(endpoint):
    endpoint.behave(**{"break": True})
    ledger = QueryLedger(32)
    with pytest.raises(BudgetExceeded):
        ask(teacher_at(endpoint, workers=3, paid_attempts=50, pause=0.0), pictures(32), ledger)
    assert len(endpoint.asked) == ledger.spent == 32


def test_an_idempotent_teacher_is_asked_again_for_a_lost_answer_at_no_cost(endpoint):
    endpoint.behave(**{"break": True}, times=2)
    ledger = QueryLedger(32)
    answers = ask(teacher_at(endpoint, workers=1, idempotency_header="Idempotency-Key"), pictures(32), ledger)
    assert torch.allclose(answers, truth(pictures(32)))
    assert len(endpoint.asked) == ledger.spent == 32
    assert len(endpoint.requests) == 6


# ---------------------------------------------------------------------- pace, secrets, settings


def test_never_faster_than_the_pace_asked_for(endpoint):
    ask(teacher_at(endpoint, images_per_second=80, workers=4), pictures(80), QueryLedger(80))
    times = [request["time"] for request in endpoint.requests]
    assert times[-1] - times[0] >= 72 / 80 - 0.05


def test_the_secret_comes_from_the_environment_and_is_in_no_message(endpoint, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "hunter2")
    settings = parse_teacher(endpoint.settings(auth={"env": "TEACHER_KEY"}))
    ask(open_teacher(settings), pictures(1), QueryLedger(1))
    assert endpoint.requests[0]["headers"]["Authorization"] == "Bearer hunter2"
    assert "hunter2" not in repr(settings) + settings.model_dump_json() + settings.identity("http")
    endpoint.behave(status=401, body="the key hunter2 is not valid")
    with pytest.raises(TeacherError, match=r"the key \*\*\* is not valid"):
        ask(open_teacher(settings), pictures(1, start=7), QueryLedger(1))


def test_a_password_of_basic_authentication_is_sent_as_one(endpoint, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "hunter2")
    ask(teacher_at(endpoint, auth={"env": "TEACHER_KEY", "user": "ada"}), pictures(1), QueryLedger(1))
    assert endpoint.requests[0]["headers"]["Authorization"] == "Basic YWRhOmh1bnRlcjI="


@pytest.mark.parametrize("value", ["", "two\nlines"])
def test_a_secret_that_is_missing_or_no_header_is_said_before_anything_is_asked(endpoint, monkeypatch, value):
    monkeypatch.setenv("TEACHER_KEY", value)
    with pytest.raises(ConfigError, match="TEACHER_KEY") as caught:
        teacher_at(endpoint, auth={"env": "TEACHER_KEY"})
    assert "two" not in str(caught.value)


def test_the_identity_is_what_answers_and_not_how_fast(endpoint):
    def identity(**fields):
        return parse_teacher(endpoint.settings(**fields)).identity("http")

    assert identity() == identity(workers=9, batch_size=1, timeout=3, auth={"env": "X"}, images_per_second=1)
    different = [{}, {"response": NAMED}, {"picture": {"format": "jpeg"}}, {"headers": {"X-Model": "b"}}]
    assert len({identity(**fields) for fields in different}) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "ftp://host"}, "such as https://host/path"),
        ({"url": "https://ada:hunter2@host/"}, "must hold no password"),
        ({"classes": ["cat"]}, "at least 2"),
        ({"classes": ["cat", "cat"]}, "different names"),
        ({"names": {"kitty": "tiger"}}, "leads to tiger"),
        ({"request": {"form": "raw"}}, "batch_size: 1"),
        ({"request": {"form": "json", "body": {"text": "hello"}}}, "no place for an image"),
        ({"response": {"probabilities": "a[["}}, "no JMESPath expression"),
        ({"response": {"order": ["cat", "dog"]}}, "must name each class once"),
        ({"kind": "oracle"}, "oracle"),
        ({"retries": 3}, "retries"),
        ({"timeout": float("nan")}, "timeout"),
    ],
)
def test_settings_that_describe_no_teacher_are_refused_in_words(fields, message):
    settings = {"kind": "http", "url": "http://host/", "classes": ["cat", "dog", "hen"], **fields}
    with pytest.raises(ConfigError, match=message) as caught:
        parse_teacher(settings)
    assert "hunter2" not in str(caught.value)
