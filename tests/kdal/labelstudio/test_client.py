import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from tests.kdal.conftest import TOKEN
from tests.kdal.servers import Answer
from tests.paths import PYTHONPATH

HTML = Answer(b"<!doctype html><title>Log in</title>", headers={"Content-Type": "text/html"})


def answer(value, status=200):
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


@pytest.fixture
def client(web):
    return LabelStudioClient(web.url, TOKEN)


CALLS = {
    "project": lambda c: c.project(3),
    "update_project": lambda c: c.update_project(3, title="x"),
    "create_project": lambda c: c.create_project("x", "<View/>"),
    "tasks": lambda c: list(c.tasks(3)),
    "labelled_ids": lambda c: c.labelled_ids(3),
    "skipped_ids": lambda c: c.skipped_ids(3),
    "open_count": lambda c: c.open_count(3),
    "labelled_count": lambda c: c.labelled_count(3),
    "skipped_count": lambda c: c.skipped_count(3),
    "labelled_after": lambda c: c.labelled_after(3, datetime(2026, 1, 2, tzinfo=UTC)),
    "version": lambda c: c.version(),
    "import_predictions": lambda c: c.import_predictions(3, [{"task": 1}]),
    "import_tasks": lambda c: c.import_tasks(3, [{"data": {}}]),
    "upload_files": lambda c: c.upload_files(3, [("a.jpg", b"x")]),
    "prediction_counts": lambda c: c.prediction_counts(3),
    "webhooks": lambda c: c.webhooks(3),
    "backends": lambda c: c.backends(3),
    "create_webhook": lambda c: c.create_webhook(url="x"),
    "create_backend": lambda c: c.create_backend(url="x"),
}
COUNTS = ["open_count", "labelled_count", "skipped_count", "labelled_after", "version"]
READS = ["project", "tasks", "labelled_ids", "skipped_ids", *COUNTS, "prediction_counts", "webhooks", "backends"]


class Everywhere(dict):
    """The same answer under every path."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def get(self, path, default=None):
        return self.found


def failure(call, web, found, client):
    """The error of a call to a Label Studio that answers everything so; it never holds the token."""
    web.answers = Everywhere(found)
    with pytest.raises(LabelStudioError) as caught:
        CALLS[call](client)
    assert TOKEN not in str(caught.value)
    return caught.value


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


# ---------------------------------------------------------------------- tokens


def test_without_a_token_the_message_says_where_to_get_one():
    with pytest.raises(LabelStudioError, match="LABEL_STUDIO_API_KEY is not set: copy a token") as caught:
        LabelStudioClient("http://127.0.0.1:1", "")
    assert not caught.value.transient


def test_no_password_of_netrc_takes_the_tokens_place(web, env, tmp_path, personal):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password 5ec4e7\n")
    (tmp_path / "netrc").chmod(0o600)
    env.setenv("NETRC", str(tmp_path / "netrc"))
    web.answers = {"/api/token/refresh/": answer({"access": "opaque"}), "/api/projects/3": answer({"id": 3})}
    for key in (TOKEN, personal):
        LabelStudioClient(web.url, key).project(3)
    signed = [seen.headers.get("Authorization") for seen in web.seen]
    assert signed == [f"Token {TOKEN}", None, "Bearer opaque"]


def test_a_legacy_token_goes_along_as_it_is(client, web):
    web.answers["/api/projects/3"] = answer({"id": 3})
    client.project(3)
    assert web.seen[0].headers["Authorization"] == f"Token {TOKEN}"
    assert client.authorization() == {"Authorization": f"Token {TOKEN}"}


def token(kind, seconds):
    claims = {"token_type": kind, "exp": int(time.time()) + seconds, "jti": "5ec4e7", "user_id": 1}
    return jwt.encode(claims, "a key that only Label Studio knows!!", algorithm="HS256")


@pytest.fixture
def personal():
    """A personal access token, as Label Studio 1.23.2 makes them: a refresh token that is a JWT."""
    return token("refresh", 3600)


def test_a_personal_access_token_is_exchanged_once_for_a_bearer_token(web, personal):
    bearer = token("access", 300)
    web.answers = {"/api/token/refresh/": answer({"access": bearer}), "/api/projects/3": answer({"id": 3})}
    client = LabelStudioClient(web.url, personal)
    for _ in range(3):
        assert client.project(3) == {"id": 3}
    assert client.authorization() == {"Authorization": f"Bearer {bearer}"}
    refresh, *calls = web.seen
    assert (refresh.method, refresh.path, json.loads(refresh.body)) == (
        "POST",
        "/api/token/refresh/",
        {"refresh": personal},
    )
    assert [call.headers["Authorization"] for call in calls] == [f"Bearer {bearer}"] * 3


def test_a_bearer_token_lasts_as_long_as_it_says_whatever_our_clock_says(web, personal):
    """Label Studio's clock is two hours behind: by ours, each token has ended before it begins."""
    then = int(time.time()) - 7200
    claims = {"token_type": "access", "iat": then, "exp": then + 300}
    bearer = jwt.encode(claims, "a key that only Label Studio knows!!", algorithm="HS256")
    web.answers = {"/api/token/refresh/": answer({"access": bearer}), "/api/projects/3": answer({"id": 3})}
    client = LabelStudioClient(web.url, personal)
    for _ in range(3):
        client.project(3)
    assert [seen.path for seen in web.seen].count("/api/token/refresh/") == 1


