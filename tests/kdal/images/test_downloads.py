import json
import os
import time
import zlib

import jwt
import pytest

from kdal.images import downloads
from kdal.images.errors import UnreachableError
from kdal.images.loader import ImageLoader
from kdal.labelstudio.client import LabelStudioClient
from kdal_core.errors import AssetError
from tests.kdal.conftest import TOKEN
from tests.kdal.images.files import PHOTO, encode, read, refused
from tests.kdal.servers import Answer
from tests.kdal.values import outcome


def test_label_studios_own_files_are_fetched_with_the_token(make_loader, web):
    web.answers["/data/upload/1/a.png"] = Answer(encode(PHOTO))
    loader = make_loader(label_studio_url=web.url)
    assert read(loader, "/data/upload/1/a.png").size == (64, 48)
    assert web.seen[0].headers["Authorization"] == f"Token {TOKEN}"


def test_the_token_goes_to_no_other_host(make_loader, web, photo):
    loader = make_loader(label_studio_url="http://127.0.0.1:1")
    read(loader, photo)
    assert "Authorization" not in web.seen[0].headers


def test_the_token_goes_to_no_host_whose_name_only_begins_like_label_studios(make_loader, web, photo):
    loader = make_loader(label_studio_url=web.url[:-1])
    read(loader, photo)
    assert "Authorization" not in web.seen[0].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_does_not_follow_a_redirect_to_another_host(make_loader, web, other_web, status):
    """Another port is another host; so it is under another name of this machine."""
    other_web.answers["/a.png"] = Answer(encode(PHOTO))
    elsewhere = [f"{other_web.url}/a.png", f"{other_web.url}/a.png".replace("127.0.0.1", "localhost")]
    for i, target in enumerate(elsewhere):
        web.answers[f"/data/upload/{i}.png"] = Answer(status=status, headers={"Location": target})
        read(make_loader(label_studio_url=web.url), f"/data/upload/{i}.png")
        assert web.seen[-1].headers["Authorization"] == f"Token {TOKEN}"
    assert len(other_web.seen) == 2
    assert [seen.headers.get("Authorization") for seen in other_web.seen] == [None, None]


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_an_answer_that_is_an_error_is_told_with_its_number(loader, web, status):
    web.answers["/a.png"] = Answer(b"<h1>sorry</h1>", status)
    assert f": {status} " in refused(loader, f"{web.url}/a.png")


def test_a_server_that_cannot_be_reached_is_said_so(loader):
    assert "its server cannot be reached" in refused(loader, "http://127.0.0.1:1/a.png")


def test_a_presigned_signature_does_not_get_into_the_message(loader):
    told = refused(loader, f"http://127.0.0.1:1/{'a' * 100}?X-Amz-Signature=5ec4e7{'c0ffee' * 20}")
    assert "5ec4e7" not in told
    assert "c0ffee" not in told  # its end is shown of a long address


def test_an_endless_redirect_is_said_so(loader, web):
    web.answers["/a.png"] = Answer(status=302, headers={"Location": "/a.png"})
    assert "redirected without end" in refused(loader, f"{web.url}/a.png")


def test_a_redirect_to_what_is_no_address_is_refused(loader, web):
    for i, location in enumerate(["http://[", "file:///etc/passwd", "http://127.0.0.1:99999/", "ftp://host/x"]):
        web.answers[f"/{i}.png"] = Answer(status=302, headers={"Location": location})
        refused(loader, f"{web.url}/{i}.png")


def test_a_web_page_is_no_image(loader, web):
    web.answers["/a.png"] = Answer(b"<!doctype html><title>Log in</title>")
    assert "not an image" in refused(loader, f"{web.url}/a.png")


def test_an_answer_that_breaks_off_is_refused(loader, web):
    web.answers["/a.png"] = Answer(encode(PHOTO)[:100], headers={"Content-Length": "5000"}, with_length=False)
    refused(loader, f"{web.url}/a.png")


@pytest.mark.parametrize("with_length", [True, False])
def test_a_file_of_too_many_bytes_is_refused_whether_it_says_so_or_not(make_loader, web, with_length):
    web.answers["/a.png"] = Answer(os.urandom(3_000_000), with_length=with_length)
    loader = make_loader(max_image_bytes=100_000)
    assert "more than KDAL_MAX_IMAGE_BYTES = 100,000" in refused(loader, f"{web.url}/a.png")


def test_a_compressed_answer_counts_by_what_it_unpacks_to(make_loader, web):
    bomb = zlib.compress(bytes(50_000_000))
    web.answers["/a.png"] = Answer(bomb, headers={"Content-Encoding": "deflate"})
    assert "KDAL_MAX_IMAGE_BYTES" in refused(make_loader(max_image_bytes=100_000), f"{web.url}/a.png")


