"""The list of projects, a project's page, and what all pages have in common."""

import re
from pathlib import Path

import pytest

from kdal.web import pages
from kdal.web.app import create_app
from kdal.web.pages.blueprint import CONTENT_POLICY
from kdal.web.pages.panels import PANELS
from tests.kdal.web.pages.site import PASSWORD, USER, Site


def test_without_a_project_the_list_says_how_to_connect_one(site):
    assert "kdal connect --project N" in site.get("/projects").text


def test_the_list_shows_each_project_how_far_it_is_and_what_is_wrong(site, add_round, resources):
    add_round(0, state="closed")
    add_round(1, counted=31, facts={"held_out_score": 0.875, "metric": "accuracy", "held_out": 40})
    resources.storage.update_project(3, serving_round=1)
    resources.storage.put_project(4, "4.1", "<View/>", {})
    resources.storage.update_project(4, problem="Label Studio is down")
    page = site.get("/projects")
    assert "Project 3 labelling 31 of 50 labelled in round 1" in page.text
    assert "87.5% accuracy on 40 held-out labels" in page.text
    assert "Project 4 has a problem Label Studio is down." in page.text
    assert [a["href"] for a in page.of("a") if re.fullmatch(r"/projects/\d", a["href"])] == [
        "/projects/3",
        "/projects/4",
    ]


def test_the_list_is_sent_again_once_something_has_changed(site, project, add_round):
    (part,) = site.get("/projects").of("div", id="list")
    assert site.client.get(part["hx-get"]).status_code == 204
    add_round(0, counted=4)
    assert "4 of 50" in site.get(part["hx-get"]).text


def test_a_project_that_is_not_there_is_explained(site):
    for number in (99, 2**40):
        page = site.get(f"/projects/{number}", status=404)
        assert f"kdal knows no project {number}" in page.text
        assert "kdal connect --project" in page.text
    assert site.get("/projects/99/panels/now", status=404).of("h1")


def test_an_address_that_is_not_there_is_no_page_of_ours(site, project):
    assert site.client.get("/projects/x").status_code == 404
    assert "no part" in site.get("/projects/3/panels/nothing", status=404).text


def test_every_page_is_under_a_policy_that_runs_no_foreign_script(site, stranger, project):
    for path in ("/projects", "/projects/3", "/projects/99", "/projects/static/page.css", "/projects/sign-in"):
        with site.client.get(path) as response:
            assert response.headers["Content-Security-Policy"] == CONTENT_POLICY
            assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "unsafe" not in CONTENT_POLICY
    assert site.client.get("/projects").headers["Cache-Control"] == "no-store"


def test_no_page_needs_what_the_policy_forbids(site, add_round):
    add_round(0, state="computing", step="snapshot")
    panels = [f"/projects/3/panels/{name}" for name in PANELS]
    for page in (site.get(path) for path in ("/projects", "/projects/3", *panels)):
        assert page.of("style") == []
        assert [a for _, a in page.tags if "style" in a or any(name.startswith(("on", "hx-on")) for name in a)] == []
        assert [a for a in page.of("script") if not a.get("src", "").startswith("/projects/static/")] == []


def test_nothing_comes_from_another_site(site, project):
    page = site.get("/projects/3")
    loaded = [a.get("src") or a["href"] for tag in ("script", "link", "img") for a in page.of(tag)]
    assert loaded
    assert {address[:17] for address in loaded} == {"/projects/static/"}
    for address in loaded:
        with site.client.get(address) as response:
            assert response.status_code == 200


def test_vendored_libraries_come_with_their_licence_and_version():
    vendored = list((Path(pages.__file__).parent / "static" / "vendor").iterdir())
    assert vendored
    for folder in vendored:
        assert re.search(r"-\d+\.\d+\.\d+$", folder.name)
        assert (folder / "LICENSE").read_text()


HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> {{7*7}} \x1b[2J'


def test_what_others_have_written_is_shown_as_text(site, add_round, resources):
    add_round(0, state="failed", error=HOSTILE, step="publish", facts={"why_no_backbones": HOSTILE})
    add_round(1, facts={"verdict": HOSTILE, "promoted": True, "metric": HOSTILE, "held_out_score": 0.5, "held_out": 1})
    resources.storage.update_project(3, problem=HOSTILE, serving_round=1)
    resources.storage.beat("<b>worker</b>")
    for path in ("/projects", "/projects/3"):
        page = site.get(path)
        assert page.of("img") == []
        assert all("src" in a for a in page.of("script"))
        assert "\x1b" not in page.html
        assert '<script>alert("x")</script>' in page.text
        assert "{{7*7}}" in page.text


def test_no_secret_is_shown(site, project, resources):
    resources.storage.update_project(3, problem="GET https://me:hunter2@host/a?token=abcdefgh failed")
    html = site.get("/projects/3").html
    assert "hunter2" not in html
    assert "abcdefgh" not in html
    assert resources.settings.label_studio_api_key not in html


def test_addresses_follow_kdals_own_path_behind_a_proxy(open_resources):
    opened = open_resources(auth_user=USER, auth_password=PASSWORD, url="https://example.org/kdal")
    site = Site(create_app(opened).test_client())
    page = site.get("/projects/sign-in")
    assert all(a["href"].startswith("/kdal/projects") for a in page.of("link"))
    (form,) = page.of("form")
    assert form["action"].startswith("/kdal/projects/sign-in")


@pytest.mark.parametrize("name", list(PANELS))
def test_a_panel_that_has_not_changed_is_not_sent_again(site, add_round, name):
    add_round(0, counted=1)
    panel = site.get(f"/projects/3/panels/{name}")
    (section,) = panel.of("section")
    assert section["id"] == name
    assert site.client.get(section["hx-get"]).status_code == 204
    assert site.client.get(section["hx-get"] + "0").status_code == 200