def test_a_bearer_token_that_is_refused_is_exchanged_once_more(web, personal):
    """As after a laptop has slept: its clock stood still, and the token ran out meanwhile."""
    old, fresh = token("access", 300), token("access", 301)
    web.answers = {
        "/api/token/refresh/": [answer({"access": old}), answer({"access": fresh})],
        "/api/projects/3/import/predictions": [answer({"detail": "expired"}, 401), answer({"created": 1})],
    }
    assert LabelStudioClient(web.url, personal).import_predictions(3, [{"task": 1}]) == 1
    assert web.seen[-1].headers["Authorization"] == f"Bearer {fresh}"


def test_a_bearer_token_that_is_refused_twice_is_told(web, personal):
    web.answers = {
        "/api/token/refresh/": answer({"access": token("access", 300)}),
        "/api/projects/3": answer({"detail": "expired"}, 401),
    }
    with pytest.raises(LabelStudioError, match="refuses LABEL_STUDIO_API_KEY"):
        LabelStudioClient(web.url, personal).project(3)
    assert [seen.path for seen in web.seen].count("/api/projects/3") == 2


@pytest.mark.parametrize("bearer", ["opaque", "a.b.c"])
def test_a_bearer_token_that_cannot_be_read_still_works(web, personal, bearer):
    web.answers = {"/api/token/refresh/": answer({"access": bearer}), "/api/projects/3": answer({"id": 3})}
    client = LabelStudioClient(web.url, personal)
    assert client.project(3) == {"id": 3}
    assert web.seen[-1].headers["Authorization"] == f"Bearer {bearer}"


def test_a_bearer_token_that_ran_out_is_exchanged_again(web, personal):
    fresh = token("access", 300)
    web.answers = {
        "/api/token/refresh/": [answer({"access": token("access", -5)}), answer({"access": fresh})],
        "/api/projects/3": answer({"id": 3}),
    }
    client = LabelStudioClient(web.url, personal)
    client.project(3)
    client.project(3)
    assert web.seen[-1].headers["Authorization"] == f"Bearer {fresh}"


