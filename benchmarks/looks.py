"""What kdal's looks at a large project cost Label Studio and the annotators, and how soon a round begins.

One run, one Label Studio on SQLite, projects of digits, of which one is large:
- CPU seconds of Label Studio for an idle look of the worker, and for each request that it makes;
- an annotator's `next` in the large project: kdal away, kdal idle and kdal training, in turn;
- seconds from "Start training", and from the last label of a batch, until the round begins;
- the same in a small project while the large one is labelled and looked at.

Run as `python -m benchmarks.looks`.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from kdal.demo.examples.digits import Digits
from kdal.labelstudio.client import LabelStudioClient
from kdal.labelstudio.connection import connect_backend
from kdal.processes.child import KDAL, Child, Supervisor, free_port
from kdal.processes.embedded import EmbeddedLabelStudio
from kdal.resources import Resources
from kdal.rounds.engine import Engine
from kdal.rounds.worker import Clock, Worker
from kdal.settings import Settings
from kdal.storage.database import Storage

DIGITS = Digits()
CHUNK = 500
"""Tasks of an import."""
POLICY = {"budget": 100_000, "epochs": 1, "holdout": 0.0}
"""Of the large project: its batch becomes full when a measurement says so."""
LONG = 10_000
"""Epochs of a training that goes on until it is cancelled."""
SETTLES = 15
"""Seconds after a set-up until Label Studio rests."""
THINKS = 0.3
"""Seconds that an annotator looks at a task."""


@dataclass
class Team:
    """Label Studio as annotators use it."""

    session: requests.Session
    url: str
    processes: list[psutil.Process]
    """Label Studio's."""

    def next_task(self, project: int) -> tuple[int, float]:
        """The task that is served next, and the seconds that it took."""
        began = time.perf_counter()
        answer = self.session.get(f"{self.url}/api/projects/{project}/next", timeout=60)
        seconds = time.perf_counter() - began
        answer.raise_for_status()
        return int(answer.json()["id"]), seconds

    def submit(self, task: int) -> None:
        """Label a task."""
        body = {"result": DIGITS.answer(task % len(DIGITS))}
        self.session.post(f"{self.url}/api/tasks/{task}/annotations/", json=body, timeout=60).raise_for_status()

    def label(self, project: int, count: int) -> list[float]:
        """Label the next tasks; returns the seconds that each was waited for."""
        seconds = []
        for _ in range(count):
            task, waited = self.next_task(project)
            seconds.append(waited)
            time.sleep(THINKS)
            self.submit(task)
        return seconds

    def cpu(self) -> float:
        """CPU seconds that Label Studio has used."""
        times = [process.cpu_times() for process in self.processes]
        return float(sum(time_.user + time_.system for time_ in times))

    def cpu_of(self, work: Callable[[], Any], times: int) -> float:
        """CPU seconds of Label Studio for a piece of work, on average over several times."""
        before = self.cpu()
        for _ in range(times):
            work()
        return (self.cpu() - before) / times


def fill(client: LabelStudioClient, title: str, tasks: int, labels: int) -> int:
    """A project of digits, the first of them labelled; returns its number."""
    project = int(client.create_project(title, DIGITS.label_config)["id"])
    images = [base64.b64encode(DIGITS.image(i)).decode() for i in range(len(DIGITS))]
    for start in range(0, tasks, CHUNK):
        rows: list[dict[str, Any]] = []
        for i in range(start, min(start + CHUNK, tasks)):
            digit = i % len(DIGITS)
            # Each its own address, or they would be one image.
            rows.append({"data": {"image": f"data:image/png;name={i};base64,{images[digit]}"}})
            if i < labels:
                rows[-1]["annotations"] = [{"result": DIGITS.truth(digit)}]
        client.import_tasks(project, rows)
    return project


def wait_open(storage: Storage, project: int) -> None:
    """Wait until the newest round is open and nothing of it is left to do."""
    while (row := storage.last_round(project)) is None or "clean up" not in row.seconds or row.state != "open":
        if row is not None and row.state == "failed":
            raise SystemExit(f"project {project}: round {row.number} failed: {row.error}")
        time.sleep(0.1)


def p95(seconds: list[float]) -> float:
    """Milliseconds that 95% of the waits stay below."""
    return 1000 * statistics.quantiles(seconds, n=20)[-1]


# ------------------------------------------------------------------ the measurements


