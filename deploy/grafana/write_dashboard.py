"""Write kdal's Grafana dashboard: python deploy/grafana/write_dashboard.py.

Grafana's own form has a hundred lines a panel; here a panel is one line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("kdal.json")
SOURCE = {"type": "prometheus", "uid": "${source}"}
PROJECT = '{project=~"$project"}'
PANELS: list[tuple[str, str, str, list[tuple[str, str]]]] = [
    # kind, title, unit, queries with their legends
    ("stat", "Workers alive", "none", [("kdal_workers", "")]),
    ("stat", "Oldest event waiting", "s", [("kdal_inbox_age_seconds", "")]),
    ("stat", "Projects with a problem", "none", [("sum(kdal_project_problem)", "")]),
    ("stat", "Rounds failed now", "none", [("sum(kdal_round_failed)", "")]),
    (
        "timeseries",
        "Labels of the open round",
        "none",
        [
            (f"kdal_labels_counted{PROJECT}", "project {{project}}, counted"),
            (f"kdal_labels_budget{PROJECT}", "project {{project}}, budget"),
        ],
    ),
    (
        "timeseries",
        "Held-out score of the newest model",
        "percentunit",
        [(f"kdal_held_out_score{PROJECT}", "project {{project}}")],
    ),
    (
        "timeseries",
        "Newest round, and the one whose model serves",
        "none",
        [
            (f"kdal_round{PROJECT}", "project {{project}}, newest"),
            (f"kdal_serving_round{PROJECT}", "project {{project}}, serves"),
        ],
    ),
    ("timeseries", "Newest model let serve", "bool_yes_no", [(f"kdal_model_promoted{PROJECT}", "project {{project}}")]),
    (
        "timeseries",
        "Seconds of a round, by step",
        "s",
        [(f"kdal_step_seconds{PROJECT}", "project {{project}}, {{step}}")],
    ),
    (
        "timeseries",
        "Seconds of a round",
        "s",
        [
            (f"kdal_round_seconds{PROJECT}", "project {{project}}, finished"),
            (f"kdal_round_computing_seconds{PROJECT}", "project {{project}}, computing"),
        ],
    ),
    ("timeseries", "Age of the order in force", "s", [(f"kdal_queue_age_seconds{PROJECT}", "project {{project}}")]),
    ("timeseries", "Rounds by state", "none", [(f"sum by (state) (kdal_rounds{PROJECT})", "{{state}}")]),
    (
        "timeseries",
        "Events",
        "none",
        [("rate(kdal_events_total[5m]) * 60", "a minute"), ("kdal_events_waiting", "waiting")],
    ),
    ("timeseries", "Worker's last sign of life", "s", [("kdal_worker_beat_age_seconds", "{{worker}}")]),
    (
        "timeseries",
        "Requests a second",
        "reqps",
        [("sum by (route, status) (rate(kdal_requests_total[5m]))", "{{route}} {{status}}")],
    ),
    (
        "timeseries",
        "Answers, 95 of 100 faster than",
        "s",
        [("histogram_quantile(0.95, sum by (le, route) (rate(kdal_request_seconds_bucket[5m])))", "{{route}}")],
    ),
    ("timeseries", "Unusable tasks", "none", [(f"kdal_tasks_set_aside{PROJECT}", "project {{project}}")]),
    (
        "timeseries",
        "Black-box teacher, questions",
        "none",
        [
            (f"kdal_teacher_queries{PROJECT}", "project {{project}}, asked"),
            (f"kdal_teacher_budget{PROJECT}", "project {{project}}, budget"),
        ],
    ),
    ("timeseries", "Black-box teacher, money", "none", [(f"kdal_teacher_cost{PROJECT}", "project {{project}}")]),
    (
        "timeseries",
        "Memory of GPUs",
        "bytes",
        [("kdal_gpu_memory_used_bytes", "{{gpu}}, in use"), ("kdal_gpu_memory_total_bytes", "{{gpu}}, all")],
    ),
]


def dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    panels, x, y = [], 0, 0
    for number, (kind, title, unit, queries) in enumerate(PANELS, start=1):
        width, height = (6, 4) if kind == "stat" else (12, 8)
        if x + width > 24:
            x, y = 0, y + panels[-1]["gridPos"]["h"]
        panels.append(
            {
                "id": number,
                "type": kind,
                "title": title,
                "datasource": SOURCE,
                "gridPos": {"x": x, "y": y, "w": width, "h": height},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(65 + i), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
                    for i, (expression, legend) in enumerate(queries)
                ],
            }
        )
        x += width
    variables = [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "project",
            "label": "Project",
            "type": "query",
            "datasource": SOURCE,
            "query": "label_values(kdal_round, project)",
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "current": {"text": "All", "value": "$__all"},
        },
    ]
    return {
        "uid": "kdal",
        "title": "kdal",
        "tags": ["kdal", "label studio"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(dashboard(), indent=1) + "\n")
