from urllib.parse import quote, unquote, urlsplit

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st
from urllib3.util import parse_url

from kdal.labelstudio.addresses import Addresses

INNER, PUBLIC = "http://label-studio:8080", "https://host/ls"
BOTH = Addresses(INNER, PUBLIC)
FILE = "/data/upload/1/a.png"


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/1/a.png",
        "/ls/data/upload/1/a.png",
        "http://label-studio:8080/data/upload/1/a.png",
        "HTTP://Label-Studio:8080/data/upload/1/a.png",
        "http://label-studio:08080/data/upload/1/a.png",
        "https://host/ls/data/upload/1/a.png",
        "https://HOST:443/ls/data/upload/1/a.png",
        "https://host:/ls/data/upload/1/a.png",
        "//host/ls/data/upload/1/a.png",
        "https://host/%6cs/data/upload/1/a.png",
        "https://host/x/../ls/data/./upload/1/a.png",
        "/data/upload/2/../1/a.png",
        "/data/upload/1/a.png#fragment",
    ],
)
def test_a_file_of_label_studios_is_known_under_all_its_names(address):
    assert BOTH.path(address) == FILE


@pytest.mark.parametrize(
    "address",
    [
        "https://host/data/upload/1/a.png",  # another program on the same host
        "https://host/lsx/data/upload/1/a.png",
        "https://host/LS/data/upload/1/a.png",
        "https://host//ls/data/upload/1/a.png",
        "https://host/ls",
        "http://host/ls/data/upload/1/a.png",
        "https://host:8443/ls/data/upload/1/a.png",
        "https://host:0/ls/data/upload/1/a.png",
        "https://host:port/ls/data/upload/1/a.png",
        "https://host.evil/ls/data/upload/1/a.png",
        "https://evil.host/ls/data/upload/1/a.png",
        "http://label-studio/data/upload/1/a.png",
        "ftp://host/ls/data/upload/1/a.png",
        "//evil/ls/data/upload/1/a.png",
        "///ls/data/upload/1/a.png",
        "https:/host/ls/data/upload/1/a.png",
        "https:host/ls/data/upload/1/a.png",
        "ls/data/upload/1/a.png",
        "data/upload/1/a.png",
        "",
        # users and passwords
        "https://host@evil/ls/data/upload/1/a.png",
        "https://me@host/ls/data/upload/1/a.png",
        "https://me:password@host/ls/data/upload/1/a.png",
        "https://evil#@host/ls/data/upload/1/a.png",
        "https://host%40evil/ls/data/upload/1/a.png",
        # what some read in one way and some in another
        "https://host\\@evil/ls/data/upload/1/a.png",
        "https://evil\\@host/ls/data/upload/1/a.png",
        "https:\\\\host\\ls\\data\\upload\\1\\a.png",
        "/\\evil/data/upload/1/a.png",
        "https://ho\nst/ls/data/upload/1/a.png",
        "https://host\t/ls/data/upload/1/a.png",
        " https://host/ls/data/upload/1/a.png",
        "/data/upload/1/a.png\n",
        "/data/upload/1/\x00.png",
        "/data/upload/1/%00.png",
        "/data/upload/1/%0d%0aX: y.png",
        "https://[host/ls/data/upload/1/a.png",
        # out of the prefix
        "https://host/ls/../admin/a.png",
        "https://host/ls/./../admin/a.png",
        "https://host/ls/data/../../admin/a.png",
        "https://host/ls/%2e%2e/admin/a.png",
        "https://host/ls/.%2E/admin/a.png",
        "https://host/ls/%252e%252e/admin/a.png",
        "https://host/ls/%25252525252525252e%25252525252525252e/admin/a.png",
        "https://host/ls/..%2fadmin/a.png",
        "https://host/ls/data%2f..%2f..%2fadmin/a.png",
        "https://host/ls/..%5cadmin/a.png",
        "https://host/ls\\..\\admin/a.png",
        "https://host/ls/..;/admin/a.png",
        "/data/%2e%2e/%2e%2e/admin/a.png",
    ],
)
def test_what_is_not_for_sure_label_studios_is_nobodys_that_may_have_the_token(address):
    assert BOTH.path(address) is None