@pytest.mark.parametrize(
    ("found", "status", "transient", "message"),
    [
        (answer({"detail": "Token is blacklisted"}, 401), 401, False, "make a new token"),
        (answer({"detail": "no"}, 403), 403, False, "make a new token"),
        (answer({"detail": "down"}, 503), 503, True, "503 when asked for a bearer token"),
        (HTML, 502, True, "LABEL_STUDIO_URL"),
        (Answer(b"<h1>Server Error</h1>", 500), 502, True, "LABEL_STUDIO_URL"),
        (answer({"token": "x"}), 502, True, "LABEL_STUDIO_URL"),
        (answer([]), 502, True, "LABEL_STUDIO_URL"),
    ],
)
def test_a_personal_access_token_that_cannot_be_exchanged_is_told(web, personal, found, status, transient, message):
    web.answers["/api/token/refresh/"] = found
    client = LabelStudioClient(web.url, personal)
    for call in (lambda: client.project(3), client.authorization):
        with pytest.raises(LabelStudioError) as caught:
            call()
        assert (caught.value.status, caught.value.transient) == (status, transient)
        assert message in str(caught.value)
        assert personal not in str(caught.value)


def test_a_personal_access_token_that_ran_out_is_told_at_once():
    old = token("refresh", -5)
    with pytest.raises(LabelStudioError, match=r"expired.*Make a new token") as caught:
        LabelStudioClient("http://127.0.0.1:1", old)
    assert old not in str(caught.value)
    assert not caught.value.transient


@pytest.mark.parametrize("claims", [{}, {"exp": None}, {"exp": 10**30}, {"exp": "soon"}])
def test_a_personal_access_token_that_is_damaged_is_told_at_once(claims):
    damaged = jwt.encode(claims, "a key that only Label Studio knows!!", algorithm="HS256")
    with pytest.raises(LabelStudioError, match="LABEL_STUDIO_API_KEY is of no use"):
        LabelStudioClient("http://127.0.0.1:1", damaged)


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


# ---------------------------------------------------------------------- refusals that say what to do


@pytest.mark.parametrize("call", ["create_backend", "create_webhook"])
@pytest.mark.parametrize(
    "reason",
    [
        "URL resolves to a reserved network address (block: 172.16.0.0/12)",
        "The provided URL was not allowed. URLs must use http:// or https://, and must not resolve to local or "
        "private network addresses when SSRF protection applies.",
    ],
)
def test_an_address_that_label_studio_bans_is_told_with_the_setting_that_allows_it(client, web, call, reason):
    error = failure(call, web, answer({"detail": reason}, 403), client)
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in str(error)
    assert reason in str(error)
    assert (error.status, error.transient) == (403, False)


def test_a_refusal_for_another_reason_does_not_name_the_ban(client, web):
    error = failure("create_backend", web, answer({"detail": "You do not have permission."}, 403), client)
    assert "BANNED" not in str(error)


def test_a_host_that_label_studio_does_not_know_is_told_with_the_setting(client, web):
    error = failure("create_backend", web, answer({"detail": "Can't resolve hostname kdal"}, 500), client)
    assert "KDAL_URL" in str(error)


# ---------------------------------------------------------------------- redirects


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_and_the_message_says_what_to_set(client, web, other_web, call, status):
    """A POST that is redirected becomes a GET, whose answer looks like success; the token would go along."""
    other_web.answers = Everywhere(answer({"created": 1, "task_count": 1, "tasks": [], "total": 0}))
    web.answers = Everywhere(Answer(status=status, headers={"Location": f"{other_web.url}/elsewhere?token=5ec4e7"}))
    with pytest.raises(LabelStudioError, match=f"to {other_web.url}/elsewhere .*LABEL_STUDIO_URL") as caught:
        CALLS[call](client)
    assert caught.value.status == status
    assert "5ec4e7" not in str(caught.value)
    assert len(web.seen) == 1
    assert other_web.seen == []


@pytest.mark.parametrize(
    ("location", "setting"),
    [
        ("https://ls.example.com/api/projects/3", "https://ls.example.com"),
        ("https://ls.example.com/ls/api/projects/3/", "https://ls.example.com/ls"),
        ("/ls/api/projects/3", "{url}/ls"),
        ("//ls.example.com/api/projects/3", "http://ls.example.com"),
        ("https://ls.example.com/user/login/?next=/api/projects/3", "the address at which"),
        ("", "the address at which"),
    ],
)
def test_the_setting_is_worked_out_where_the_redirect_keeps_the_path(client, web, location, setting):
    web.answers["/api/projects/3"] = Answer(status=301, headers={"Location": location})
    with pytest.raises(LabelStudioError) as caught:
        client.project(3)
    assert f"set LABEL_STUDIO_URL to {setting.format(url=web.url)}" in str(caught.value)


