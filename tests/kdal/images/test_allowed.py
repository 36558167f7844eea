"""Where images may be read: what private addresses, redirects and other projects' places get to hear."""

import ipaddress
import socket

import pytest

from kdal.images.allowed import REFUSED, Allowed, Sources, is_public
from kdal.images.errors import UnreachableError
from kdal_core.errors import AssetError
from tests.kdal.images.files import PHOTO, encode, read, refused
from tests.kdal.servers import Answer
from tests.kdal.values import outcome

PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("::1", "::", "fd00::1", "fe80::1", "ff02::1", "ff0e::1", "2001:db8::1"),
    *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "2002:a00:1::"),
]


def reason(loader, uri):
    """What is said of an address, without the address."""
    return refused(loader, uri).rpartition("png: ")[2]


@pytest.fixture
def closed(make_loader):
    """A loader as it is by default; Label Studio is elsewhere."""
    return make_loader(image_sources="", label_studio_url="http://127.0.0.1:1")


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_no_use_to_the_world_is_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_an_address_of_the_internet_is_public(address):
    assert is_public(ipaddress.ip_address(address))


def names_of(port):
    return [
        *(f"http://{host}:{port}/a.png" for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001")),
        *(f"http://{host}:{port}/a.png" for host in ("0.0.0.0", "0177.0.0.1", "[::ffff:127.0.0.1]", "LOCALHOST")),
        f"http://user:password@127.0.0.1:{port}/a.png",
        f"//127.0.0.1:{port}/a.png",
    ]


def test_nothing_on_this_machine_is_asked_whatever_its_name(closed, web):
    web.answers["/a.png"] = Answer(encode(PHOTO))
    for uri in names_of(web.url.rpartition(":")[2]):
        outcome(AssetError, lambda uri=uri: read(closed, uri))
    assert web.seen == []


def test_an_open_port_a_closed_one_and_a_name_that_is_not_known_get_one_answer(closed, web):
    web.answers["/a.png"] = Answer(encode(PHOTO))
    uris = [f"{web.url}/a.png", f"{web.url}/b.png", "http://127.0.0.1:1/a.png", "http://no-such-name.invalid/a.png"]
    uris += ["http://10.255.255.1/a.png", "http://169.254.169.254/latest/meta-data.png", "http://[fd00::1]/a.png"]
    answers = {reason(closed, uri) for uri in uris}
    assert len(answers) == 1
    assert "its server cannot be reached, or is on a private network that KDAL_IMAGE_SOURCES" in answers.pop()
    assert web.seen == []


def test_private_hosts_out_of_reach_are_an_outage_rather_than_bad_images(closed, web):
    with pytest.raises(UnreachableError):
        read(closed, f"{web.url}/a.png")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_private_address_is_not_followed(make_loader, web, other_web, status):
    port = web.url.rpartition(":")[2]
    other_web.answers["/secret.png"] = Answer(encode(PHOTO))
    web.answers["/a.png"] = Answer(status=status, headers={"Location": f"{other_web.url}/secret.png"})
    loader = make_loader(image_sources=f"127.0.0.1:{port}", label_studio_url="http://127.0.0.1:1")
    assert "private network" in refused(loader, f"{web.url}/a.png")
    assert len(web.seen) == 1
    assert other_web.seen == []


def test_a_redirect_of_label_studios_to_a_private_address_is_not_followed_but_to_its_storage(
    make_loader, web, other_web
):
    other_web.answers["/bucket/a.png"] = Answer(encode(PHOTO))
    web.answers["/data/upload/1/a.png"] = Answer(status=303, headers={"Location": f"{other_web.url}/bucket/a.png"})
    fields = {"image_sources": "", "label_studio_url": web.url}
    assert "private network" in refused(make_loader(**fields), "/data/upload/1/a.png")
    assert other_web.seen == []
    storage = Sources(endpoints=frozenset({other_web.url}))
    assert read(make_loader(**fields, sources=storage), "/data/upload/1/a.png").size == PHOTO.size


def test_label_studios_own_files_need_no_setting(make_loader, web):
    web.answers["/data/upload/1/a.png"] = Answer(encode(PHOTO))
    loader = make_loader(image_sources="", label_studio_url=web.url, sources=Sources())
    assert read(loader, "/data/upload/1/a.png").size == PHOTO.size
    assert read(loader, f"{web.url}/data/upload/1/a.png").size == PHOTO.size


@pytest.mark.parametrize("path", ["/api/projects/1/next", "/user/logout", "/tasks/7/", "/admin/", "/data", "/"])
def test_what_label_studio_does_rather_than_holds_is_not_asked(make_loader, web, path):
    web.answers[path] = Answer(encode(PHOTO))
    assert "not an address at which" in refused(make_loader(label_studio_url=web.url), path)
    assert web.seen == []
    read(make_loader(label_studio_url=web.url), web.url + path)  # which may be another program of the same host
    assert "Authorization" not in web.seen[0].headers


@pytest.mark.parametrize("setting", ["127.0.0.1", "{place}", "127.0.0.0/8", " x.example , {place}", "127.0.0.1/32"])
def test_a_private_host_is_read_where_a_setting_names_it(make_loader, web, photo, setting):
    place = web.url.removeprefix("http://")
    loader = make_loader(image_sources=setting.format(place=place), label_studio_url="http://127.0.0.1:1")
    assert read(loader, photo).size == PHOTO.size


@pytest.mark.parametrize("setting", ["127.0.0.1:1", "10.0.0.0/8", "localhost", "s3://127.0.0.1"])
def test_a_setting_for_another_place_opens_nothing(make_loader, web, photo, setting):
    loader = make_loader(image_sources=setting, label_studio_url="http://127.0.0.1:1")
    assert "private network" in refused(loader, photo)
    assert web.seen == []


def test_a_project_reads_no_host_but_those_of_its_tasks(make_loader, web, photo):
    fields = {"image_sources": "127.0.0.0/8", "label_studio_url": "http://127.0.0.1:1"}
    mine = Sources.of([photo, "not an address", "s3://bucket/a.png", "http://["], [])
    assert mine == Sources(frozenset({"127.0.0.1"}))
    assert read(make_loader(**fields, sources=mine), photo).size == PHOTO.size
    assert reason(make_loader(image_sources="", sources=Sources()), "http://example.org/a.png") == REFUSED


def test_a_name_that_leads_elsewhere_at_the_second_look_up_gains_nothing(closed, web, monkeypatch):
    """The connection goes to the address that was checked: here a name server says "public" once, then "private"."""
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    tried = []

    def look_up(host, port, *_args, **_options):
        address = host if host[0].isdigit() else next(answers)
        tried.append(address)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(self, place):
        tried.append(place[0])
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket.socket, "connect", connect)
    port = web.url.rpartition(":")[2]
    assert "cannot be reached" in refused(closed, f"http://rebinding.example:{port}/a.png")
    assert set(tried) == {"93.184.216.34"}


def test_a_host_with_one_private_address_among_public_ones_is_private():
    allowed = Allowed()
    assert allowed.peer("host", 80, "8.8.8.8")
    assert not allowed.peer("host", 80, "10.0.0.1")


def test_sources_come_back_as_they_were_written():
    told = Sources.of(["https://A.example/x.png"], [{"bucket": "photos", "s3_endpoint": "http://minio:9000"}, {}])
    assert Sources.from_json(told.as_json()) == told
    assert Sources.from_json(None) == Sources()
    assert (told | Sources(hosts=None)).hosts is None
