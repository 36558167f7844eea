"""The loop on a real Label Studio: what a round takes, and what kdal costs the annotators.

One run, one Label Studio on SQLite, the 1,797 digits, budget 50:
- seconds from a batch's last submit until the new order is in force, split by step;
- an annotator's submit in a project with kdal and in one without, taken in turn;
- the webhook's own answer.

Run as `python -m benchmarks.loop`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

from kdal.demo.example import import_missing, index_of
from kdal.demo.examples.digits import Digits
from kdal.labelstudio.client import LabelStudioClient
from kdal.labelstudio.connection import PROJECT_HEADER, SECRET_HEADER, connect_backend
from kdal.processes.child import KDAL, Supervisor, free_port
from kdal.processes.embedded import EmbeddedLabelStudio
from kdal.settings import Settings
from kdal.storage.database import Storage
from kdal.storage.tables import Round

DIGITS = Digits()


def next_task(session: requests.Session, base: str, project: int) -> dict[str, Any]:
    """The task that Label Studio serves next."""
    answer = session.get(f"{base}/api/projects/{project}/next", timeout=60)
    answer.raise_for_status()
    return dict(answer.json())


def submit(session: requests.Session, base: str, task: dict[str, Any]) -> float:
    """Label a task rightly; returns seconds."""
    result = DIGITS.answer(index_of(task["data"]["image"]))
    began = time.perf_counter()
    answer = session.post(f"{base}/api/tasks/{task['id']}/annotations/", json={"result": result}, timeout=60)
    seconds = time.perf_counter() - began
    answer.raise_for_status()
    return seconds


def wait_open(storage: Storage, project: int, number: int) -> Round:
    """Wait until a round is open."""
    while (row := storage.published_round(project)) is None or row.number < number:
        last = storage.last_round(project)
        if last is not None and last.state == "failed":
            raise SystemExit(f"round {last.number} failed: {last.error}")
        time.sleep(0.02)
    return row


def measure_rounds(session: requests.Session, base: str, storage: Storage, project: int, rounds: int) -> list[Any]:
    """Label batches; for each round the seconds from the last submit to the new order, and by step."""
    found = []
    for number in range(1, rounds + 1):
        for _ in range(50):
            submit(session, base, next_task(session, base, project))
        began = time.perf_counter()
        row = wait_open(storage, project, number)
        total = time.perf_counter() - began
        found.append({"round": number, "labels": 50 * number, "total": round(total, 2), "steps": row.seconds})
        print(f"round {number}: new order {total:.1f} s after the last submit; {row.seconds}")
        while "clean up" not in storage.round(project, number).seconds:
            time.sleep(0.05)
    return found


def measure_submits(session: requests.Session, base: str, connected: int, plain: int, count: int) -> dict[str, float]:
    """Median seconds of a submit with and without kdal, in turn; and their ratio."""
    seconds: dict[int, list[float]] = {connected: [], plain: []}
    for _ in range(count):
        for project in (connected, plain):
            seconds[project].append(submit(session, base, next_task(session, base, project)))
    with_kdal, without = (statistics.median(seconds[project]) for project in (connected, plain))
    print(
        f"submit: {1000 * with_kdal:.1f} ms with kdal, {1000 * without:.1f} ms without: {with_kdal / without:.2f} times"
    )
    return {"with_ms": 1000 * with_kdal, "without_ms": 1000 * without, "ratio": with_kdal / without}


def measure_webhook(settings: Settings, project: int, count: int) -> float:
    """Median milliseconds until an event is acknowledged."""
    headers = {SECRET_HEADER: settings.secret, PROJECT_HEADER: str(project)}
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        # A connection of its own each time, as Label Studio does it.
        answer = requests.post(
            f"{settings.url}/webhook", json={"action": "ANNOTATION_UPDATED"}, headers=headers, timeout=5
        )
        seconds.append(time.perf_counter() - began)
        answer.raise_for_status()
    print(f"webhook: {1000 * statistics.median(seconds):.1f} ms")
    return 1000 * statistics.median(seconds)


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--submits", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("artifacts/loop.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Supervisor() as children:
        folder = Path(scratch)
        with EmbeddedLabelStudio(folder / "label-studio", free_port()) as server, requests.Session() as session:
            port = free_port()
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
            projects = [int(client.create_project(f"digits {i}", DIGITS.label_config)["id"]) for i in range(3)]
            for project in projects:
                import_missing(DIGITS, client, project, len(DIGITS))
            serve = children.start(
                "serve", [*KDAL, "serve", "--port", str(port)], env=environment, log=folder / "serve.log"
            )
            children.start("worker", [*KDAL, "worker"], env=environment, log=folder / "worker.log")
            serve.wait_until_healthy(f"{settings.url}/health", timeout=120)
            storage = Storage(settings.sqlalchemy_url)
            looped, connected, plain = projects
            connect_backend(settings, client, looped, {"budget": 50})
            connect_backend(settings, client, connected, {"budget": 1000})
            for project in (looped, connected):
                wait_open(storage, project, 0)
            report = {
                "rounds": measure_rounds(session, server.url, storage, looped, options.rounds),
                "submit": measure_submits(session, server.url, connected, plain, options.submits),
                "webhook_ms": measure_webhook(settings, connected, options.submits),
            }
            children.stop()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
