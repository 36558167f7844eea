"""Addresses of the project page, and what every answer under them has in common."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from flask import Blueprint, Flask, Response, g, make_response, redirect, render_template, request
from werkzeug.exceptions import Forbidden, HTTPException, LengthRequired, NotFound, RequestEntityTooLarge

from kdal.logs import printable
from kdal.resources import Resources
from kdal.web.pages import reading, words
from kdal.web.pages.panels import PANELS
from kdal.web.pages.panels.now import state_of
from kdal.web.pages.session import COOKIE, Session, Sessions
from kdal.web.pages.view import LabelStudioNames, View
from kdal_core.errors import KdalError

HOME = "/projects"
CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Whatever a task or a class is called, a browser runs nothing that is not a file of ours."""
MOST_FORM = 64 * 1024
"""Bytes of a form."""
OPEN = ("pages.sign_in", "pages.static")
"""What is told to whoever has not signed in."""
SAID = {
    "cancelled": "The round is cancelled; annotators go on in the order they have. The next one begins with a full "
    "batch from now on, or with “Start training” in Label Studio.",
    "nothing-to-cancel": "No round is being computed any more, so there was nothing to cancel.",
}
"""What a page says after a form has been dealt with, by the word that its address carries."""
F = TypeVar("F", bound=Callable[..., Any])
log = structlog.get_logger()


def add_pages(app: Flask, resources: Resources) -> None:
    """Add the pages to the server."""
    app.register_blueprint(Pages(resources).blueprint)


