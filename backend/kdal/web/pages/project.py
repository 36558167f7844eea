"""The list of projects, and a project's page with its panels."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import structlog
from flask import Response, g, request
from werkzeug.exceptions import NotFound

from kdal.web.pages import reading
from kdal.web.pages.panels import PANELS
from kdal.web.pages.panels.now import state_of
from kdal.web.pages.view import Panel, View
from kdal_core.errors import KdalError

if TYPE_CHECKING:
    from kdal.web.pages.blueprint import Pages

PATIENCE = 0.1
"""Seconds that a page waits for titles that Label Studio is asked for the first time."""
log = structlog.get_logger()


def add_to(pages: Pages) -> None:
    """Add these addresses."""
    route, storage = pages.blueprint.route, pages.resources.storage

    @route("", methods=["GET"])
    def projects() -> str:
        return pages.page("projects.html", listed=listed(pages)[0])

    @route("/list", methods=["GET"])
    def project_list() -> Any:
        html, seen = listed(pages)
        return ("", 204) if request.args.get("seen") == seen else html

    @route("/<int:number>", methods=["GET"])
    def project(number: int) -> str:
        return shown(pages, number)

    @route("/<int:number>/panels/<name>", methods=["GET"])
    def panel(number: int, name: str) -> Any:
        if name not in PANELS:
            raise NotFound(f"There is no part {name!r} of a project's page.")
        html, seen = drawn(pages, pages.view(number), PANELS[name])
        return ("", 204) if request.args.get("seen") == seen else html

    @route("/<int:number>/cancel", methods=["POST"])
    def cancel(number: int) -> Response:
        pages.view(number)
        cancelled = storage.cancel_round(number)
        if cancelled is not None:
            storage.add_event(number, "ROUND_CANCELLED")
            log.info("round cancelled on the page", project=number, round=cancelled, by=g.session.user)
        return pages.redirect(f"{number}?said={'cancelled' if cancelled is not None else 'nothing-to-cancel'}")


def listed(pages: Pages) -> tuple[str, str]:
    """The list of projects, and what stands for its content as long as that is the same."""
    rows = [(row, *state_of(row)) for row in reading.standings(pages.resources.storage)]
    patience = PATIENCE
    for row, *_ in rows:
        began = time.monotonic()
        pages.names.title(row.project.id, wait=patience)
        patience = max(0.0, patience - (time.monotonic() - began))
    inner = pages.page("list.html", rows=rows, most=reading.MOST_PROJECTS, seen="")
    seen = hashlib.sha256(inner.encode()).hexdigest()[:16]
    return pages.page("list.html", rows=rows, most=reading.MOST_PROJECTS, seen=seen), seen


def shown(pages: Pages, number: int, problem: str | None = None) -> str:
    """A project's page: panels, of which some come with it and others are asked for by it.

    Args:
        pages: what all pages have in common.
        number: of the project.
        problem: why what was asked for was not done.
    """
    view = pages.view(number)
    pages.names.title(number, wait=PATIENCE)
    ready = {panel.name: drawn(pages, view, panel)[0] for panel in PANELS.values() if panel.at_once}
    state = state_of(view.standing)
    return pages.page("project.html", view=view, panels=PANELS, shown=ready, state=state, problem=problem)


def drawn(pages: Pages, view: View, panel: Panel) -> tuple[str, str]:
    """A panel's HTML, and what stands for its content as long as that is the same."""
    try:
        inner = pages.page(f"panels/{panel.name}.html", view=view, **panel.make(view))
    except KdalError as error:  # the assets are out of reach, say: the other panels are shown all the same
        inner = pages.page("panels/away.html", why=str(error))
    except Exception as error:
        log.error("panel failed", project=view.standing.project.id, panel=panel.name, exc_info=error)
        inner = pages.page("panels/away.html", why="an unexpected error, which the server's log has.")
    seen = hashlib.sha256(inner.encode()).hexdigest()[:16]
    return pages.page("panel.html", view=view, panel=panel, inner=inner, seen=seen), seen
