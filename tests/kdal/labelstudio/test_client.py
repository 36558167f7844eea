"""What the client asks Label Studio, and how it reads the answers."""

import json
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

import pytest

from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from tests.kdal.conftest import TOKEN
from tests.kdal.labelstudio.calls import CALLS, COUNTS, HTML, READS, Everywhere, answer, failure
from tests.kdal.servers import Answer
from tests.paths import PYTHONPATH


@pytest.mark.parametrize("call", CALLS)
def test_a_refused_token_is_not_transient_and_the_message_names_the_variable(client, web, call):
    error = failure(call, web, answer({"detail": "Invalid token."}, 401), client)
    assert (error.status, error.transient) == (401, False)
    assert "refuses LABEL_STUDIO_API_KEY" in str(error)
    assert web.url in str(error)


@pytest.mark.parametrize("call", CALLS)
def test_what_is_missing_is_not_transient(client, web, call):
    error = failure(call, web, answer({"detail": "Not found."}, 404), client)
    assert (error.status, error.transient) == (404, False)
    assert "404 Not found." in str(error)


def test_a_refused_body_is_told_by_its_validation_errors(client, web):
    body = {"detail": "Validation error", "validation_errors": {"url": ["Enter a valid URL."]}}
    error = failure("create_webhook", web, answer(body, 400), client)
    assert (error.status, error.transient) == (400, False)
    assert "Enter a valid URL." in str(error)
    assert "POST /api/webhooks/" in str(error)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_fault_of_the_server_is_transient(client, web, status):
    error = failure("import_predictions", web, Answer(b"<h1>Server Error</h1>", status), client)
    assert (error.status, error.transient) == (status, True)


@pytest.mark.parametrize(("status", "transient"), [(408, True), (409, True), (429, True), (400, False), (403, False)])
def test_which_refusals_are_transient(client, web, status, transient):
    assert failure("import_predictions", web, answer({}, status), client).transient is transient


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("found", [HTML, Answer(b"{"), Answer(b"\xff\xfe"), Answer(b'{"a": NaN')])
def test_an_answer_that_is_no_json_is_transient_and_asks_for_the_address(client, web, call, found):
    """A proxy's page of maintenance, or a login page: the address may be wrong, and it may be right later."""
    error = failure(call, web, found, client)
    assert error.transient
    assert "LABEL_STUDIO_URL" in str(error)


@pytest.mark.parametrize("call", READS)
@pytest.mark.parametrize("value", [None, 5, "text", [1], True])
def test_json_of_another_shape_is_a_label_studio_error(client, web, call, value):
    assert "LABEL_STUDIO_URL" in str(failure(call, web, answer(value), client))


WITHOUT = ["tasks", "labelled_ids", *COUNTS, "import_predictions", "import_tasks", "upload_files", "webhooks"]


@pytest.mark.parametrize("call", [*WITHOUT, "backends"])
@pytest.mark.parametrize("value", [{}, {"tasks": None, "total": "many", "created": None}, {"tasks": {}, "total": []}])
def test_an_object_without_what_was_asked_for_is_a_label_studio_error(client, web, call, value):
    assert "LABEL_STUDIO_URL" in str(failure(call, web, answer(value), client))


def test_a_long_answer_is_told_in_brief(client, web):
    error = failure("project", web, answer({"detail": "x" * 100_000}, 400), client)
    assert len(str(error)) < 3000


def test_nobody_there_is_transient_and_has_no_status():
    client = LabelStudioClient("http://127.0.0.1:1", TOKEN)
    with pytest.raises(LabelStudioError, match=r"http://127\.0\.0\.1:1 does not answer") as caught:
        client.import_predictions(3, [])
    assert (caught.value.status, caught.value.transient) == (None, True)
    assert TOKEN not in str(caught.value)


def test_an_answer_that_takes_too_long_is_transient(web):
    """The server answers only when the client has given up."""
    given_up = threading.Event()
    web.answers = Everywhere(Answer(b"{}", before=lambda: given_up.wait(60)))
    client = LabelStudioClient(web.url, TOKEN, timeout=0.2)
    with pytest.raises(LabelStudioError, match="does not answer") as caught:
        client.import_predictions(3, [])
    given_up.set()
    assert caught.value.transient


