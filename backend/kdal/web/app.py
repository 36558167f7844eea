"""The server of Label Studio's ML-backend protocol, behind both front doors.

Plain WSGI through Flask, whatever serves it: gunicorn (`kdal serve`), or label-studio-ml (`backend/_wsgi.py`), whose
release on PyPI pins Flask 1.1 and Werkzeug 2.0. So only what those have is used here: `route` rather than `get` and
`post`, and the size of a body is checked here.
"""

from __future__ import annotations

import hmac
import json
import re
import time
from threading import BoundedSemaphore
from typing import Any

import structlog
from flask import Flask, Response, current_app, g, jsonify, request
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from kdal import logs
from kdal.labelstudio.connection import SECRET_HEADER
from kdal.resources import Resources
from kdal.rounds.status import not_ready
from kdal.storage.set_ups import TooManyError
from kdal.web.deadlines import DEADLINES, PATIENCE, RATE
from kdal.web.metrics import Metrics
from kdal.web.pages import HOME, add_pages
from kdal.web.service import WRONG_SECRET, BadRequestError, ForbiddenError, Service, UnknownProjectError
from kdal_core.errors import AssetError, KdalError

MAX_BODY = 256 * 1024**2
"""Bytes of a request for predictions: Label Studio may send all tasks of a project at once."""
QUEUE = 60.0
"""Seconds that a request for predictions waits for others to be answered; Label Studio gives up after 100."""
SMALL_BODY = 16 * 1024**2
"""Bytes of any other request."""
ASKED = (
    "user and password are needed: `kdal credentials`, on the machine where kdal runs, shows what to fill in under "
    "Basic Authentication (KDAL_AUTH_USER and KDAL_AUTH_PASSWORD, or those that kdal made)"
)
"""What Label Studio shows to who adds the backend in its form without them."""
MOST_SAID = 10_000
"""Characters of an error's message."""
log = structlog.get_logger()


def create_app(resources: Resources, *, predictions: int = 8) -> Flask:
    """The WSGI application: /health, /ready, /setup, /predict, /versions, /webhook, /metrics, and the pages under
    /projects.

    Every error is JSON, ``{"error": <what to do about it>}``, but a page's. Bad input gets a 4xx whose reason phrase
    says the same: it is all that Label Studio shows when it connects a backend.

    Args:
        resources: what it works with.
        predictions: requests for predictions that are answered at the same time. More of them wait for a while; other
            requests never wait for them.
    """
    app = Flask("kdal")
    logs.redact_handlers("gunicorn.error", "werkzeug", app.name)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    _measure(app, Metrics(resources.storage))
    _check_callers(app, resources)
    _add_routes(app, Service(resources), BoundedSemaphore(predictions))
    _tell_whether_ready(app, resources)
    add_pages(app, resources)
    _answer_errors(app)
    return app


def _add_routes(app: Flask, service: Service, slots: BoundedSemaphore) -> None:
    @app.route("/", methods=["GET"])
    @app.route("/health", methods=["GET"])
    def health() -> Response:
        return jsonify(status="UP", model_class="kdal")

    @app.route("/setup", methods=["POST"])
    def setup() -> Response:
        return jsonify(service.setup(_body()))

    @app.route("/predict", methods=["POST"])
    def predict() -> Response:
        body = _body(MAX_BODY)
        if not slots.acquire(timeout=QUEUE):
            raise TooManyError("kdal is busy with other predictions: try again in a minute")
        try:
            return jsonify(service.predict(body))
        finally:
            slots.release()

    @app.route("/versions", methods=["GET"])
    def versions() -> Response:
        return jsonify(service.versions(request.args.get("project")))

    @app.route("/webhook", methods=["POST"])
    def webhook() -> Response:
        return jsonify(service.webhook(_body(), dict(request.headers), trusted=g.get("trusted", False)))


def _tell_whether_ready(app: Flask, resources: Resources) -> None:
    @app.route("/ready", methods=["GET"])
    def ready() -> Response:
        missing = not_ready(resources.storage, resources.assets)
        response = jsonify(status="NOT READY" if missing else "READY", missing=missing)
        response.status_code = 503 if missing else 200
        return response