@pytest.mark.parametrize("location", ["http://[", "http://host:port/", "\u00ff://", "http://a b/"])
def test_a_redirect_to_no_address_is_a_label_studio_error(client, web, location):
    web.answers["/api/projects/3"] = Answer(status=301, headers={"Location": location})
    with pytest.raises(LabelStudioError):
        client.project(3)


def test_a_moved_server_stays_moved_and_a_detour_may_end(client, web):
    for status, transient in ((301, False), (308, False), (302, True), (303, True), (307, True)):
        web.answers["/api/projects/3"] = Answer(status=status, headers={"Location": "/maintenance.html"})
        with pytest.raises(LabelStudioError) as caught:
            client.project(3)
        assert caught.value.transient is transient


def test_a_bearer_token_is_not_asked_for_through_a_redirect(web, other_web, personal):
    web.answers["/api/token/refresh/"] = Answer(status=307, headers={"Location": f"{other_web.url}/api/token/refresh/"})
    with pytest.raises(LabelStudioError, match=f"set LABEL_STUDIO_URL to {other_web.url}"):
        LabelStudioClient(web.url, personal).project(3)
    assert other_web.seen == []


# ---------------------------------------------------------------------- what it takes


def test_threads_share_one_client_and_one_bearer_token(web, personal):
    bearer = token("access", 300)
    web.answers = {"/api/token/refresh/": answer({"access": bearer}), "/api/projects/3": answer({"id": 3})}
    client = LabelStudioClient(web.url, personal)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: client.project(3), range(64))) == [{"id": 3}] * 64
    assert [seen.path for seen in web.seen].count("/api/token/refresh/") == 1


def test_the_client_is_imported_without_what_takes_seconds():
    program = "import sys, kdal.labelstudio.client; print(*sys.modules)"
    environment = {"PYTHONPATH": PYTHONPATH, "PATH": ""}
    shown = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    loaded = {name.partition(".")[0] for name in shown.stdout.split()}
    assert not loaded & {"label_studio_sdk", "torch", "numpy", "sqlalchemy", "dbos", "jwt", "pandas"}


# ---------------------------------------------------------------------- what a stranger reads


def test_nobody_there_is_told_in_the_systems_words():
    with pytest.raises(LabelStudioError) as caught:
        LabelStudioClient("http://127.0.0.1:1", TOKEN).project(3)
    assert str(caught.value) == (
        "Label Studio at http://127.0.0.1:1 does not answer (Connection refused): is it running, and is "
        "LABEL_STUDIO_URL right?"
    )


def test_a_host_that_nobody_knows_is_told_without_the_librarys_objects():
    with pytest.raises(LabelStudioError, match="does not answer") as caught:
        LabelStudioClient("http://nobody.invalid", TOKEN).project(3)
    assert "HTTPConnection" not in str(caught.value)
    assert "object at" not in str(caught.value)


def test_a_project_that_is_not_there_is_named(client, web):
    error = failure("project", web, answer({"detail": "No Project matches the given query."}, 404), client)
    assert f"Label Studio at {web.url} has no project 3, or LABEL_STUDIO_API_KEY may not see it" in str(error)


def test_a_kdal_that_label_studio_cannot_reach_is_told_with_what_to_do(client, web):
    """As Label Studio 1.23.2 words it, for administrators and browsers."""
    reason = (
        "Can't connect to ML backend http://127.0.0.1:5, health check failed. Make sure it is up and your firewall is "
        'properly configured. <a href="https://labelstud.io/guide/ml.html">Learn more</a>'
    )
    error = failure("create_backend", web, answer({"non_field_errors": [reason]}, 400), client)
    assert error.status == 400
    assert "Label Studio gets no answer from kdal at http://127.0.0.1:5: start `kdal up`" in str(error)
    assert "<a href" not in str(error)
