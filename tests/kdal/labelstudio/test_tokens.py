"""Legacy and personal access tokens."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest

from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from tests.kdal.conftest import TOKEN
from tests.kdal.labelstudio.calls import HTML, answer
from tests.kdal.servers import Answer


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


def test_threads_share_one_client_and_one_bearer_token(web, personal):
    bearer = token("access", 300)
    web.answers = {"/api/token/refresh/": answer({"access": bearer}), "/api/projects/3": answer({"id": 3})}
    client = LabelStudioClient(web.url, personal)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: client.project(3), range(64))) == [{"id": 3}] * 64
    assert [seen.path for seen in web.seen].count("/api/token/refresh/") == 1


def test_a_bearer_token_is_not_asked_for_through_a_redirect(web, other_web, personal):
    web.answers["/api/token/refresh/"] = Answer(status=307, headers={"Location": f"{other_web.url}/api/token/refresh/"})
    with pytest.raises(LabelStudioError, match=f"set LABEL_STUDIO_URL to {other_web.url}"):
        LabelStudioClient(web.url, personal).project(3)
    assert other_web.seen == []
