"""What Prometheus is told: the server's requests, and how each project stands."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterator
from datetime import datetime

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kdal.aliases import Json
from kdal.rounds.status import status
from kdal.storage.database import Storage
from kdal.storage.tables import Round, now
from kdal.web.gpu_memory import gpu_memory

STATES = ("computing", "open", "closed", "failed", "cancelled")
"""Of rounds."""
OF_PROJECTS = {
    "kdal_round": "Number of the newest round.",
    "kdal_labels_counted": "Labels counted for the open round.",
    "kdal_labels_budget": "Labels that end the open round.",
    "kdal_round_failed": "1 while the newest round is failed.",
    "kdal_round_computing_seconds": "Seconds since the newest round began, while it is computed; else 0.",
    "kdal_project_problem": "1 while kdal cannot serve the project; `kdal status` says why.",
    "kdal_tasks_set_aside": "Tasks that the newest round could not use.",
    "kdal_teacher_queries": "Images that count as asked to the project's black-box teacher.",
    "kdal_teacher_budget": "Images that it may be asked about at most.",
    "kdal_teacher_cost": "Money that counts as spent on it, in the unit of its price.",
    "kdal_round_seconds": "Seconds that the newest finished round took to compute.",
    "kdal_queue_age_seconds": "Seconds since the order in force was opened for annotators.",
    "kdal_serving_round": "The round whose model answers predictions; no sample before the first.",
    "kdal_held_out_score": "What the newest model scored on held-out labels, by the metric of its kind of task.",
    "kdal_model_promoted": "1 if the newest model was let serve, 0 if it was refused.",
}


class Metrics:
    """Prometheus figures of the server, and of the projects at the moment they are asked for."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, storage: Storage) -> None:
        self._registry = CollectorRegistry()
        names = ("route", "status")
        self._requests = Counter("kdal_requests", "Requests answered.", names, registry=self._registry)
        self._seconds = Histogram(
            "kdal_request_seconds",
            "Seconds to an answer.",
            ("route",),
            registry=self._registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100),
        )
        self._registry.register(StatusCollector(storage))

    def observe(self, route: str, code: int, seconds: float) -> None:
        """Note one answered request."""
        self._requests.labels(route, str(code)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        return generate_latest(self._registry)


class StatusCollector(Collector):
    """The tables as gauges, read each time Prometheus asks."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def describe(self) -> list[Metric]:
        """No names in advance: nothing has to be read to register."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Of the inbox, the workers, the GPUs, and of each project that kdal serves."""
        report = status(self._storage)
        yield from self._inbox()
        yield from self._workers(report)
        yield from _gpus()
        gauges = {name: GaugeMetricFamily(name, told, labels=["project"]) for name, told in OF_PROJECTS.items()}
        states = GaugeMetricFamily("kdal_rounds", "Rounds in each state.", labels=["project", "state"])
        steps = GaugeMetricFamily(
            "kdal_step_seconds", "Seconds that each step of the newest finished round took.", labels=["project", "step"]
        )
        for project in report["projects"]:
            if project["disconnected_at"] is not None:
                continue
            number, rounds = str(project["id"]), self._storage.rounds(project["id"])
            for name, value in _of_project(project, rounds):
                gauges[name].add_metric([number], value)
            counted = Counts(row.state for row in rounds)
            for state in STATES:
                states.add_metric([number, state], counted[state])
            for step, seconds in _newest_opened(rounds).items():
                steps.add_metric([number, step], seconds)
        yield from (*gauges.values(), states, steps)

    def _inbox(self) -> Iterator[Metric]:
        waiting = self._storage.waiting_events()
        age = _seconds_since(waiting[0].received_at) if waiting else 0.0
        total = self._storage.count_events()
        yield CounterMetricFamily("kdal_events", "Events that came into the inbox.", value=total)
        yield GaugeMetricFamily("kdal_events_waiting", "Events in the inbox.", value=len(waiting))
        yield GaugeMetricFamily("kdal_inbox_age_seconds", "Age of the oldest event that waits in the inbox.", value=age)

    def _workers(self, report: Json) -> Iterator[Metric]:
        alive = sum(worker["alive"] for worker in report["workers"])
        yield GaugeMetricFamily("kdal_workers", "Workers that give signs of life.", value=alive)
        beats = GaugeMetricFamily(
            "kdal_worker_beat_age_seconds", "Seconds since a worker's last sign of life.", labels=["worker"]
        )
        for row in self._storage.workers():
            beats.add_metric([row.name], _seconds_since(row.beat_at))
        yield beats


def _of_project(project: Json, rounds: list[Round]) -> Iterator[tuple[str, float]]:
    """Names of `OF_PROJECTS`, and their values."""
    yield "kdal_tasks_set_aside", len(project["unusable"])
    yield "kdal_labels_counted", project["counted"] or 0
    yield "kdal_labels_budget", project["budget"] or 0
    yield "kdal_project_problem", project["problem"] is not None
    if teacher := project["teacher"]:
        yield "kdal_teacher_queries", teacher["queries"]
        yield "kdal_teacher_budget", teacher["budget"]
        yield "kdal_teacher_cost", teacher["cost"]
    if project["serving_round"] is not None:
        yield "kdal_serving_round", project["serving_round"]
    if rounds:
        last = rounds[-1]
        yield "kdal_round", last.number
        yield "kdal_round_failed", last.state == "failed"
        yield "kdal_round_computing_seconds", _seconds_since(last.created_at) if last.state == "computing" else 0.0
    opened = [row for row in rounds if row.opened_at is not None]
    if opened and opened[-1].opened_at is not None:
        yield "kdal_round_seconds", sum(opened[-1].seconds.values())
        yield "kdal_queue_age_seconds", _seconds_since(opened[-1].opened_at)
    judged = [row.facts for row in rounds if "promoted" in row.facts]
    if judged:
        yield "kdal_model_promoted", bool(judged[-1]["promoted"])
        if (score := judged[-1].get("held_out_score")) is not None:
            yield "kdal_held_out_score", score


def _newest_opened(rounds: list[Round]) -> dict[str, float]:
    """Seconds by step of the newest round that was opened."""
    return next((dict(row.seconds) for row in reversed(rounds) if row.opened_at is not None), {})


def _gpus() -> Iterator[Metric]:
    used = GaugeMetricFamily("kdal_gpu_memory_used_bytes", "Memory of a GPU in use, by all processes.", labels=["gpu"])
    total = GaugeMetricFamily("kdal_gpu_memory_total_bytes", "Memory of a GPU.", labels=["gpu"])
    for gpu in gpu_memory():
        used.add_metric([str(gpu.index)], gpu.used)
        total.add_metric([str(gpu.index)], gpu.total)
    yield from (used, total)


def _seconds_since(moment: datetime) -> float:
    return max(0.0, (now() - moment).total_seconds())