# ---------------------------------------------------------------------- under which name, and with which token


def signed(web):
    """The paths that were asked for with the token."""
    return [seen.path for seen in web.seen if TOKEN in seen.headers.get("Authorization", "")]


@pytest.fixture
def mounted(web):
    """A Label Studio below /ls of a host that others share; it holds one photo."""
    web.answers["/ls/data/upload/1/a.png"] = Answer(encode(PHOTO))
    return web


@pytest.mark.parametrize(
    "uri",
    [
        "/ls/data/upload/1/a.png",
        "/data/upload/1/a.png",
        "{url}/ls/data/upload/1/a.png",
        "//{host}/ls/data/upload/1/a.png",
    ],
)
def test_a_file_below_a_prefix_is_fetched_with_the_token_however_it_is_written(make_loader, mounted, uri):
    loader = make_loader(label_studio_url=f"{mounted.url}/ls")
    assert read(loader, uri.format(url=mounted.url, host=mounted.url.partition("//")[2])).size == (64, 48)
    assert signed(mounted) == ["/ls/data/upload/1/a.png"]


def test_a_file_under_label_studios_public_name_is_fetched_from_where_kdal_reaches_it(make_loader, mounted, other_web):
    """Inside of compose Label Studio is http://label-studio:8080, and its task data say http://localhost:8080."""
    loader = make_loader(label_studio_url=f"{mounted.url}/ls", label_studio_public_url=other_web.url)
    assert read(loader, f"{other_web.url}/data/upload/1/a.png").size == (64, 48)
    assert signed(mounted) == ["/ls/data/upload/1/a.png"]
    assert other_web.seen == []


@pytest.mark.parametrize(
    "uri",
    [
        "{url}/ls/../secret.png",
        "{url}/ls/%2e%2e/secret.png",
        "{url}/ls/%252e%252e/secret.png",
        "{url}/ls/..%2fsecret.png",
        "{url}/ls\\..\\secret.png",
        "{url}/lsx/secret.png",
        "{url}/secret.png",
        "//{host}/secret.png",
        "/ls/../secret.png",
        "/../secret.png",
        "/%2e%2e/secret.png",
        "http://127.0.0.1@{host}/ls/secret.png",
        "http://user:password@{host}/ls/secret.png",
    ],
)
def test_the_token_reaches_no_other_program_of_the_same_host(make_loader, mounted, uri):
    for path in ("/secret.png", "/lsx/secret.png"):
        mounted.answers[path] = Answer(encode(PHOTO))
    loader = make_loader(label_studio_url=f"{mounted.url}/ls")
    outcome(AssetError, lambda: read(loader, uri.format(url=mounted.url, host=mounted.url.partition("//")[2])))
    assert [path for path in signed(mounted) if not path.startswith("/ls/") or ".." in path] == []


# ---------------------------------------------------------------------- redirects of Label Studio's


def redirect(to, status=303):
    return Answer(status=status, headers={"Location": to})


def test_label_studio_may_lead_to_a_storage_which_gets_no_token(make_loader, web, other_web):
    web.answers["/data/upload/1/a.png"] = redirect(f"{other_web.url}/bucket/data/upload/1/a.png?X-Amz-Signature=1")
    other_web.answers["/bucket/data/upload/1/a.png"] = Answer(encode(PHOTO))
    assert read(make_loader(label_studio_url=web.url), "/data/upload/1/a.png").size == (64, 48)
    assert len(other_web.seen) == 1
    assert signed(other_web) == []


def test_label_studio_may_lead_to_another_of_its_own_addresses(make_loader, web, other_web):
    """Under its public name, too: kdal goes on at the address at which it reaches it."""
    web.answers["/tasks/7/resolve/"] = redirect(f"{other_web.url}/storage-data/a.png?key=1")
    web.answers["/storage-data/a.png"] = Answer(encode(PHOTO))
    loader = make_loader(label_studio_url=web.url, label_studio_public_url=other_web.url)
    assert read(loader, "/tasks/7/resolve/?fileuri=x").size == (64, 48)
    assert signed(web) == ["/tasks/7/resolve/?fileuri=x", "/storage-data/a.png?key=1"]
    assert other_web.seen == []


