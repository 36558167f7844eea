"""Pictures of single tasks, and what is known of them; the tasks of a cell of the confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, make_response, request
from werkzeug.exceptions import NotFound

from kdal.images.allowed import Sources
from kdal.images.errors import UnreachableError
from kdal.images.refs import ImageRef
from kdal.rounds.queue import QueueFile
from kdal.web.pages import drawing
from kdal.web.pages.panels.queue import reason
from kdal.web.pages.pictures import SIZES, BusyError
from kdal.web.pages.view import View
from kdal_core.errors import AssetError

if TYPE_CHECKING:
    from kdal.web.pages.blueprint import Pages

PICTURE_LASTS = 600
"""Seconds for which a browser keeps a picture: an image may change under its address."""


def add_to(pages: Pages) -> None:
    """Add these addresses."""
    route = pages.blueprint.route

    @route("/<int:number>/tasks/<int:task>/<size>.jpg", methods=["GET"])
    def picture(number: int, task: int, size: str) -> Response:
        if size not in SIZES:
            raise NotFound("There is no picture of that size.")
        view = pages.view(number)
        regions = queued(view).regions.get(task, []) if "drawn" in request.args else []
        try:
            data = pages.pictures.jpeg(*image_of(view, task), size, regions)
        except BusyError:
            return _none(503)
        except AssetError as error:
            return _none(503 if isinstance(error, UnreachableError) else 404)
        response = make_response(data)
        response.headers["Content-Type"] = "image/jpeg"
        response.headers["Cache-Control"] = f"private, max-age={PICTURE_LASTS}"
        return response

    @route("/<int:number>/tasks/<int:task>", methods=["GET"])
    def look(number: int, task: int) -> str:
        view = pages.view(number)
        found = queued(view)
        entry = found.entries.get(task)
        why = None if entry is None else reason(entry)[1]
        sees = drawing.names(found.regions.get(task, []))
        return pages.page("task.html", project=view.standing.project, task=task, sees=sees, why=why)

    @route("/<int:number>/cell", methods=["GET"])
    def cell(number: int) -> Any:
        view = pages.view(number)
        wanted = (request.args.get("label"), request.args.get("predicted"))
        for found in view.estimates["confusion"]["cells"]:
            if (found["label"], found["predicted"]) == wanted:
                return pages.page("cell.html", project=view.standing.project, **found)
        raise NotFound("That cell of the table is empty by now.")


def image_of(view: View, task: int) -> tuple[ImageRef, Sources]:
    """A task's image, as the newest round that has read the project knew it, and where the project has its images.

    Raises:
        AssetError: no round knew the task.
    """
    rounds = [row for row in (view.standing.published, view.standing.last) if row is not None]
    for row in rounds:
        uid = view.standing.project.uid
        found = view.pictures.ref(uid, row.number, task)
        if found is not None:
            return found, view.pictures.sources(uid, row.number)
    raise AssetError(f"task {task} is not known to any round that is open")


def queued(view: View) -> QueueFile:
    """What the round in force has written of the first tasks of its order."""
    return QueueFile() if view.store is None else view.pictures.queue(view.store.uid, view.store.number)


def _none(status: int) -> Response:
    response = make_response("", status)
    response.headers["Content-Type"] = "image/jpeg"
    return response