def test_an_answer_that_breaks_off_is_transient(client, web):
    broken = Answer(b'{"id": 3', headers={"Content-Length": "500", "Connection": "close"}, with_length=False)
    error = failure("import_predictions", web, broken, client)
    assert (error.status, error.transient) == (None, True)


def test_an_address_that_is_none_is_a_label_studio_error():
    client = LabelStudioClient("http://[", TOKEN)
    with pytest.raises(LabelStudioError, match="does not answer"):
        client.project(3)


def test_a_read_is_tried_again_and_an_import_is_not(client, web):
    """A second import would insert all predictions twice."""
    web.answers = {"/api/projects/3": [answer({}, 503), answer({"id": 3})]}
    assert client.project(3) == {"id": 3}
    assert len(web.seen) == 2
    web.answers = Everywhere(answer({}, 503))
    for post in ("import_predictions", "import_tasks", "upload_files", "create_webhook", "create_backend"):
        before = len(web.seen)
        with pytest.raises(LabelStudioError):
            CALLS[post](client)
        assert len(web.seen) == before + 1


# ---------------------------------------------------------------------- what it asks


def test_tasks_are_asked_for_page_by_page_after_the_last_id_seen(client, web):
    pages = [[{"id": i} for i in range(1, 501)], [{"id": i} for i in range(501, 520)]]
    web.answers["/api/tasks"] = [answer({"tasks": page, "total": 519}) for page in pages]
    assert [task["id"] for task in client.tasks(3, labelled=False)] == list(range(1, 520))
    assert len(web.seen) == 2
    assert all("resolve_uri=false" in seen.path and "project=3" in seen.path for seen in web.seen)


def test_files_go_up_each_in_a_field_of_its_own_and_become_addresses_in_their_order(client, web):
    web.answers["/api/projects/3/import"] = answer({"file_upload_ids": [8, 5], "task_count": 0}, 201)
    uploads = [{"id": 5, "file": "upload/3/5f-b.jpg"}, {"id": 8, "file": "upload/3/8a-a.jpg"}, {"id": 9, "file": "x"}]
    web.answers["/api/projects/3/file-uploads"] = answer(uploads)
    found = client.upload_files(3, [("a.jpg", b"first image"), ("a.jpg", b"second image")])
    assert found == ["/data/upload/3/8a-a.jpg", "/data/upload/3/5f-b.jpg"]
    upload, listing = web.seen
    assert upload.path.endswith("?commit_to_project=false")
    assert b'name="file0"; filename="a.jpg"' in upload.body
    assert b'name="file1"; filename="a.jpg"' in upload.body
    assert "ids=%5B8%2C+5%5D" in listing.path


@pytest.mark.parametrize(
    ("prefix", "public", "stored"), [("/ls", "", "/ls"), ("", "https://host/ls", "/ls"), ("/ls", "http://host", "")]
)
def test_uploaded_files_are_addressed_as_people_reach_them(web, prefix, public, stored):
    web.answers[f"{prefix}/api/projects/3/import"] = answer({"file_upload_ids": [8]}, 201)
    web.answers[f"{prefix}/api/projects/3/file-uploads"] = answer([{"id": 8, "file": "upload/3/8a-a.jpg"}])
    client = LabelStudioClient(web.url + prefix, TOKEN, public_url=public)
    assert client.upload_files(3, [("a.jpg", b"x")]) == [f"{stored}/data/upload/3/8a-a.jpg"]


@pytest.mark.parametrize("uploads", [[], [{"id": 8}], [{"id": 8, "file": 5}], [{"file": "x"}]])
def test_an_upload_that_label_studio_does_not_know_of_is_a_label_studio_error(client, web, uploads):
    web.answers["/api/projects/3/import"] = answer({"file_upload_ids": [8]}, 201)
    web.answers["/api/projects/3/file-uploads"] = answer(uploads)
    with pytest.raises(LabelStudioError, match="LABEL_STUDIO_URL"):
        client.upload_files(3, [("a.jpg", b"x")])


