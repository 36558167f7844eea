"""Addresses of the project page, and what every answer under them has in common."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import structlog
from flask import Blueprint, Flask, Response, g, make_response, redirect, render_template, request
from werkzeug.exceptions import Forbidden, HTTPException, LengthRequired, NotFound, RequestEntityTooLarge

from kdal.logs import printable
from kdal.resources import Resources
from kdal.web.pages import project, reading, sign_in, steering, tasks, words
from kdal.web.pages.pictures import Pictures
from kdal.web.pages.policy_store import PolicyStore
from kdal.web.pages.session import COOKIE, Session, Sessions
from kdal.web.pages.view import Estimates, LabelStudioNames, View
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
    "chosen": "Chosen: a round of its own now brings the model, its order and its suggestions into force.",
    "started": "A round begins as soon as a worker has seen it.",
    "not-open": "A round begins by hand only while one is open for annotators.",
    "policy": "The policy is written to Label Studio; it holds from the next round on.",
    "nothing-to-cancel": "No round is being computed any more, so there was nothing to cancel.",
}
"""What a page says after a form has been dealt with, by the word that its address carries."""
log = structlog.get_logger()


def add_pages(app: Flask, resources: Resources) -> None:
    """Add the pages to the server."""
    app.register_blueprint(Pages(resources).blueprint)


class Pages:
    """What all pages have in common; `add_to` of each part adds its addresses.

    Args:
        resources: what it works with.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.sessions = Sessions(resources.settings)
        self.names = LabelStudioNames(resources)
        self._prefix = urlsplit(resources.settings.url).path.rstrip("/")
        self.blueprint = Blueprint(
            "pages", __name__, url_prefix=HOME, template_folder="templates", static_folder="static"
        )
        self.pictures = Pictures(resources)
        self.estimates = Estimates(resources)
        self.policies = PolicyStore(resources)
        self._guard()
        for part in (sign_in, project, tasks, steering):
            part.add_to(self)

    def _guard(self) -> None:
        pages = self.blueprint

        @pages.before_request
        def check() -> Any:
            g.session = self.sessions.read(request.cookies.get(COOKIE))
            if request.endpoint == "pages.static":
                return None
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
            return self.page("error.html", status=error.code, reason=error.description), error.code or 500

        @pages.errorhandler(KdalError)
        def explain(error: KdalError) -> Any:
            return self.page("error.html", status=503, reason=str(error)), 503

        @pages.errorhandler(Exception)
        def fail(error: Exception) -> Any:
            log.error("page failed", path=request.path, exc_info=error)
            return self.page("error.html", status=500, reason="kdal failed to make this page; its log says why."), 500

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
            response.headers["HX-Redirect"] = self.link("sign-in")
            return response
        return self.redirect(f"sign-in?back={inside(request.path)}")

    def redirect(self, path: str) -> Response:
        """The way to a page under `HOME`, after a form."""
        response: Response = redirect(self.link(path), 303)  # type: ignore[assignment]
        response.autocorrect_location_header = False
        return response

    def link(self, path: str = "") -> str:
        """An address under `HOME` as a browser reaches it: KDAL_URL may have a path of its own."""
        root = request.script_root or self._prefix
        return f"{root}{HOME}/{path}" if path else f"{root}{HOME}"

    def page(self, template: str, **values: Any) -> str:
        """A page, or a part of one, from a template."""
        session: Session | None = g.get("session")
        html = render_template(
            f"pages/{template}",
            link=self.link,
            session=session,
            form_token=None if session is None else session.form_token,
            version=version("kdal"),
            said=SAID.get(request.args.get("said", "")),
            names=self.names,
            words=words,
            **words.FILTERS,
            **values,
        )
        return printable(html)

    def view(self, number: int) -> View:
        """A look at a project; 404 where there is none."""
        standing = reading.standing(self.resources.storage, number) if number < 2**31 else None
        if standing is None:
            raise NotFound(
                f"kdal knows no project {number}: it was never connected, or it was deleted in Label Studio and its "
                f"number given to another. `kdal connect --project {number}` connects one."
            )
        return View(self.resources, self.names, standing, self.pictures, self.policies, self.estimates)


def inside(back: str) -> str:
    """Where to go after signing in: nowhere but to a page of ours."""
    found = re.match(rf"{HOME}/([0-9]{{1,9}})(?![0-9])", back)
    return f"{HOME}/{found[1]}" if found else HOME