def measure_looks(team: Team, settings: Settings, project: int) -> dict[str, float]:
    """CPU milliseconds of Label Studio for each request of a look, and for an idle look of the worker."""
    resources = Resources.open(settings)
    client, engine = resources.label_studio, Engine(resources, computes=False)
    moments = itertools.count(0.0, settings.reconcile_seconds)
    now = [next(moments)]
    worker = Worker(resources, engine, Clock(seconds=lambda: now[0]))

    def look() -> None:
        now[0] = next(moments)  # as if the timer had led here: some looks do more than others
        row = resources.storage.project(project)
        assert row is not None
        worker.reconcile(row, set())

    look()  # the first one reads the round
    requests_ = {
        "labelled_count": lambda: client.labelled_count(project),
        "webhooks": lambda: client.webhooks(project),
        "backends": lambda: client.backends(project),
        "project": lambda: client.project(project),
        "labelled_ids (now and then)": lambda: client.labelled_ids(project),
        "an idle look": look,
    }
    found = {name: 1000 * team.cpu_of(work, 3 if "now" in name else 20) for name, work in requests_.items()}
    engine.close()
    resources.storage.close()
    for name, milliseconds in found.items():
        print(f"{name}: {milliseconds:.0f} ms of Label Studio's CPU")
    return found


def measure_next(
    team: Team, client: LabelStudioClient, settings: Settings, project: int, worker: Child, count: int, blocks: int
) -> dict[str, Any]:
    """Percentile 95 of `next` with kdal away, idle and training, in turn; and its ratios."""
    (hook,) = client.webhooks(project)

    @contextmanager
    def away() -> Iterator[None]:
        processes = psutil.Process(worker.pid).children(recursive=True)
        client.update_webhook(int(hook["id"]), **{**hook, "is_active": False})
        for process in processes:
            os.kill(process.pid, signal.SIGSTOP)
        yield
        for process in processes:
            os.kill(process.pid, signal.SIGCONT)
        client.update_webhook(int(hook["id"]), **{**hook, "is_active": True})

    seconds: dict[str, list[float]] = {"away": [], "idle": [], "training": []}
    # All labels were imported just now: the first count of the round reads them all, once, which no team sees again.
    storage = Storage(settings.sqlalchemy_url)
    team.label(project, 1)
    counted(storage, project)
    for _ in range(blocks):
        with away():
            seconds["away"] += team.label(project, count)
        seconds["idle"] += team.label(project, count)
    begin(team, client, project)
    while (row := storage.last_round(project)) is None or "train" not in row.step or row.progress == 0:
        time.sleep(0.2)
    for _ in range(blocks):
        with away():
            seconds["away"] += team.label(project, count)
        seconds["training"] += team.label(project, count)
    storage.cancel_round(project)
    storage.add_event(project, "ROUND_CANCELLED")
    storage.close()
    found: dict[str, Any] = {name: {"p95_ms": p95(values), "n": len(values)} for name, values in seconds.items()}
    for name in ("idle", "training"):
        found[name]["ratio"] = found[name]["p95_ms"] / found["away"]["p95_ms"]
    for name, row_ in found.items():
        print(f"next, kdal {name}: p95 {row_['p95_ms']:.0f} ms of {row_['n']}, {row_.get('ratio', 1):.2f} times")
    return found


def begin(team: Team, client: LabelStudioClient, project: int) -> None:
    """Press "Start training"."""
    (backend,) = client.backends(project)
    team.session.post(f"{team.url}/api/ml/{backend['id']}/train", timeout=100).raise_for_status()


def measure_beginnings(
    team: Team, client: LabelStudioClient, storage: Storage, project: int, times: int, *, full_batch: bool
) -> list[float]:
    """Seconds from the button, or from the last label of a batch, until a round begins; each is cancelled again."""
    found = []
    for _ in range(times):
        last = storage.last_round(project)
        assert last is not None
        team.label(project, 3)  # looks are under way, or have just ended
        if full_batch:
            set_budget(storage, project, counted(storage, project) + 1)
            task, _ = team.next_task(project)
            began = time.perf_counter()
            team.submit(task)
        else:
            began = time.perf_counter()
            begin(team, client, project)
        while storage.last_round(project).number == last.number:  # type: ignore[union-attr]
            time.sleep(0.01)
        found.append(time.perf_counter() - began)
        set_budget(storage, project, POLICY["budget"])
        storage.cancel_round(project)
        storage.add_event(project, "ROUND_CANCELLED")
        while storage.waiting_events():
            time.sleep(0.1)
    print(f"project {project}, {'a full batch' if full_batch else 'the button'}: {[round(s, 1) for s in found]} s")
    return found


