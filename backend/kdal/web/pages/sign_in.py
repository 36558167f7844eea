"""Signing in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, g, make_response, request

from kdal.web.pages.session import Session

if TYPE_CHECKING:
    from kdal.web.pages.blueprint import Pages


def add_to(pages: Pages) -> None:
    """Add these addresses."""
    route, sessions = pages.blueprint.route, pages.sessions

    @route("/sign-in", methods=["GET", "POST"])
    def sign_in() -> Any:
        from kdal.web.pages.blueprint import HOME, inside

        back = inside(request.args.get("back", ""))
        if request.method == "POST":
            address = request.remote_addr or ""
            session = sessions.sign_in(request.form.get("user", ""), request.form.get("password", ""), address)
            if session is not None:
                response = pages.redirect(back.removeprefix(HOME).lstrip("/"))
                sessions.write(response, session)
                return response
            wait = sessions.wait(address)
            return pages.page("sign_in.html", back=back, wrong=True, wait=wait), 429 if wait else 401
        if g.session is None:
            g.session = Session.begin()
        response = make_response(pages.page("sign_in.html", back=back, wrong=False, wait=0))
        sessions.write(response, g.session)
        return response

    @route("/sign-out", methods=["POST"])
    def sign_out() -> Response:
        response = pages.redirect("sign-in")
        sessions.end(response)
        return response
