"""`kdal doctor` on a kdal and a Label Studio that run, as they should be and with real faults between them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kdal.doctor import label_studio as checks
from kdal.doctor.finding import checked
from kdal.processes.embedded import EmbeddedLabelStudio
from kdal.settings import Settings
from tests.integration.harness import Api, Project
from tests.integration.loop.running import RunningKdal
from tests.integration.proxy import Proxy


@pytest.fixture
def settings(kdal: RunningKdal, label_studio: EmbeddedLabelStudio) -> Callable[..., Settings]:
    def made(**fields: str) -> Settings:
        usual = {"label_studio_url": label_studio.url, "label_studio_api_key": label_studio.token, "url": kdal.url}
        return Settings(**{"home": kdal.home, **usual, **fields})

    return made


def wrong(check: Callable[[Settings], str], settings: Settings) -> str:
    found = checked("part", lambda: check(settings))
    assert not found.ok, found
    return f"{found.said}; {found.fix}"


def test_where_nothing_is_wrong_the_doctor_says_so_and_leaves_nothing_behind(
    kdal: RunningKdal, ls_api: Api, digits_project: Callable[[int], tuple[Project, dict[int, int]]]
) -> None:
    project, _ = digits_project(8)
    kdal.connect(project)
    kdal.wait_open(project, 0)
    before = ls_api.get("/api/webhooks/")
    answer = kdal.cli("doctor", "--json")
    assert answer.returncode == 0, answer.stdout
    found = {one["part"]: one["said"] for one in json.loads(answer.stdout)}
    assert found["token"].startswith("legacy token of ")
    assert found["worker"] == "worker-1"
    assert "Label Studio reaches kdal" in found["way back"]
    assert "may send to" in found["address allowed"]
    assert found["Label Studio"].startswith("1.23.2")
    assert ls_api.get("/api/webhooks/") == before


def test_a_redirect_a_path_a_wrong_token_and_a_wrong_address_are_told(
    settings: Callable[..., Settings], label_studio: EmbeddedLabelStudio, proxy: Proxy
) -> None:
    with Proxy(redirects_to=label_studio.url) as redirecting:
        told = wrong(checks.answers, settings(label_studio_url=redirecting.url))
    assert f"set LABEL_STUDIO_URL={label_studio.url}," in told
    with Proxy(prefix="/ls") as mounted:
        mounted.target = label_studio.url
        assert checks.answers(settings(label_studio_url=mounted.url)).startswith("1.23.2")
        assert "served below a path" in wrong(
            checks.answers, settings(label_studio_url=mounted.url.removesuffix("/ls"))
        )
    assert "it is wrong, or a legacy token" in wrong(checks.token, settings(label_studio_api_key="0" * 40))
    assert "is no Label Studio" in wrong(checks.answers, settings(label_studio_url=settings().url))
    assert "is not kdal" in wrong(checks.own_server, settings(url=label_studio.url))
    banned = (403, '{"detail": "URL resolves to a reserved network address (block: 127.0.0.0/8)"}')
    with proxy.rule("POST", "/api/webhooks/$", answer=banned):
        told = wrong(checks.address_allowed, settings(label_studio_url=proxy.url))
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in told


def test_a_kdal_that_does_not_run_any_more_is_told_by_label_studio(
    killable_kdal: RunningKdal,
    settings: Callable[..., Settings],
    digits_project: Callable[[int], tuple[Project, dict[int, int]]],
) -> None:
    kdal = killable_kdal
    project, _ = digits_project(8)
    kdal.connect(project)
    kdal.wait_open(project, 0)
    of_it = settings(url=kdal.url, home=str(kdal.home))
    assert "Label Studio reaches kdal" in checks.way_back(of_it)
    kdal.kill(kdal.server)
    told = wrong(checks.way_back, of_it)
    assert f"of project {project.id}, Label Studio" in told
    assert f"curl {kdal.url}/health" in told
    assert "start `kdal up`" in wrong(checks.own_server, of_it)
