"""The project page in a real browser, on a loop that runs: each panel, the wheel, narrow and wide, light and dark."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from kdal.web.pages.panels import PANELS
from tests.integration.harness import Api, Project
from tests.integration.loop.running import RunningKdal, drain
from tests.integration.loop.test_photos import CLASSES, CONFIG, crops

AXE = Path(__file__).parents[2] / "vendor" / "axe-core-4.10.3" / "axe.min.js"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture
def site(make_kdal: Callable[..., RunningKdal]) -> RunningKdal:
    return make_kdal().start()


@pytest.fixture
def open_page(browser: Browser, site: RunningKdal) -> Iterator[Callable[..., Page]]:
    """`open_page(viewport, colours)`: a page whose user is signed in; what its console complains of fails the test."""
    complaints: list[str] = []

    def make(viewport: dict[str, int] = WIDE, colours: str = "light") -> Page:
        context = browser.new_context(base_url=site.url, viewport=viewport, color_scheme=colours)  # type: ignore[arg-type]
        page = context.new_page()
        page.on("console", lambda told: complaints.append(told.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/projects")
        expect(page.get_by_label("User")).to_be_focused()
        page.keyboard.type(site.user[0])
        page.keyboard.press("Tab")
        page.keyboard.type(site.user[1])
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Projects")).to_be_visible()
        return page

    yield make
    # A picture that is asked for while two others are made is refused, and asked for again; so is a wrong policy.
    assert [each for each in complaints if "status of 503" not in each and "status of 422" not in each] == []


def faults(page: Page) -> list[dict[str, Any]]:
    """What axe-core holds for serious or worse."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        {"rule": each["id"], "where": [node["target"] for node in each["nodes"]][:3]}
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def settled(page: Page) -> None:
    """Wait until all panels are there, with their pictures."""
    for name in PANELS:
        panel = page.locator(f"#{name}")
        expect(panel.get_by_role("heading").first).to_be_visible()
        expect(panel).not_to_contain_text("Loading…")
        expect(panel).not_to_contain_text("cannot be shown")


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_an_owner_sees_each_panel_and_takes_the_wheel(
    site: RunningKdal,
    ls_api: Api,
    open_page: Callable[..., Page],
    make_project: Callable[..., Project],
    tmp_path: Path,
) -> None:
    images, labels = crops(40)
    project = make_project(CONFIG, images, title="Temple or flower")
    truth = dict(zip(project.task_ids, labels, strict=True))
    site.connect(project, budget=8, suggest_above=0.0, explore=0.25)
    site.wait_open(project, 0, timeout=240)
    drain(project, [ls_api], 8, truth.__getitem__)
    site.wait_open(project, 1)

    page = open_page()
    expect(page.get_by_role("link", name="Temple or flower")).to_be_visible(timeout=15_000)
    page.get_by_role("link", name="Temple").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Temple or flower")
    settled(page)
    assert faults(page) == []
    see_panels(page, site, project, ls_api, truth)
    take_the_wheel(page, site, project)
    for viewport, colours in ((NARROW, "light"), (NARROW, "dark"), (WIDE, "dark")):
        other = open_page(viewport, colours)
        other.goto(f"/projects/{project.id}")
        settled(other)
        assert overflow(other) <= 0, (viewport, colours)
        assert faults(other) == [], (viewport, colours)
        other.screenshot(path=tmp_path / f"page-{viewport['width']}-{colours}.png", full_page=True)


def see_panels(page: Page, site: RunningKdal, project: Project, ls_api: Api, truth: dict[int, str]) -> None:
    """Each panel says what the loop has done, and goes on by itself."""
    now = page.locator("#now")
    expect(now).to_contain_text("0 of 8 labels in round 1")
    expect(now).to_contain_text("Suggestions come from the model of round 1")
    page.evaluate("window.sameDocument = true")
    drain(project, [ls_api], 2, truth.__getitem__)
    expect(now).to_contain_text("2 of 8 labels in round 1", timeout=30_000)  # without a reload
    expect(now).to_contain_text("Labelled by owner@example.com 2", timeout=30_000)
    assert page.evaluate("window.sameDocument")
    expect(page.locator("#health")).to_contain_text("worker-1, alive")
    expect(page.locator("#timeline tbody tr")).to_have_count(2)
    expect(page.locator("#timeline")).to_contain_text("the batch was full")
    expect(page.locator("#models")).to_contain_text("kdal-r1 serves")
    expect(page.locator("#unusable")).to_contain_text("None")
    expect(page.locator("#policy")).to_contain_text("budget")
    for name in ("quality", "suggestions", "errors", "confusion", "classes"):
        assert len(page.locator(f"#{name}").inner_text()) > 30
    see_queue(page, site, project)
    # KDAL_PICTURES=docs/pictures renews the picture of the docs.
    if folder := os.environ.get("KDAL_PICTURES"):
        top = {"x": 0, "y": 0, **WIDE, "height": 1100}
        page.screenshot(path=Path(folder) / "page.png", full_page=True, clip=top)


def see_queue(page: Page, site: RunningKdal, project: Project) -> None:
    """The next tasks are those of the order, with what is suggested and why; a picture opens by the keyboard alone."""
    tiles = page.locator("#queue .tile")
    expect(tiles).to_have_count(24, timeout=20_000)
    done = [task["id"] for task in project.tasks() if task["annotations"]]
    following = [task for task in site.order(project, 1) if task not in done][:24]
    expect(tiles.locator("figcaption a")).to_have_text([f"Task {task}" for task in following], timeout=20_000)
    link = tiles.first.locator("figcaption a").get_attribute("href")
    assert link == f"{site.environment['LABEL_STUDIO_URL']}/projects/{project.id}/data?task={following[0]}"
    texts = tiles.all_inner_texts()
    assert all(any(name in text for name in CLASSES) for text in texts)
    reasons = ("models disagree", "far from labels", "stands for others", "random")
    assert all(any(reason in text for reason in reasons) for text in texts)
    tiles.first.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('#queue img')].slice(0, 6).every(i => i.naturalWidth > 0)")
    tiles.first.get_by_role("button").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name=f"Task {following[0]}")).to_be_visible()
    expect(dialog).to_contain_text("The model sees")
    assert faults(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def take_the_wheel(page: Page, site: RunningKdal, project: Project) -> None:
    """The policy is changed with the mistakes said at their keys; a round is begun, watched and cancelled."""
    page.get_by_role("link", name="Change the policy").click()
    assert faults(page) == []
    page.get_by_label("budget", exact=True).fill("none")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("budget", exact=True)).to_have_attribute("aria-invalid", "true")
    page.get_by_label("budget", exact=True).fill("9")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The policy is written to Label Studio")).to_be_visible()
    expect(page.locator("#policy")).to_contain_text("budget 8 → 9", timeout=20_000)
    expect(page.locator("#now")).to_contain_text("of 9 labels in round 1", timeout=30_000)
    assert site.report(project)["policy"]["budget"] == 9
