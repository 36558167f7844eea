"""The project page at 100,000 tasks and 30 rounds: the server's time for each address, and what it costs annotators.

The project is made as rounds leave it: tables, snapshots, orders, reasons, estimates; its images are of one photo. Each
address is asked for as a browser does it, and timed inside the server's process. Then webhooks are timed alone, and
while somebody has the page open. Run as `python -m benchmarks.page`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from kdal.labelstudio.connection import SECRET_HEADER
from kdal.resources import Resources
from kdal.rounds.estimates import statements
from kdal.rounds.estimates.kept import FACT, FILE
from kdal.rounds.map import save_map
from kdal.rounds.queue import Entry, save_reasons, save_regions
from kdal.rounds.store import Order, RoundStore
from kdal.settings import Settings
from kdal.storage.tables import now
from kdal.web.app import create_app
from kdal.web.pages.panels import PANELS
from kdal_core.evaluation import CurvePoint, LearningCurve

CLASSES = tuple(f"class {number}" for number in range(50))
CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="what" toName="image">'
    + "".join(f'<Choice value="{name}"/>' for name in CLASSES)
    + "</Choices></View>"
)
UID, BUDGET = "1.1", 500


def make(resources: Resources, folder: Path, tasks: int, rounds: int) -> None:
    """A project with so many tasks, after so many rounds."""
    photo = folder / "photo.jpg"
    Image.fromarray(load_sample_image("flower.jpg")).save(photo, quality=90)
    storage = resources.storage
    storage.put_project(1, UID, CONFIG, {"budget": BUDGET, "target": 0.97})
    for number in range(rounds):
        storage.begin_round(1, number, "budget" if number else "connect")
        began = now() - timedelta(hours=rounds - number)
        fields: dict[str, Any] = {"state": "closed", "budget": BUDGET, "counted": BUDGET, "version": f"kdal-r{number}"}
        storage.update_round(1, number, created_at=began, opened_at=began + timedelta(minutes=2), **fields)
        seconds = {"snapshot": 5.0, "features": 30.0, "train heads": 4.0, "score": 9.0, "select": 8.0, "publish": 9.0}
        storage.merge_round(1, number, facts=_facts(number), seconds=seconds)
    last = rounds - 1
    storage.update_round(1, last, state="open", counted=123)
    storage.update_project(1, serving_round=last, version=f"kdal-r{last}", connected_at=now())
    storage.note_unusable(1, last, {task: f"task {task}: image {task}.jpg is damaged" for task in range(1, 2001)})
    for number in range(5):
        storage.beat(f"worker-{number}")
    _assets(RoundStore(resources.assets, UID, last), tasks, last)


def _facts(number: int) -> dict[str, Any]:
    told = "The new model serves; it is no worse than the last: 88.0% against 84.1% accuracy on 61 labels. " * 2
    score = {"held_out_score": 0.5 + number / 70, "held_out": 50 * number, "metric": "accuracy", "promoted": True}
    people = {"labelled_by": {str(person): 20 for person in range(30)}, "labelled_first": list(range(3000, 3123))}
    return {
        "labels": BUDGET * number,
        "trains": number > 0,
        "verdict": told,
        FACT: {"model": number},
        **score,
        **people,
    }


def _assets(store: RoundStore, tasks: int, last: int) -> None:
    rng = np.random.default_rng(0)
    labelled = BUDGET * last
    address = "/data/local-files/?d=photo.jpg&"
    refs = [{"task_id": task, "uri": f"{address}{task}"} for task in range(1, tasks + 1)]
    marked = [{"ref": ref, "target": 0, "held_out": False} for ref in refs[:labelled]]
    store.write_json("snapshot.json", {"uid": UID, "labelled": marked, "pool": refs[labelled:]})
    order = rng.permutation(np.arange(labelled + 1, tasks + 1)).tolist()
    store.save_order(Order(order, BUDGET, len(order)), np.array(order), np.zeros(len(order)))
    save_reasons(store, [Entry(task, "gap", gap=0.9, far=0.5) for task in order[:500]], "kd_gap")
    choice = {"type": "choices", "score": 0.8, "value": {"choices": [CLASSES[3]]}}
    save_regions(store, order[:500], {task: [choice] for task in order[:500]})
    save_map(store, np.array(order), order[:BUDGET], {"features": rng.normal(size=(len(order), 8))}, np.zeros(0, int))
    store.write_json(FILE, _estimates(rng, last))


def _estimates(rng: np.random.Generator, last: int) -> dict[str, Any]:
    points = [CurvePoint(BUDGET * i, 50, 0.5 + i / 70, 0.4 + i / 80, 0.55 + i / 70, 50) for i in range(1, last + 1)]
    models = list(range(1, last + 1))
    found = LearningCurve(tuple(points), 50 * last, 0, 0.95)
    labels = rng.integers(0, len(CLASSES), 5000)
    seen = rng.dirichlet(np.ones(len(CLASSES)), 5000) + np.eye(len(CLASSES))[labels] * 0.3
    unseen = (np.arange(1, 5001), labels, seen / seen.sum(axis=1, keepdims=True))
    told = {"stopping": {}} | statements.nothing() | {"round": last, "model": last, "metric": "accuracy"}
    told |= {
        "curve": statements.curve(found, models),
        "suggestions": statements.suggestions([[name, last, 40, 5, 2] for name in CLASSES]),
        "label_errors": statements.errors(unseen, CLASSES),
        "classes": statements.classes([[CLASSES[label]] for label in labels], CLASSES),
        "confusion": statements.confusion(unseen, CLASSES),
    }
    kept = {"told": told, "models": models, "points": [vars(point) for point in points], "at_random": []}
    return kept | {"left": 85_000, "labels": BUDGET * last}


def sign_in(client: Any) -> None:
    """Give a client a session."""
    page = client.get("/projects/sign-in").get_data(as_text=True)
    found = re.search(r'name="form_token" value="([^"]+)"', page)
    assert found is not None
    answer = client.post("/projects/sign-in", data={"form_token": found[1], "user": "owner", "password": "password"})
    assert answer.status_code == 303


def timed(ask: Callable[[], Any], times: int) -> list[float]:
    """Milliseconds of each of so many calls."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        found.append(1000 * (time.perf_counter() - began))
    return found