class Pages:
    """The project page.

    Args:
        resources: what it works with.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._sessions = Sessions(resources.settings)
        self._names = LabelStudioNames(resources)
        self._prefix = urlsplit(resources.settings.url).path.rstrip("/")
        self.blueprint = Blueprint(
            "pages", __name__, url_prefix=HOME, template_folder="templates", static_folder="static"
        )
        self._guard()
        self._route()

    # ------------------------------------------------------------------ what all answers have in common

    def _guard(self) -> None:
        pages = self.blueprint

        @pages.before_request
        def check() -> Any:
            g.session = self._sessions.read(request.cookies.get(COOKIE))
            if request.endpoint == "pages.static":
                return None
            if not self._sessions.has_users:
                return self._page("closed.html"), 403
            if request.method == "POST":
                self._check_form()
            if request.endpoint in OPEN or (g.session is not None and g.session.user is not None):
                return None
            return self._to_sign_in()

        @pages.after_request
        def protect(response: Response) -> Response:
            response.headers["Content-Security-Policy"] = CONTENT_POLICY
            response.headers["X-Content-Type-Options"] = "nosniff"
            response.headers["X-Frame-Options"] = "DENY"
            response.headers["Referrer-Policy"] = "same-origin"
            response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
            response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
            if request.endpoint != "pages.static" and "Cache-Control" not in response.headers:
                response.headers["Cache-Control"] = "no-store"
            return response

        @pages.errorhandler(HTTPException)
        def refuse(error: HTTPException) -> Any:
            return self._page("error.html", status=error.code, reason=error.description), error.code or 500

        @pages.errorhandler(KdalError)
        def explain(error: KdalError) -> Any:
            return self._page("error.html", status=503, reason=str(error)), 503

        @pages.errorhandler(Exception)
        def fail(error: Exception) -> Any:
            log.error("page failed", path=request.path, exc_info=error)
            return self._page("error.html", status=500, reason="kdal failed to make this page; its log says why."), 500

    def _check_form(self) -> None:
        """Refuse a form that was not made for this session."""
        if request.content_length is None:
            raise LengthRequired
        if request.content_length > MOST_FORM:
            raise RequestEntityTooLarge(f"The form is larger than {MOST_FORM:,} bytes.")
        token = request.form.get("form_token", "")
        if g.session is None or not g.session.owns(token):
            raise Forbidden("The form is out of date: go back, load the page again, and repeat what you did.")

    def _to_sign_in(self) -> Response:
        """The way to the form; a part of a page cannot be replaced by it, so the whole page goes there."""
        if "HX-Request" in request.headers:
            response = make_response("")
            response.headers["HX-Redirect"] = self._link("sign-in")
            return response
        return self._redirect(f"sign-in?back={_inside(request.path)}")

    def _redirect(self, path: str) -> Response:
        response: Response = redirect(self._link(path), 303)  # type: ignore[assignment]
        response.autocorrect_location_header = False
        return response

    def _link(self, path: str = "") -> str:
        """An address under `HOME` as a browser reaches it: KDAL_URL may have a path of its own."""
        root = request.script_root or self._prefix
        return f"{root}{HOME}/{path}" if path else f"{root}{HOME}"

    def _page(self, template: str, **values: Any) -> str:
        session: Session | None = g.get("session")
        html = render_template(
            f"pages/{template}",
            link=self._link,
            session=session,
            form_token=None if session is None else session.form_token,
            version=version("kdal"),
            said=SAID.get(request.args.get("said", "")),
            names=self._names,
            words=words,
            **words.FILTERS,
            **values,
        )
        return printable(html)

    # ------------------------------------------------------------------ addresses

    def _route(self) -> None:
        pages = self.blueprint
        pages.route("", methods=["GET"])(self.projects)
        pages.route("/sign-in", methods=["GET", "POST"])(self.sign_in)
        pages.route("/sign-out", methods=["POST"])(self.sign_out)
        pages.route("/<int:number>", methods=["GET"])(self.project)
        pages.route("/<int:number>/panels/<name>", methods=["GET"])(self.panel)
        pages.route("/<int:number>/cancel", methods=["POST"])(self.cancel)

    def sign_in(self) -> Any:
        """The form for user and password, and what it sends."""
        back = _inside(request.args.get("back", ""))
        if request.method == "POST":
            address = request.remote_addr or ""
            user, password = request.form.get("user", ""), request.form.get("password", "")
            session = self._sessions.sign_in(user, password, address)
            if session is not None:
                response = self._redirect(back.removeprefix(HOME).lstrip("/"))
                self._sessions.write(response, session)
                return response
            wait = self._sessions.wait(address)
            return self._page("sign_in.html", back=back, wrong=True, wait=wait), 429 if wait else 401
        if g.session is None:
            g.session = Session.begin()
        response = make_response(self._page("sign_in.html", back=back, wrong=False, wait=0))
        self._sessions.write(response, g.session)
        return response

    def sign_out(self) -> Response:
        """Forget who it was."""
        response = self._redirect("sign-in")
        self._sessions.end(response)
        return response

    def projects(self) -> str:
        """All projects."""
        rows = reading.standings(self._resources.storage)
        return self._page("projects.html", rows=[(row, *state_of(row)) for row in rows], most=reading.MOST_PROJECTS)

    def project(self, number: int) -> str:
        """One project: a page of panels, of which some come with it and others are asked for by it."""
        view = self._view(number)
        shown = {name: self._panel(view, name) for name, panel in PANELS.items() if panel.at_once}
        return self._page("project.html", view=view, panels=PANELS, shown=shown, state=state_of(view.standing))

    def panel(self, number: int, name: str) -> Any:
        """One panel; nothing where it is the same as what the page has already."""
        if name not in PANELS:
            raise NotFound(f"There is no part {name!r} of a project's page.")
        shown = self._panel(self._view(number), name)
        if request.args.get("seen") == shown[1]:
            return "", 204
        return shown[0]

    def cancel(self, number: int) -> Response:
        """Cancel the round that is being computed."""
        self._view(number)
        cancelled = self._resources.storage.cancel_round(number)
        if cancelled is not None:
            self._resources.storage.add_event(number, "ROUND_CANCELLED")
            log.info("round cancelled on the page", project=number, round=cancelled, by=g.session.user)
        return self._redirect(f"{number}?said={'cancelled' if cancelled is not None else 'nothing-to-cancel'}")

    def _view(self, number: int) -> View:
        standing = reading.standing(self._resources.storage, number) if number < 2**31 else None
        if standing is None:
            raise NotFound(
                f"kdal knows no project {number}: it was never connected, or it was deleted in Label Studio and its "
                f"number given to another. `kdal connect --project {number}` connects one."
            )
        return View(self._resources, self._names, standing)

    def _panel(self, view: View, name: str) -> tuple[str, str]:
        """A panel's HTML, and what stands for its content as long as that is the same."""
        panel = PANELS[name]
        inner = self._page(f"panels/{name}.html", view=view, **panel.make(view))
        seen = hashlib.sha256(inner.encode()).hexdigest()[:16]
        return self._page("panel.html", view=view, panel=panel, inner=inner, seen=seen), seen


def _inside(back: str) -> str:
    """Where to go after signing in: nowhere but to a page of ours."""
    found = re.match(rf"{HOME}/([0-9]{{1,9}})(?![0-9])", back)
    return f"{HOME}/{found[1]}" if found else HOME