def test_dots_that_lead_up_stay_below_label_studio():
    """They are followed before anything is asked for: what is left of them lies below LABEL_STUDIO_URL."""
    alone = Addresses("https://host/ls")
    assert alone.path("/ls/../admin/a.png") == "/admin/a.png"
    assert alone.path("/../../admin/a.png") == "/admin/a.png"


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/local-files/?d=a%20b/c.png", "/data/local-files/?d=a%20b/c.png"),
        ("https://host/ls/data/local-files/?d=..\\c.png", "/data/local-files/?d=..\\c.png"),
        ("/tasks/7/resolve/?fileuri=czM6Ly9hL2I=", "/tasks/7/resolve/?fileuri=czM6Ly9hL2I="),
        ("/data/upload/1/a b.png", "/data/upload/1/a b.png"),
        ("/data/upload/1/größe.png", "/data/upload/1/größe.png"),
        ("/data/upload/1/100%25.png", "/data/upload/1/100%25.png"),
        ("/data/upload/1/100%.png", "/data/upload/1/100%.png"),
        ("/data/upload/1/a..png", "/data/upload/1/a..png"),
        ("/data/upload/1/...", "/data/upload/1/..."),
        ("/data/upload/1/a%2Fb.png", "/data/upload/1/a%2Fb.png"),
        ("/data/upload/1/a;v=1.png", "/data/upload/1/a;v=1.png"),
    ],
)
def test_names_and_queries_stay_as_they_are(address, path):
    assert BOTH.path(address) == path


@pytest.mark.parametrize(
    ("url", "public", "address", "path"),
    [
        # mounted at a name that Label Studio's own paths begin with
        ("http://host/data", "", "/data/data/upload/1/a.png", FILE),
        ("http://host/data", "", "/data/upload/1/a.png", FILE),
        ("http://host/a/b", "", "/a/b/data/upload/1/a.png", FILE),
        ("http://host/a/b", "", "/data/upload/1/a.png", FILE),
        ("http://host/a/b/", "", "http://host/a/b/data/upload/1/a.png", FILE),
        # one name of the server lies below the other
        ("http://host", "http://host/ls", "http://host/ls/data/upload/1/a.png", FILE),
        ("http://host", "http://host/ls", "http://host/data/upload/1/a.png", FILE),
        ("http://[::1]:8080", "", "http://[::1]:8080/data/upload/1/a.png", FILE),
        ("http://127.0.0.1:8080", "", "http://127.0.0.1:8080/data/upload/1/a.png", FILE),
        ("http://127.0.0.1:8080", "", "http://localhost:8080/data/upload/1/a.png", None),
        ("http://127.0.0.1:8080", "http://localhost:8080", "http://localhost:8080/data/upload/1/a.png", FILE),
        ("http://host:80", "", "http://host/data/upload/1/a.png", FILE),
    ],
)
def test_servers_are_mounted_anywhere(url, public, address, path):
    assert Addresses(url, public).path(address) == path


def test_new_addresses_are_written_as_label_studio_writes_them():
    assert Addresses("http://127.0.0.1:8080").stored(FILE) == FILE
    assert Addresses("http://127.0.0.1:8080/ls/").stored(FILE) == f"/ls{FILE}"
    assert BOTH.stored(FILE) == f"/ls{FILE}"
    assert BOTH.path(BOTH.stored(FILE)) == FILE


@pytest.mark.parametrize(
    "url", ["", "host", "ftp://host", "http://", "http://me@host", "http://host:99999", "http://["]
)
def test_what_is_no_address_of_a_server_is_refused(url):
    with pytest.raises(ValueError, match=r"address|Port|IPv6"):
        Addresses(url)


PIECES = ["ls", "data", "..", ".", "%2e%2e", "%2E.", "..;x", "%252e%252e", "a%2f..", "a%5c..", "\\", "", "x", "%00"]
HEADS = ["https://host", "https://host:443", "http://label-studio:8080", "//host", "", "https://evil", "https://a@host"]


@given(
    st.text(max_size=40)
    | st.builds(
        lambda head, pieces, tail: "/".join([head, *pieces]) + tail,
        st.sampled_from(HEADS),
        st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=7),
        st.sampled_from(["", "?d=../x", "#x"]),
    )
)
@example("/" + "%25" * 5000 + "2e")
def test_whatever_the_address_the_token_stays_below_label_studio(address):
    """Asked of the libraries that send the request: where would it go, and where after all decoding?"""
    path = BOTH.path(address)
    if path is None:
        return
    sent = requests.Request("GET", PUBLIC + path).prepare().url
    assert sent is not None
    assert sent.startswith(PUBLIC + "/")
    assert parse_url(sent).host == "host"
    segments = urlsplit(sent).path
    for _ in range(10):
        segments = unquote(segments)
    assert ".." not in segments.replace("\\", "/").split("/")


@given(st.text(st.characters(exclude_characters="/\\?#%", exclude_categories=["C"]), min_size=1, max_size=20))
def test_any_file_name_is_found_below_each_of_the_names(name):
    if name.partition(";")[0] in (".", ".."):
        return
    written = BOTH.stored(f"/data/upload/1/{quote(name)}")
    assert unquote(BOTH.path(written) or "") == f"/data/upload/1/{name}"