def test_some_fields_of_a_project_come_from_the_list_and_else_from_the_whole(client, web):
    whole = {"id": 3, "sampling": "Sequential sampling", "model_version": "x", "task_number": 5}
    web.answers["/api/projects/3"] = answer(whole)
    web.answers["/api/projects/"] = answer({"results": [{"id": 3, "sampling": "Uniform sampling"}]})
    assert client.project_fields(3, "sampling") == {"id": 3, "sampling": "Uniform sampling"}
    assert parse_qs(urlsplit(web.seen[-1].path).query) == {"ids": ["3"], "include": ["id,sampling"]}
    # An older Label Studio shows other projects, or other fields.
    assert client.project_fields(3, "model_version") == whole
    web.answers["/api/projects/"] = answer({"results": [{"id": 4, "sampling": "Uniform sampling"}]})
    assert client.project_fields(3, "sampling") == whole


def test_webhooks_of_other_projects_are_left_out(client, web):
    web.answers["/api/webhooks/"] = answer(
        [{"id": 1, "project": 3}, {"id": 2, "project": None}, {"id": 3, "project": 4}]
    )
    assert [hook["id"] for hook in client.webhooks(3)] == [1]


def test_an_empty_answer_to_a_deletion_is_fine(client, web):
    web.answers["/api/projects/3/model-versions/"] = Answer(status=204)
    client.delete_predictions(3, "kdal-r1")
    assert (web.seen[0].method, json.loads(web.seen[0].body)) == ("DELETE", {"model_version": "kdal-r1"})


@pytest.mark.parametrize("call", ["delete_webhook", "delete_backend"])
def test_what_is_gone_already_need_not_be_deleted(client, web, call):
    web.answers = Everywhere(answer({"detail": "Not found."}, 404))
    getattr(client, call)(5)
    assert [seen.method for seen in web.seen] == ["DELETE"]
    web.answers = Everywhere(answer({"detail": "no"}, 403))
    with pytest.raises(LabelStudioError, match="403 no"):
        getattr(client, call)(5)


def test_a_deleted_backend_is_named_by_its_number(client, web):
    web.answers["/api/ml/5"] = Answer(status=204)
    client.delete_backend(5)
    assert (web.seen[0].method, web.seen[0].path) == ("DELETE", "/api/ml/5")


def filters(seen):
    query = json.loads(parse_qs(urlsplit(seen.path).query)["query"][0])
    return {item["filter"]: (item["operator"], item["type"], item["value"]) for item in query["filters"]["items"]}


def test_counts_are_read_from_the_total_of_a_page_of_one_task(client, web):
    web.answers["/api/tasks"] = answer({"tasks": [{"id": 1}], "total": 4711})
    assert (client.labelled_count(3), client.skipped_count(3)) == (4711, 4711)
    assert all("page_size=1&" in seen.path and "fields=task_only" in seen.path for seen in web.seen)
    assert [filters(seen) for seen in web.seen] == [
        {"filter:tasks:total_annotations": ("greater", "Number", 0)},
        {"filter:tasks:cancelled_annotations": ("greater", "Number", 0)},
    ]


def test_a_moment_is_told_to_label_studio_in_utc_and_to_the_microsecond(client, web):
    web.answers["/api/tasks"] = answer({"tasks": [{"id": 7}, {"id": 9}], "total": 2})
    moment = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert client.labelled_after(3, moment) == {7, 9}
    asked = filters(web.seen[0])
    assert asked["filter:tasks:updated_at"] == ("greater", "Datetime", "2026-02-28T20:00:00.000000Z")
    assert asked["filter:tasks:total_annotations"] == ("greater", "Number", 0)


def test_a_moment_without_a_time_zone_is_refused(client):
    with pytest.raises(ValueError, match="time zone"):
        client.labelled_after(3, datetime(2026, 3, 1))


# ---------------------------------------------------------------------- what it takes


def test_the_client_is_imported_without_what_takes_seconds():
    program = "import sys, kdal.labelstudio.client; print(*sys.modules)"
    environment = {"PYTHONPATH": PYTHONPATH, "PATH": ""}
    shown = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    loaded = {name.partition(".")[0] for name in shown.stdout.split()}
    assert not loaded & {"label_studio_sdk", "torch", "numpy", "sqlalchemy", "dbos", "jwt", "pandas"}
