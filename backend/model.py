"""Front door 2: `KDALModel`, for whoever starts kdal with `label-studio-ml start backend`.

It holds no logic: `kdal.web.service.Service` answers, as it does behind our own server. Written to both lines of
label-studio-ml: 1.0.9 of PyPI, which makes a model at each /setup, tells it neither project nor policy, and forks
a process for each event; and 2.x, which makes a model for each request and calls `fit` inside it. What a model is
not told is read from the request that is being answered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from flask import Response, has_request_context, jsonify, request
from label_studio_ml.model import LabelStudioMLBase

from kdal.aliases import Json
from kdal.resources import Resources
from kdal.settings import Settings
from kdal.web.service import Service
from kdal_core.errors import KdalError


@functools.cache
def service() -> Service:
    """The service of this process, set up by the environment, made when it is first asked."""
    return Service(Resources.open(Settings.load()))


class KDALModel(LabelStudioMLBase):  # type: ignore[misc]
    """kdal behind label-studio-ml's server."""

    def setup(self) -> None:
        """2.x calls this for each new model: on /setup the project is noted, as our own server does it."""
        if has_request_context() and request.path == "/setup":
            self.set("model_version", service().setup(request.get_json(force=True))["model_version"])

    def predict(self, tasks: list[Json], context: Json | None = None, **_: Any) -> list[Json]:
        """One result per task, in order; both lines take a list."""
        projects = {task.get("project") for task in tasks}
        if not tasks:
            return []
        if len(projects) != 1:
            raise KdalError(f"tasks of one project at a time, got those of {sorted(map(str, projects))}")
        results: list[Json] = service().predict({"project": f"{projects.pop()}.0", "tasks": tasks})["results"]
        return results

    def fit(self, event: Any = None, data: Json | None = None, **_: Any) -> Json:
        """2.x: put an event into the inbox. The server has checked who calls; rounds are the worker's."""
        return service().webhook({"action": event, **(data or {})}, {}, trusted=True)

    def process_event(self, event: str, data: Json, job_id: str, additional_params: Json) -> Json:
        """1.0.9: the same, for all events; its own version knows four and would train on each of them."""
        return self.fit(event, data)


def answer_directly(app: Any) -> Any:
    """Let label-studio-ml 1.0.9's server hand its requests to the service whole; returns the server.

    Left alone, it would answer errors with 500 and a traceback, drop the policy, and fork a process that loads
    torch for each event.
    """

    def view(answer: Callable[[], Json]) -> Callable[[], Response]:
        def reply() -> Response:
            try:
                return jsonify(answer())
            except KdalError as error:
                response = jsonify(error=str(error))
                response.status_code = 400
                return response

        return reply

    app.view_functions["_setup"] = view(lambda: service().setup(_body()))
    app.view_functions["_predict"] = view(lambda: service().predict(_body()))
    app.view_functions["webhook"] = view(lambda: service().webhook(_body(), dict(request.headers)))
    app.view_functions["get_version"] = view(lambda: service().versions((_body() or {}).get("project")))
    return app


def _body() -> Any:
    return request.get_json(force=True, silent=True)
