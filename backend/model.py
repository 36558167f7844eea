"""`KDALModel`, for whoever puts kdal behind a server of label-studio-ml's own (`init_app(model_class=KDALModel)`).

It holds no logic: `kdal.web.service.Service` answers. Written to both lines of label-studio-ml: 1.0.9 of PyPI, which
makes a model at /setup, tells it neither project nor policy, and forks a process for each event; and 2.x, which makes
a model for each request and calls `fit` inside it. What a model is not told is read from the request that is being
answered. `label-studio-ml start backend` does without it: `_wsgi.py` serves kdal's own routes.
"""

from __future__ import annotations

import functools
from typing import Any

from flask import has_request_context, request
from label_studio_ml.model import LabelStudioMLBase

from kdal import logs
from kdal.aliases import Json
from kdal.resources import Resources
from kdal.settings import Settings
from kdal.web.service import Service
from kdal_core.errors import KdalError


@functools.cache
def service() -> Service:
    """The service of this process, set up by the environment, made when it is first asked."""
    logs.set_up()
    return Service(Resources.open(Settings.load()))


class KDALModel(LabelStudioMLBase):  # type: ignore[misc]
    """kdal behind label-studio-ml's server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not hasattr(LabelStudioMLBase, "setup"):  # 1.0.9; 2.x has called it by now
            self.setup()

    def setup(self) -> None:
        """Note the project on /setup, as our own server does it."""
        if has_request_context() and request.path == "/setup":
            answer = service().setup(_body())
            if hasattr(self, "set"):  # 2.x answers with what is set here
                self.set("model_version", answer["model_version"])

    def predict(self, tasks: list[Json], context: Json | None = None, **_: Any) -> list[Json]:
        """One result per task, in order; both lines take a list."""
        results: list[Json] = service().predict({"project": self._uid(tasks), "tasks": tasks})["results"]
        return results

    def fit(self, event: Any = None, data: Json | None = None, **_: Any) -> Json:
        """2.x: put an event into the inbox. The server has checked who calls; rounds are the worker's."""
        return service().webhook({"action": event, **(data or {})}, {}, trusted=True)

    def process_event(self, event: str, data: Json, job_id: str, additional_params: Json) -> Json:
        """1.0.9: the same, for all events; its own version knows four and would train on each of them."""
        return self.fit(event, data)

    def _uid(self, tasks: list[Json]) -> Any:
        """Which project is asked about: the request says, else the tasks do, by its number."""
        body = _body() if has_request_context() else None
        if isinstance(body, dict) and "project" in body:
            return body["project"]
        numbers = {task.get("project") for task in tasks}
        if len(numbers) != 1 or not isinstance(number := numbers.pop(), int):
            raise KdalError("predictions are for tasks of one project at a time, which name it by its number")
        return service().uid(number)


def _body() -> Any:
    return request.get_json(force=True, silent=True)