def counted(storage: Storage, project: int) -> int:
    """Labels that the worker has counted, once it has seen to all events."""
    while storage.waiting_events():
        time.sleep(0.1)
    last = storage.last_round(project)
    assert last is not None
    return last.counted


def set_budget(storage: Storage, project: int, budget: float) -> None:
    """As a set-up would: without Label Studio's own part in it."""
    row = storage.project(project)
    assert row is not None
    storage.update_project(project, policy={**row.policy, "budget": int(budget)})
    storage.add_event(project, "PROJECT_UPDATED")  # the worker looks, and knows how many labels are missing now
    while storage.waiting_events():
        time.sleep(0.05)


@contextmanager
def busy(team: Team, project: int) -> Iterator[None]:
    """Somebody labels a project meanwhile."""
    stop = threading.Event()
    other = Team(requests.Session(), team.url, [])
    other.session.headers.update(team.session.headers)

    def work() -> None:
        while not stop.is_set():
            other.label(project, 1)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=15_000, help="of the large project")
    parser.add_argument("--labels", type=int, default=5_000, help="of them labelled")
    parser.add_argument("--nexts", type=int, default=20, help="tasks labelled before kdal goes, or comes again")
    parser.add_argument("--blocks", type=int, default=5, help="times that it goes and comes")
    parser.add_argument("--times", type=int, default=5, help="rounds begun in each way")
    parser.add_argument("--out", type=Path, default=Path("artifacts/looks.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Supervisor() as children:
        folder, port = Path(scratch), free_port()
        with EmbeddedLabelStudio(folder / "label-studio", free_port()) as server, requests.Session() as session:
            environment = {
                "LABEL_STUDIO_URL": server.url,
                "LABEL_STUDIO_API_KEY": server.token,
                "KDAL_URL": f"http://127.0.0.1:{port}",
                "KDAL_HOME": str(folder / "kdal"),
            }
            settings = Settings(
                label_studio_url=server.url,
                label_studio_api_key=server.token,
                url=environment["KDAL_URL"],
                home=folder / "kdal",
            )
            client = LabelStudioClient(server.url, server.token)
            session.headers.update(client.authorization())
            of_server = [p for p in psutil.Process().children(recursive=True) if str(folder) in str(p.cwd())]
            team = Team(session, server.url, of_server)
            began = time.monotonic()
            large = fill(client, "large", options.tasks, options.labels)
            small = fill(client, "small", 200, 20)
            print(f"{options.tasks} tasks, {options.labels} labels, in {time.monotonic() - began:.0f} s")
            serve = children.start(
                "serve", [*KDAL, "serve", "--port", str(port)], env=environment, log=folder / "serve.log"
            )
            serve.wait_until_healthy(f"{settings.url}/health", timeout=120)
            worker = children.start("worker", [*KDAL, "worker"], env=environment, log=folder / "worker.log")
            storage = Storage(settings.sqlalchemy_url)
            began = time.monotonic()
            for project in (large, small):
                connect_backend(settings, client, project, POLICY)
                wait_open(storage, project)
            print(f"round 0 of both open after {time.monotonic() - began:.0f} s")
            connect_backend(settings, client, large, {**POLICY, "epochs": LONG})
            while storage.waiting_events():
                time.sleep(0.5)
            time.sleep(SETTLES)
            report: dict[str, Any] = {"tasks": options.tasks, "labels": options.labels}
            report["look_ms"] = measure_looks(team, settings, large)
            report["next"] = measure_next(team, client, settings, large, worker, options.nexts, options.blocks)
            for project, full_batch in itertools.product((large, small), (False, True)):
                name = f"{'large' if project == large else 'small'}, {'full batch' if full_batch else 'button'}"
                if project == small:
                    with busy(team, large):
                        name += ", the large one being labelled"
                        seconds = measure_beginnings(
                            team, client, storage, project, options.times, full_batch=full_batch
                        )
                else:
                    seconds = measure_beginnings(team, client, storage, project, options.times, full_batch=full_batch)
                report.setdefault("begins_s", {})[name] = seconds
            storage.close()
            children.stop()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
