"""Who may see the pages: nobody without the password, and no other site in a user's name."""

import itsdangerous
import pytest
from flask import Response

from kdal.web.app import create_app
from kdal.web.pages.session import GUESSES, LASTS, PAUSE, Session, Sessions
from tests.kdal.web.pages.site import PASSWORD, USER, Site, form_token

ADDRESSES = ["/projects", "/projects/3", "/projects/3/panels/now", "/projects/99"]


@pytest.mark.parametrize("path", ADDRESSES)
def test_who_has_not_signed_in_is_told_nothing(stranger, project, path):
    response = stranger.client.get(path)
    assert response.status_code == 303
    assert response.headers["Location"].startswith("/projects/sign-in?back=/projects")
    assert "digit" not in response.text


def test_a_part_of_a_page_sends_the_whole_page_to_sign_in(stranger, project):
    response = stranger.client.get("/projects/3/panels/now", headers={"HX-Request": "true"})
    assert (response.status_code, response.text) == (200, "")
    assert response.headers["HX-Redirect"] == "/projects/sign-in"


def test_signing_in_leads_back_to_the_page_that_was_asked_for(stranger, project):
    response = stranger.sign_in(back="/projects/3")
    assert response.headers["Location"] == "/projects/3"
    stranger.get("/projects/3")


@pytest.mark.parametrize(
    "back", ["//evil.example", "https://evil.example/projects/3", "/projects/../x", "\\\\evil", "/projectsevil"]
)
def test_signing_in_leads_nowhere_else(stranger, back):
    assert stranger.sign_in(back=back).headers["Location"] == "/projects"


@pytest.mark.parametrize(
    ("user", "password"), [(USER, "wrong"), ("other", PASSWORD), ("", ""), (USER, ""), (USER, "\udcff")]
)
def test_a_wrong_password_signs_nobody_in(stranger, user, password):
    response = stranger.sign_in(user, password.encode(errors="surrogateescape"))
    assert response.status_code == 401
    assert "Wrong user or password" in response.text
    assert stranger.client.get("/projects").status_code == 303


def test_after_some_wrong_passwords_even_the_right_one_waits(stranger):
    for _ in range(GUESSES):
        stranger.sign_in(USER, "wrong")
    response = stranger.sign_in()
    assert response.status_code == 429
    assert "Try again in" in response.text
    assert stranger.client.get("/projects").status_code == 303


def test_tries_come_back_and_the_right_password_gives_all_of_them(make_settings):
    time = [0.0]
    sessions = Sessions(make_settings(auth_user=USER, auth_password=PASSWORD), clock=lambda: time[0])
    for _ in range(GUESSES):
        assert sessions.sign_in(USER, "wrong", "here") is None
    assert sessions.sign_in(USER, PASSWORD, "here") is None
    assert sessions.sign_in(USER, PASSWORD, "elsewhere") is not None
    time[0] += PAUSE
    assert sessions.wait("here") == 0
    assert sessions.sign_in(USER, PASSWORD, "here") is not None
    for _ in range(GUESSES - 1):
        sessions.sign_in(USER, "wrong", "here")
    assert sessions.wait("here") == 0


def test_a_changed_password_signs_everybody_out(make_settings, stranger, site, resources):
    cookie = site.client.get_cookie("kdal_session").value
    same = Sessions(resources.settings)
    assert same.read(cookie).user == USER
    assert Sessions(resources.settings.model_copy(update={"auth_password": "new"})).read(cookie) is None
    assert Sessions(make_settings(auth_user=USER, auth_password=PASSWORD, webhook_secret="other")).read(cookie) is None


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "W251bGwsICJ4Il0.Z.z", "é" * 3, "x" * 5000])
def test_a_cookie_that_is_not_ours_is_none(resources, cookie):
    assert Sessions(resources.settings).read(cookie) is None


def test_a_session_ends(resources, monkeypatch):
    sessions, response = Sessions(resources.settings), Response()
    sessions.write(response, Session.begin(USER))
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie  # KDAL_URL is http
    value = cookie.split("=", 1)[1].split(";")[0]
    assert sessions.read(value).user == USER
    late = itsdangerous.TimestampSigner.get_timestamp
    monkeypatch.setattr(itsdangerous.TimestampSigner, "get_timestamp", lambda self: late(self) + LASTS + 5)
    assert sessions.read(value) is None


def test_the_cookie_is_for_https_alone_where_kdal_is(open_resources):
    opened = open_resources(auth_user=USER, auth_password=PASSWORD, url="https://kdal.example/behind")
    response = Site(create_app(opened).test_client()).sign_in()
    assert "Secure" in response.headers["Set-Cookie"]
    assert response.headers["Location"] == "/behind/projects"


def test_a_form_without_its_token_or_with_another_is_refused(site, add_round, resources):
    add_round(0, state="computing")
    for token in ("", "wrong", "é"):
        response = site.client.post("/projects/3/cancel", data={"form_token": token})
        assert response.status_code == 403
        assert "load the page again" in response.text
    assert site.client.post("/projects/3/cancel").status_code in (403, 411)
    assert resources.storage.round(3, 0).state == "computing"


def test_a_form_of_another_session_is_refused(resources, site, add_round):
    add_round(0, state="computing")
    other = Site(create_app(resources).test_client())
    other.sign_in()
    token = form_token(other.client.get("/projects").text)
    assert site.post("/projects/3/cancel", token=token).status_code == 403


def test_a_form_before_signing_in_does_nothing(stranger, add_round, resources):
    add_round(0, state="computing")
    token = form_token(stranger.client.get("/projects/sign-in").text)
    assert stranger.post("/projects/3/cancel", token=token).headers["Location"].startswith("/projects/sign-in")
    assert resources.storage.round(3, 0).state == "computing"


def test_a_huge_form_is_refused(site):
    assert site.post("/projects/sign-out", more="x" * 100_000).status_code == 413


def test_signing_out_ends_the_session(site):
    assert site.post("/projects/sign-out").headers["Location"] == "/projects/sign-in"
    assert site.client.get("/projects").status_code == 303


def test_the_page_to_sign_in_says_where_user_and_password_are_to_be_had(stranger):
    assert "kdal credentials" in stranger.get("/projects/sign-in").text


def test_what_kdal_made_up_at_its_first_start_opens_the_pages(open_resources):
    resources = open_resources(label_studio_url="http://127.0.0.1:9")
    made = Site(create_app(resources).test_client())
    known = resources.settings.with_credentials()
    assert made.sign_in(known.auth_user, known.auth_password).status_code == 303
    assert made.client.get("/projects").status_code == 200


def test_basic_authentication_opens_no_page_and_a_session_opens_no_protocol(site):
    assert site.client.get("/metrics").status_code == 401
    assert site.client.get("/versions").status_code == 401