def test_who_is_not_label_studio_cannot_choose_what_is_asked_with_the_token(make_loader, web, other_web):
    web.answers["/data/upload/1/a.png"] = redirect(f"{other_web.url}/b.png")
    other_web.answers["/b.png"] = redirect(f"{web.url}/api/projects/1/next")
    refused(make_loader(label_studio_url=web.url), "/data/upload/1/a.png")
    assert [seen.path for seen in web.seen] == ["/data/upload/1/a.png", "/api/projects/1/next"]
    assert signed(web) == ["/data/upload/1/a.png"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("prefix", ["", "/ls"])
def test_a_label_studio_that_has_moved_is_told_with_the_setting(make_loader, web, other_web, status, prefix):
    """From http to https, or below a prefix: followed without the token it would say that the token is wrong."""
    web.answers["/data/upload/1/a.png"] = redirect(f"{other_web.url}{prefix}/data/upload/1/a.png", status)
    message = refused(make_loader(label_studio_url=web.url), "/data/upload/1/a.png")
    assert f"{web.url} redirects to {other_web.url}{prefix}: set LABEL_STUDIO_URL" in message
    assert other_web.seen == []


def test_an_endless_redirect_of_label_studios_is_said_so(make_loader, web):
    web.answers["/data/upload/1/a.png"] = redirect("/data/upload/1/b.png")
    web.answers["/data/upload/1/b.png"] = redirect("/data/upload/1/a.png")
    assert "redirected without end" in refused(make_loader(label_studio_url=web.url), "/data/upload/1/a.png")


def test_a_bearer_token_that_ran_out_is_replaced(make_settings, web):
    personal = jwt.encode(
        {"token_type": "refresh", "exp": int(time.time()) + 3600}, "a key of Label Studio's own here!"
    )
    bearers = [Answer(json.dumps({"access": name}).encode()) for name in ("opaque-1", "opaque-2", "opaque-3")]
    web.answers["/api/token/refresh/"] = bearers
    web.answers["/data/upload/1/a.png"] = [Answer(b"", 401), Answer(encode(PHOTO))]
    settings = make_settings(label_studio_url=web.url, label_studio_api_key=personal)
    loader = ImageLoader(settings, LabelStudioClient.of(settings))
    assert read(loader, "/data/upload/1/a.png").size == (64, 48)


def test_without_a_client_label_studio_is_asked_without_a_token(make_settings, web):
    web.answers["/data/upload/1/a.png"] = Answer(encode(PHOTO))
    assert read(ImageLoader(make_settings(label_studio_url=web.url), None), "/data/upload/1/a.png").size == (64, 48)
    assert signed(web) == []


@pytest.mark.parametrize("compressed", [False, True])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(loader, web, monkeypatch, compressed):
    monkeypatch.setattr(downloads, "DEADLINE", 0.2)
    data, headers = encode(PHOTO), {}
    if compressed:
        data, headers = zlib.compress(data), {"Content-Encoding": "deflate"}
    web.answers["/a.png"] = Answer(data, headers=headers, pause=0.05)
    assert "to send it" in refused(loader, f"{web.url}/a.png")


def test_no_host_gets_back_a_cookie_that_it_or_another_has_set(loader, web, other_web):
    for host in (web, other_web):
        host.answers["/a.png"] = Answer(encode(PHOTO), headers={"Set-Cookie": "who=you; Path=/"})
        host.answers["/b.png"] = Answer(encode(PHOTO))
    for host in (web, other_web):
        read(loader, f"{host.url}/a.png")
        read(loader, f"{host.url}/b.png")
    assert len(web.seen + other_web.seen) == 4
    assert not any("Cookie" in seen.headers for seen in web.seen + other_web.seen)


def test_the_cookies_of_label_studio_stay_there(make_loader, web, other_web):
    """A browser's cookies know hosts, and no ports: another server of this machine would get them."""
    web.answers["/data/upload/1/a.png"] = Answer(encode(PHOTO), headers={"Set-Cookie": "sessionid=5ec4e7; Path=/"})
    other_web.answers["/b.png"] = Answer(encode(PHOTO))
    loader = make_loader(label_studio_url=web.url)
    read(loader, "/data/upload/1/a.png")
    read(loader, f"{other_web.url}/b.png")
    assert "Cookie" not in other_web.seen[0].headers


# ---------------------------------------------------------------------- what kind of failure it is


@pytest.mark.parametrize(
    ("status", "away"),
    [(401, True), (403, True), (404, False), (410, False), (408, True), (429, True), (500, True), (503, True)],
)
def test_a_missing_file_is_told_from_a_server_that_is_away(make_loader, web, status, away):
    web.answers["/a.png"] = web.answers["/data/a.png"] = Answer(b"", status)
    loader = make_loader(label_studio_url=web.url)
    for uri in (f"{web.url}/a.png", "/data/a.png"):
        with pytest.raises(AssetError) as caught:
            read(loader, uri)
        assert isinstance(caught.value, UnreachableError) is away