def _measure(app: Flask, metrics: Metrics) -> None:
    """Count and time requests, and serve the figures."""

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()
        # A GET is all there; of others, the body is still to come.
        DEADLINES.extend(None if request.method in ("GET", "HEAD") else PATIENCE)

    @app.after_request
    def give(response: Response) -> Response:
        DEADLINES.extend(PATIENCE)  # to take the answer
        return response

    @app.after_request
    def end(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule is not None else "unknown"
        metrics.observe(route, response.status_code, time.perf_counter() - g.get("began", time.perf_counter()))
        return response

    @app.route("/metrics", methods=["GET"])
    def show() -> Response:
        return Response(metrics.text(), content_type=metrics.content_type)


def _check_callers(app: Flask, resources: Resources) -> None:
    """Basic authentication for all but /health, /ready and webhooks that bring the secret."""
    settings = resources.settings.with_credentials()

    @app.before_request
    def check() -> Response | None:
        if request.path in ("/health", "/ready"):
            return None
        if f"{request.path}/".startswith(f"{HOME}/"):
            return None  # people sign in on the page itself
        if request.path == "/webhook" and (secret := request.headers.get(SECRET_HEADER)) is not None:
            # Label Studio's webhooks know the secret, but no password. Nothing is read of who does not know it.
            return None if _same(secret, settings.secret) else _error(403, WRONG_SECRET)
        given = request.authorization
        user, password = (given.username or "", given.password or "") if given is not None else ("", "")
        if _same(user, settings.auth_user) and _same(password, settings.auth_password):
            g.trusted = True
            return None
        response = _error(401, ASKED)
        response.headers["WWW-Authenticate"] = 'Basic realm="kdal"'
        return response


def _answer_errors(app: Flask) -> None:
    """Errors as JSON: ours with what to do, the framework's as they are, any other as a 500 that the log explains."""
    statuses = (
        (KdalError, 400),
        (ForbiddenError, 403),
        (UnknownProjectError, 404),
        (TooManyError, 429),
        (AssetError, 503),
    )
    for kind, status in statuses:
        app.register_error_handler(kind, lambda error, status=status: _error(status, str(error)))

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        response = _error(error.code or 500, str(error.description))
        if isinstance(error, MethodNotAllowed) and error.valid_methods is not None:
            response.headers["Allow"] = ", ".join(error.valid_methods)
        return response

    @app.errorhandler(OperationalError)
    def wait(error: OperationalError) -> Response:
        log.warning("the database cannot be used", path=request.path, error=str(error))
        return _error(503, "kdal's database does not answer, or takes nothing down at present: try again in a minute")

    @app.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        log.error("request failed", path=request.path, exc_info=error)
        return _error(500, "kdal failed to answer; its log says why")


def _body(most: int = SMALL_BODY) -> Any:
    """The request's JSON, whatever content type it is sent under."""
    limit = min(most, current_app.config["MAX_CONTENT_LENGTH"])
    DEADLINES.extend(PATIENCE + min(request.content_length or 0, limit) / RATE)
    try:
        data = request.stream.read(limit + 1)  # Werkzeug 2.0 does not hold a JSON body to the limit
    except HTTPException:
        raise
    except Exception as error:  # each server has its own for chunks that are none, and for clients that went away
        raise BadRequestError("the request's body is not sent as HTTP says, or breaks off") from error
    DEADLINES.extend(None)  # from here on it is our time
    if len(data) > limit or (request.content_length or 0) > limit:
        raise RequestEntityTooLarge
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("the request's body is not JSON, or nested too deeply") from error


def _error(status: int, message: str) -> Response:
    message = logs.redacted(message)[:MOST_SAID]
    response = jsonify(error=message)
    reason = re.sub(r"[^\x20-\x7e]+", " ", message)[:1000]
    response.status = f"{status} {reason}"
    return response


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
