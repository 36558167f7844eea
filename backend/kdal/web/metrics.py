"""What Prometheus is told: the server's requests, and how each project stands."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kdal.rounds.status import status
from kdal.storage.database import Storage


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
    """`kdal.rounds.status.status` as gauges, read from the tables each time Prometheus asks."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def describe(self) -> list[GaugeMetricFamily]:
        """No names in advance: nothing has to be read to register."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, one sample a project."""
        report = status(self._storage)
        families = {
            "round": ("kdal_round", "Number of the newest round."),
            "counted": ("kdal_labels_counted", "Labels counted for the open round."),
            "budget": ("kdal_labels_budget", "Labels that end the open round."),
            "failed": ("kdal_round_failed", "1 while the newest round is failed."),
            "set_aside": ("kdal_tasks_set_aside", "Tasks that the newest round could not use."),
            "queries": ("kdal_teacher_queries", "Images that count as asked to the project's black-box teacher."),
            "query_budget": ("kdal_teacher_budget", "Images that it may be asked about at most."),
            "cost": ("kdal_teacher_cost", "Money that counts as spent on it, in the unit of its price."),
            "seconds": ("kdal_round_seconds", "Seconds that the newest finished round took to compute."),
        }
        gauges = {name: GaugeMetricFamily(*family, labels=["project"]) for name, family in families.items()}
        for project in report["projects"]:
            labels = [str(project["id"])]
            gauges["set_aside"].add_metric(labels, len(project["unusable"]))
            gauges["counted"].add_metric(labels, project["counted"] or 0)
            gauges["budget"].add_metric(labels, project["budget"] or 0)
            if teacher := project["teacher"]:
                gauges["queries"].add_metric(labels, teacher["queries"])
                gauges["query_budget"].add_metric(labels, teacher["budget"])
                gauges["cost"].add_metric(labels, teacher["cost"])
            if project["rounds"]:
                gauges["round"].add_metric(labels, project["rounds"][-1]["number"])
                gauges["failed"].add_metric(labels, project["rounds"][-1]["state"] == "failed")
            opened = [row for row in project["rounds"] if row["opened_at"]]
            if opened:
                gauges["seconds"].add_metric(labels, sum(opened[-1]["seconds"].values()))
        alive = sum(worker["alive"] for worker in report["workers"])
        yield GaugeMetricFamily("kdal_workers", "Workers that give signs of life.", value=alive)
        yield GaugeMetricFamily("kdal_events_waiting", "Events in the inbox.", value=report["events_waiting"])
        yield from gauges.values()
