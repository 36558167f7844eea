"""A person at Label Studio's editor: opens the next task, sees what kdal suggests, drags it, submits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.integration.harness import Project

_LARGEST_IMAGE = """() => {
    const image = [...document.images].sort((a, b) => b.clientWidth - a.clientWidth)[0];
    const {x, y, width, height} = image.getBoundingClientRect();
    return [x, y, width, height];
}"""
WIDTH, TALL = 1280, 2000
"""Pixels of the page. The list of regions has rows for those alone that it has room for: it is read in a tall one."""


def settled(page: Page) -> tuple[float, float, float, float]:
    """Where the page's largest image is, once all images are there and the editor has stopped moving them about.

    The editor's canvas is larger than the image: the image alone says where a point of it is.

    Returns:
        Left, top, width and height, in pixels of the page.
    """
    page.wait_for_function("() => document.images.length && [...document.images].every(image => image.complete)")
    before = None
    while (now := page.evaluate(_LARGEST_IMAGE)) != before:
        before = now
        page.wait_for_timeout(500)
    left, top, width, height = now
    return left, top, width, height


def next_ticked(page: Page, project: Project, question: str, picture: Path) -> str:
    """Open the queue's next task of a project of choices, wait until it is all there, take a picture.

    Returns:
        Name of the one choice that is ticked.
    """
    page.set_viewport_size({"width": WIDTH, "height": 800})
    page.goto(f"{project.api.url}/projects/{project.id}/data")
    page.get_by_role("button", name="Label All Tasks").click(timeout=60_000)
    expect(page.get_by_text(question)).to_be_visible(timeout=60_000)
    checked = page.locator("input[type=checkbox]:checked")
    expect(checked).to_have_count(1)
    expect(page.get_by_role("img", name="image", exact=True)).to_be_visible()
    page.wait_for_function("() => [...document.images].every(i => i.complete)")
    page.wait_for_timeout(500)
    page.screenshot(path=picture)
    assert picture.stat().st_size > 10_000
    return checked.get_attribute("name") or ""


@dataclass(frozen=True)
class Editor:
    """The editor in a browser.

    Attributes:
        page: the browser's.
        height: of the page in pixels, so that all of an image is seen.
        pictures: folder for what is photographed; KDAL_PICTURES=docs/pictures renews the README's.
        name: with which the pictures' names begin.
    """

    page: Page
    height: int
    pictures: Path
    name: str

    def open_next(self, project: Project, regions: int) -> None:
        """Open the queue's next task, wait until its image and `regions` regions are there, take a picture."""
        self._resize(TALL)
        self.page.goto(f"/projects/{project.id}/data")
        self.page.get_by_role("button", name="Label All Tasks").click(timeout=120_000)
        expect(self.page.get_by_role("treeitem")).to_have_count(regions, timeout=60_000)
        self.page.wait_for_function("() => [...document.images].every(image => image.complete)")
        self._resize(self.height)
        pictures = Path(os.environ.get("KDAL_PICTURES") or self.pictures)
        self.page.screenshot(path=pictures / f"{self.name}-preannotated.png")

    def drag(self, number: int, at: tuple[float, float], way: list[tuple[int, int]]) -> tuple[float, float]:
        """Select a region in the list, take hold of a point of it, drag it along a way; a picture before letting go.

        Args:
            number: of the region in the list.
            at: x and y of the point, per cent of the image.
            way: pixels to the right of and below the point, a pair for each stop; the last is where it is let go.

        Returns:
            How far it was dragged to the right and down, per cent of the image.
        """
        self._resize(TALL)
        self.page.get_by_role("treeitem").nth(number).click()
        self._resize(self.height)
        left, top, width, height = settled(self.page)
        x, y = left + at[0] / 100 * width, top + at[1] / 100 * height
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for right, down in way:
            self.page.mouse.move(x + right, y + down, steps=4)
        self.page.screenshot(path=self.pictures / f"{self.name}-dragged.png")
        self.page.mouse.up()
        self.page.wait_for_timeout(500)
        return way[-1][0] / width * 100, way[-1][1] / height * 100

    def submit(self) -> None:
        """Press Submit, and wait until Label Studio has the annotation."""
        with self.page.expect_response(lambda answer: answer.request.method == "POST" and "/annotations" in answer.url):
            self.page.locator("button", has_text="Submit").first.click()

    def _resize(self, height: int) -> None:
        self.page.set_viewport_size({"width": WIDTH, "height": height})
        self.page.wait_for_timeout(500)
