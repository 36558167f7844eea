"""Front door 1: our own server of Label Studio's ML-backend protocol (Flask 3, gunicorn)."""

from __future__ import annotations

import hmac
import re
import time
from typing import Any

import structlog
from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed

from kdal.resources import Resources
from kdal.web.metrics import Metrics
from kdal.web.service import BadRequestError, ForbiddenError, Service, UnknownProjectError
from kdal_core.errors import AssetError, KdalError

MAX_BODY = 256 * 1024**2
"""Bytes of a request: Label Studio may send all tasks of a project at once."""
log = structlog.get_logger()


def create_app(resources: Resources) -> Flask:
    """The WSGI application: /health, /setup, /predict, /versions, /webhook, /metrics.

    Every error is JSON, ``{"error": <what to do about it>}``. Bad input gets a 4xx whose reason phrase says
    the same: it is all that Label Studio shows when it connects a backend.
    """
    app = Flask("kdal")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    service = Service(resources)
    settings = resources.settings
    metrics = Metrics(resources.storage)

    @app.before_request
    def check_user() -> Response | None:
        g.began = time.perf_counter()
        if not settings.auth_user or request.path == "/health":
            return None
        if request.path == "/webhook" and "X-Kdal-Secret" in request.headers:
            return None  # Label Studio's webhooks know the secret, but no password
        given = request.authorization
        user, password = (given.username or "", given.password or "") if given is not None else ("", "")
        if _same(user, settings.auth_user) and _same(password, settings.auth_password):
            g.trusted = True
            return None
        response = _error(401, "user and password of KDAL_AUTH_USER and KDAL_AUTH_PASSWORD are required")
        response.headers["WWW-Authenticate"] = 'Basic realm="kdal"'
        return response

    @app.after_request
    def measure(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule is not None else "unknown"
        metrics.observe(route, response.status_code, time.perf_counter() - g.get("began", time.perf_counter()))
        return response

    @app.get("/")
    @app.get("/health")
    def health() -> Response:
        return jsonify(status="UP", model_class="kdal")

    @app.post("/setup")
    def setup() -> Response:
        return jsonify(service.setup(_body()))

    @app.post("/predict")
    def predict() -> Response:
        return jsonify(service.predict(_body()))

    @app.get("/versions")
    def versions() -> Response:
        return jsonify(service.versions(request.args.get("project")))

    @app.post("/webhook")
    def webhook() -> Response:
        return jsonify(service.webhook(_body(), dict(request.headers), trusted=g.get("trusted", False)))

    @app.get("/metrics")
    def show_metrics() -> Response:
        return Response(metrics.text(), content_type=metrics.content_type)

    _answer_errors(app)
    return app


def _answer_errors(app: Flask) -> None:
    """Errors as JSON: ours with what to do, the framework's as they are, any other as a 500 that the log explains."""

    @app.errorhandler(KdalError)
    def refuse(error: KdalError) -> Response:
        known = ((ForbiddenError, 403), (UnknownProjectError, 404), (AssetError, 503))
        return _error(next((status for kind, status in known if isinstance(error, kind)), 400), str(error))

    @app.errorhandler(HTTPException)
    def refuse_http(error: HTTPException) -> Response:
        response = _error(error.code or 500, str(error.description))
        if isinstance(error, MethodNotAllowed) and error.valid_methods is not None:
            response.headers["Allow"] = ", ".join(error.valid_methods)
        return response

    @app.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        log.error("request failed", path=request.path, exc_info=error)
        return _error(500, "kdal failed to answer; its log says why")


def _body() -> Any:
    """The request's JSON, whatever content type it is sent under."""
    try:
        return request.get_json(force=True)
    except (BadRequest, RecursionError) as error:
        raise BadRequestError("the request's body is not JSON, or nested too deeply") from error


def _error(status: int, message: str) -> Response:
    response = jsonify(error=message)
    reason = re.sub(r"[^\x20-\x7e]+", " ", message)[:1000]
    response.status = f"{status} {reason}"
    return response


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
