"""A small Label Studio in memory, for tests of what kdal asks of the real one, and of what it does when that fails.

It answers the routes that kdal uses as Label Studio 1.23.2 does (what that is, the integration tests see on a real
one): filters of tasks, predictions that fit the labelling config or are left out in silence, webhooks, ML backends,
imports of files and tasks, which it refuses as a whole for one that it does not take.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, Self

from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

Json = dict[str, Any]
TAKEN_SUFFIXES = (".bmp", ".gif", ".jpg", ".jpeg", ".png", ".webp")
"""Of images that Label Studio takes as uploads."""


@dataclass
class StandInProject:
    """A project; its tasks are by id, each with data, annotations and the time of its last change."""

    id: int
    label_config: str
    created_at: str = "2026-11-21T20:10:30Z"
    title: str = "a project"
    sampling: str = "Sequential sampling"
    model_version: str = ""
    tasks: dict[int, Json] = field(default_factory=dict)
    predictions: list[Json] = field(default_factory=list)
    webhooks: dict[int, Json] = field(default_factory=dict)
    backends: dict[int, Json] = field(default_factory=dict)
    storages: list[Json] = field(default_factory=list)
    """Those on S3."""
    uploads: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    """Files by number: where they are below /data/, and what they hold."""

    @property
    def uid(self) -> str:
        """As Label Studio sends it to ML backends."""
        return f"{self.id}.{int(datetime.fromisoformat(self.created_at).timestamp())}"

    def versions(self) -> dict[str, int]:
        """Number of predictions by model version."""
        return dict(Counter(p["model_version"] for p in self.predictions))

    def queue(self) -> list[int]:
        """Unlabelled tasks in the order in which annotators get them, as far as predictions say one."""
        scores = {p["task"]: p["score"] for p in self.predictions if p["model_version"] == self.model_version}
        return sorted((t for t in scores if not self.tasks[t]["annotations"]), key=lambda task: scores[task])


class StandInLabelStudio:
    """The server. `on[method, path pattern]` is called before a request is answered, and may answer it itself."""

    def __init__(self) -> None:
        self.projects: dict[int, StandInProject] = {}
        self.asked: list[str] = []
        """"METHOD path" of each request."""
        self.on: dict[tuple[str, str], Callable[[], Response | None]] = {}
        self.clock = datetime(2026, 11, 27, tzinfo=UTC)
        self._lock = threading.RLock()
        self._next = 100
        app = Flask("stand-in")
        self._routes(app)
        self._server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # ------------------------------------------------------------------ what people do

    def project(self, number: int, label_config: str, images: list[str], **fields: Any) -> StandInProject:
        """A new project with a task for each image address."""
        made = self.projects[number] = StandInProject(number, label_config, **fields)
        for image in images:
            self._add_task(made, image)
        return made

    def annotate(self, project: StandInProject, task: int, result: list[Json], **fields: Any) -> None:
        """Submit an annotation; fields such as `was_cancelled=True` go along."""
        row = project.tasks[task]
        row["annotations"].append({"id": self._number(), "result": result, "was_cancelled": False, **fields})
        self._touch(row)

    def edit(self, project: StandInProject, task: int, result: list[Json]) -> None:
        """Change a task's first annotation."""
        project.tasks[task]["annotations"][0] |= {"result": result, "updated_by": 1}
        self._touch(project.tasks[task])

    def add_backend(self, project: StandInProject, url: str, title: str = "kdal", **fields: Any) -> int:
        """Connect an ML backend, which makes Label Studio name the model version after it."""
        number = self._number()
        project.backends[number] = {"id": number, "url": url, "title": title, "project": project.id, **fields}
        project.model_version = title
        return number

    def count(self, pattern: str) -> int:
        """How many requests there were so far whose "METHOD path" a pattern matches."""
        return sum(re.fullmatch(pattern, asked) is not None for asked in self.asked)

    # ------------------------------------------------------------------ the API

    def _routes(self, app: Flask) -> None:
        @app.before_request
        def hook() -> Response | None:
            self.asked.append(f"{request.method} {request.path}")
            for (method, pattern), call in list(self.on.items()):
                if request.method == method and re.fullmatch(pattern, request.path):
                    return call()
            return None

        @app.get("/api/projects/")
        def list_projects() -> Any:
            wanted = set(map(int, request.args["ids"].split(",")))
            found = [p for p in self.projects.values() if p.id in wanted]
            names = request.args["include"].split(",")
            return jsonify(results=[{name: getattr(project, name) for name in names} for project in found])

        @app.get("/api/projects/<int:number>")
        def read_project(number: int) -> Any:
            found = self.projects.get(number)
            return self._shown(found) if found is not None else (jsonify(detail="Not found."), 404)

        @app.patch("/api/projects/<int:number>")
        def change_project(number: int) -> Any:
            for name, value in request.get_json().items():
                setattr(self.projects[number], name, value)
            return self._shown(self.projects[number])

        @app.get("/api/tasks")
        def tasks() -> Any:
            return self._task_page(self.projects[int(request.args["project"])])

        @app.post("/api/projects/<int:number>/import/predictions")
        def import_predictions(number: int) -> Any:
            return self._import(self.projects[number], request.get_json())

        @app.get("/api/projects/<int:number>/model-versions/")
        def versions(number: int) -> Any:
            return jsonify(self.projects[number].versions())

        @app.delete("/api/projects/<int:number>/model-versions/")
        def delete_version(number: int) -> Any:
            gone = request.get_json()["model_version"]
            project = self.projects[number]
            project.predictions = [p for p in project.predictions if p["model_version"] != gone]
            return jsonify({})

        @app.post("/api/dm/actions")
        def act() -> Any:
            assert request.args["id"] == "predictions_to_annotations"
            return self._annotate_from_predictions(self.projects[int(request.args["project"])], request.get_json())

        @app.route("/api/annotations/<int:number>/", methods=["GET", "DELETE"])
        def annotation(number: int) -> Any:
            return self._annotation(number)

        @app.post("/api/projects/<int:number>/import")
        def import_files_or_tasks(number: int) -> Any:
            if request.files:
                return self._upload(self.projects[number])
            return self._import_tasks(self.projects[number], request.get_json())

        @app.get("/api/projects/<int:number>/file-uploads")
        def uploads(number: int) -> Any:
            wanted = json.loads(request.args["ids"])
            found = self.projects[number].uploads
            return jsonify([{"id": upload, "file": found[upload][0]} for upload in wanted])

        @app.get("/data/<path:name>")
        def uploaded(name: str) -> Any:
            found = [data for p in self.projects.values() for path, data in p.uploads.values() if path == name]
            return Response(found[0]) if found else Response(status=404)

        @app.get("/api/storages/s3")
        def storages() -> Any:
            return jsonify(self.projects[int(request.args["project"])].storages)

        for name in ("webhooks", "backends"):
            self._collection(app, name)

    def _collection(self, app: Flask, name: str) -> None:
        path = {"webhooks": "/api/webhooks/", "backends": "/api/ml"}[name]
        one = path.rstrip("/") + "/<int:number>" + ("/" if path.endswith("/") else "")

        def rows(number: int) -> dict[int, Json]:
            return next(getattr(p, name) for p in self.projects.values() if number in getattr(p, name))

        def listed() -> Any:
            return jsonify(list(getattr(self.projects[int(request.args["project"])], name).values()))

        def create() -> Any:
            body = request.get_json()
            project = self.projects[int(body["project"])]
            if name == "backends":
                number = self.add_backend(project, **{k: v for k, v in body.items() if k != "project"})
            else:
                number = self._number()
                project.webhooks[number] = {"id": number, **body}
            return jsonify(getattr(project, name)[number]), 201

        def change(number: int) -> Any:
            rows(number)[number].update(request.get_json())
            return jsonify(rows(number)[number])

        def remove(number: int) -> Any:
            del rows(number)[number]
            return Response(status=204)

        app.add_url_rule(path, f"list-{name}", listed, methods=["GET"])
        app.add_url_rule(path, f"create-{name}", create, methods=["POST"])
        app.add_url_rule(one, f"change-{name}", change, methods=["PATCH"])
        app.add_url_rule(one, f"remove-{name}", remove, methods=["DELETE"])

    def _shown(self, project: StandInProject) -> Any:
        fields = ("id", "label_config", "created_at", "sampling", "model_version")
        parsed = {"a control": {}} if "toName" in project.label_config else {}
        shown = {name: getattr(project, name) for name in fields}
        return jsonify(shown | {"title": project.title, "parsed_label_config": parsed})

    def _task_page(self, project: StandInProject) -> Any:
        filters = json.loads(request.args["query"])["filters"]["items"]
        found = [row for row in project.tasks.values() if all(_passes(row, item) for item in filters)]
        page = sorted(found, key=lambda row: row["id"])[: int(request.args["page_size"])]
        full = request.args["fields"] == "all"
        shown = [row if full else {k: v for k, v in row.items() if k != "annotations"} for row in page]
        return jsonify(total=len(found), tasks=shown)

    def _import(self, project: StandInProject, predictions: list[Json]) -> Any:
        with self._lock:
            if any(p["task"] not in project.tasks for p in predictions):
                return jsonify(validation_errors=["task not found"]), 400
            known = set(re.findall(r'(?:Choice|Label) value="([^"]*)"', project.label_config))
            taken = [p for p in predictions if _labels(p) <= known]
            project.predictions += taken
            return jsonify(created=len(taken)), 201

    def _annotate_from_predictions(self, project: StandInProject, body: Json) -> Any:
        with self._lock:
            for prediction in project.predictions:
                wanted = prediction["task"] in body["selectedItems"]["included"]
                if wanted and prediction["model_version"] == body["model_version"] and "child" not in prediction:
                    self.annotate(project, prediction["task"], prediction["result"], updated_by=None, lead_time=None)
                    prediction["child"] = True
        return jsonify(detail="Created annotations")

    def _annotation(self, number: int) -> Any:
        rows = [row for project in self.projects.values() for row in project.tasks.values()]
        for row in rows:
            for found in row["annotations"]:
                if found["id"] == number:
                    if request.method == "GET":
                        return jsonify(found)
                    row["annotations"].remove(found)
                    self._touch(row)
                    return Response(status=204)
        return jsonify(detail="Not found."), 404

    def _upload(self, project: StandInProject) -> Any:
        files = list(request.files.values())
        for file in files:
            suffix = PurePosixPath(file.filename or "").suffix
            if suffix.lower() not in TAKEN_SUFFIXES:
                return jsonify(validation_errors=[f"{suffix} extension is not supported"]), 400
        numbers = []
        for file in files:
            numbers.append(self._number())
            path = f"upload/{project.id}/{numbers[-1]:08x}-{file.filename}"
            project.uploads[numbers[-1]] = (path, file.read())
        return jsonify(file_upload_ids=numbers), 201

    def _import_tasks(self, project: StandInProject, tasks: list[Json]) -> Any:
        if any("refuse" in json.dumps(task["data"]) for task in tasks):
            return jsonify(validation_errors=["a task is not valid"]), 400
        with self._lock:
            for task in tasks:
                self._add_task(project, "")
                row = list(project.tasks.values())[-1]
                found = [{"id": self._number(), "was_cancelled": False} | a for a in task.get("annotations", [])]
                row |= {"data": task["data"], "meta": task.get("meta"), "annotations": found}
                row["predictions"] = task.get("predictions", [])
        return jsonify(task_count=len(tasks)), 201

    def _add_task(self, project: StandInProject, image: str) -> None:
        number = project.id * 1000 + len(project.tasks) + 1
        project.tasks[number] = {"id": number, "data": {"image": image}, "annotations": []}
        self._touch(project.tasks[number])

    def _touch(self, row: Json) -> None:
        self.clock += timedelta(seconds=1)
        row["updated_at"] = self.clock.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _number(self) -> int:
        self._next += 1
        return self._next


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """Requests are in `asked`."""


def _labels(prediction: Json) -> set[str]:
    return {
        label
        for region in prediction["result"]
        for key, value in region["value"].items()
        if key in ("choices", "rectanglelabels", "vectorlabels")
        for label in value
    }


def _passes(row: Json, item: Json) -> bool:
    name = item["filter"].removeprefix("filter:tasks:")
    cancelled = sum(bool(a["was_cancelled"]) for a in row["annotations"])
    values = {
        "id": row["id"],
        "updated_at": row["updated_at"],
        "total_annotations": len(row["annotations"]) - cancelled,
        "cancelled_annotations": cancelled,
    }
    value = values[name]
    return bool(value > item["value"]) if item["operator"] == "greater" else bool(value == item["value"])