def addresses(client: Any, times: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each address: the first time, and then the median and the 95th percentile."""
    paths = {"/projects": "/projects", "/projects/1": "/projects/1"}
    paths |= {f"panel {name}": f"/projects/1/panels/{name}" for name in PANELS}
    pictures = re.findall(r'src="(/projects/1/tasks/\d+/small.jpg[^"]*)"', _text(client, "/projects/1/panels/queue"))
    paths |= {"a picture": pictures[0]}
    found = {}
    for name, path in paths.items():

        def ask(path: str = path) -> None:
            with client.get(path) as answer:
                assert answer.status_code == 200, (path, answer.status)

        first, again = timed(ask, 1)[0], timed(ask, times)
        found[name] = {"first": first, "median": statistics.median(again), "p95": float(np.percentile(again, 95))}
    return found


def webhooks(app: Any, client: Any, secret: str, times: int) -> dict[str, float]:
    """Median milliseconds of a webhook, alone and while a page is open, and their ratio; in turns of 50."""
    sender, event = app.test_client(), {"action": "ANNOTATION_CREATED", "project": {"id": 1}}

    def send() -> None:
        assert sender.post("/webhook", json=event, headers={SECRET_HEADER: secret}).status_code == 200
        time.sleep(0.01)

    alone: list[float] = []
    beside: list[float] = []
    for _ in range(max(1, times // 50)):
        alone += timed(send, 50)
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(client, stop))
        watcher.start()
        beside += timed(send, 50)
        stop.set()
        watcher.join()
    both = statistics.median(alone) - 10, statistics.median(beside) - 10
    return {"alone": both[0], "page open": both[1], "ratio": both[1] / both[0]}


def _watch(client: Any, stop: threading.Event) -> None:
    """Ask for each panel as often as a page that has been open for a while does."""
    draw = random.Random(0)
    due = {name: time.monotonic() + draw.random() * panel.every for name, panel in PANELS.items()}
    while not stop.wait(0.05):
        for name, panel in PANELS.items():
            if time.monotonic() >= due[name]:
                due[name] = time.monotonic() + panel.every
                client.get(f"/projects/1/panels/{name}").close()


def _text(client: Any, path: str) -> str:
    return str(client.get(path).get_data(as_text=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--times", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Label Studio is not there, and need not be: what the page asks it, it asks in the background.
        settings = Settings(
            home=folder,
            label_studio_url="http://127.0.0.1:9",
            label_studio_api_key="0" * 40,
            auth_user="owner",
            auth_password="password",
            local_files_root=folder,
        )
        resources = Resources.open(settings)
        make(resources, folder, options.tasks, options.rounds)
        app = create_app(resources)
        client = app.test_client()
        sign_in(client)
        found = addresses(client, options.times)
        for path, figures in found.items():
            print(f"{path:20}" + "".join(f"  {key} {value:7.1f} ms" for key, value in figures.items()))
        beside = webhooks(app, client, settings.secret, 3 * options.times)
        print("webhook  " + "  ".join(f"{key} {value:.2f}" for key, value in beside.items()))
        worst = max(figures["p95"] for figures in found.values())
        print(json.dumps({"tasks": options.tasks, "rounds": options.rounds, "worst_p95_ms": round(worst, 1)}))
        resources.storage.close()


if __name__ == "__main__":
    main()
