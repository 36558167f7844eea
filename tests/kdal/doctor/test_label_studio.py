"""Each fault between kdal and Label Studio is told with what mends it; the real one is asked in tests/integration."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kdal.doctor import examine, label_studio
from kdal.doctor.finding import checked
from kdal.processes.child import free_port
from kdal.storage.database import Storage
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.servers import Answer

BANNED = "URL resolves to a reserved network address (block: 127.0.0.0/8)"


def wrong(check, settings):
    """What a check says is wrong, and what mends it."""
    found = checked("part", lambda: check(settings))
    assert not found.ok
    return f"{found.said}; {found.fix}"


def answer(value, status=200):
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


@pytest.fixture
def settings(make_settings, web):
    return make_settings(label_studio_url=web.url, url=web.url)


@pytest.mark.parametrize(
    ("ours", "theirs", "fine"),
    [
        ("http://127.0.0.1:9090", "http://localhost:8080", True),
        ("http://kdal:9090", "http://label-studio:8080", True),
        ("http://127.0.0.1:9090", "http://label-studio:8080", False),
        ("http://localhost:9090", "https://ls.example.com/ls", False),
        ("http://[::1]:9090", "http://192.168.1.7:8080", False),
    ],
)
def test_an_address_that_only_this_machine_has_cannot_be_reached_from_another(make_settings, ours, theirs, fine):
    settings = make_settings(url=ours, label_studio_url=theirs)
    found = checked("address", lambda: label_studio.own_address(settings))
    assert found.ok is fine
    assert fine or "set KDAL_URL" in found.fix


def test_a_server_that_does_not_run_or_is_another(settings, web, make_settings):
    web.answers["/health"] = answer({"status": "UP", "model_class": "kdal"})
    assert label_studio.own_server(settings) == f"answers at {web.url}"
    web.answers["/health"] = answer({"status": "UP", "model_class": "YOLO"})
    assert "is not kdal" in wrong(label_studio.own_server, settings)
    web.answers["/health"] = Answer(b"<html>", 200)
    assert "is not kdal" in wrong(label_studio.own_server, settings)
    nobody = make_settings(url=f"http://127.0.0.1:{free_port()}")
    assert "Connection refused; start `kdal up`" in wrong(label_studio.own_server, nobody)


def test_a_label_studio_that_is_away_redirected_or_below_a_path(settings, web, make_settings):
    web.answers["/api/version"] = answer({"release": "1.23.2"})
    assert label_studio.answers(settings) == f"1.23.2 at {web.url}"
    web.answers["/api/version"] = answer({"release": "1.9.0"})
    assert "tested with 1.23.2" in label_studio.answers(settings)
    web.answers["/api/version"] = Answer(status=301, headers={"Location": "https://ls.example.com/ls/api/version/"})
    assert "set LABEL_STUDIO_URL=https://ls.example.com/ls," in wrong(label_studio.answers, settings)
    web.answers["/api/version"] = Answer(b"no such page", 404)
    assert "served below a path" in wrong(label_studio.answers, settings)
    nobody = make_settings(label_studio_url=f"http://127.0.0.1:{free_port()}")
    assert "start Label Studio" in wrong(label_studio.answers, nobody)
    assert all("Authorization" not in seen.headers for seen in web.seen)


@pytest.mark.parametrize(("differ", "said"), [(0, None), (-600, "behind"), (3600, "ahead of")])
def test_clocks_that_differ(make_settings, differ, said):
    class Shifted(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def date_time_string(self, timestamp=None):
            return super().date_time_string(time.time() + differ)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Shifted)
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    settings = make_settings(label_studio_url=f"http://127.0.0.1:{server.server_port}")
    if said is None:
        assert "of Label Studio's" in label_studio.clock(settings)
    else:
        told = wrong(label_studio.clock, settings)
        assert f"{said} this machine's" in told
        assert "NTP" in told
    thread.join()
    server.server_close()


def test_a_token_that_is_missing_or_refused(settings, web, make_settings):
    web.answers["/api/current-user/whoami"] = answer({"email": "owner@example.com"})
    assert label_studio.token(settings) == "legacy token of owner@example.com"
    web.answers["/api/current-user/whoami"] = answer({"detail": "Invalid token."}, 401)
    assert "legacy tokens are switched off" in wrong(label_studio.token, settings)
    missing = make_settings(label_studio_url=web.url, label_studio_api_key="")
    assert "copy a token" in wrong(label_studio.token, missing)


def test_an_address_that_label_studio_bans(settings, web):
    web.answers["POST /api/webhooks/"] = answer({"detail": "Project not found."}, 404)
    assert "may send to" in label_studio.address_allowed(settings)
    web.answers["POST /api/webhooks/"] = answer({"detail": BANNED}, 403)
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in wrong(label_studio.address_allowed, settings)
    web.answers["POST /api/webhooks/"] = answer({"id": 7}, 201)
    web.answers["DELETE /api/webhooks/7/"] = Answer(status=204)
    assert "may send to" in label_studio.address_allowed(settings)
    assert [seen.path for seen in web.seen if seen.method == "DELETE"] == ["/api/webhooks/7/"]


def test_a_way_back_that_label_studio_does_not_find(settings, web):
    storage = Storage(settings.sqlalchemy_url)
    assert "no project is connected" in label_studio.way_back(settings)
    storage.put_project(3, "3.1", DIGITS_CONFIG, {})
    storage.update_project(3, backend_id=5)
    storage.close()
    backend = {"id": 5, "url": "http://kdal:9090", "state": "CO"}
    web.answers["/api/ml"] = answer([backend])
    assert label_studio.way_back(settings) == "Label Studio reaches kdal for 1 project"
    web.answers["/api/ml"] = answer([backend | {"state": "DI", "error_message": "no route\nto host"}])
    told = wrong(label_studio.way_back, settings)
    assert "of project 3, Label Studio does not reach it: no route to host" in told
    assert "curl http://kdal:9090/health" in told


def test_what_depends_on_a_part_that_is_wrong_is_left_out(make_settings):
    nobody = f"http://127.0.0.1:{free_port()}"
    settings = make_settings(label_studio_url=nobody, url=nobody)
    found = list(examine(settings))
    assert [one.part for one in found if not one.ok] == ["KDAL_HOME", "database", "kdal's server", "Label Studio"]
    assert [one.part for one in found][-1] == "Label Studio"
    assert not settings.home_path.exists()  # whoever looks makes nothing
    assert all(one.fix or "kdal up" in one.said for one in found if not one.ok)
