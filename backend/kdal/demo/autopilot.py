"""An annotator program: takes the next task from Label Studio's queue and submits what the image really shows."""

from __future__ import annotations

import time

import requests
from requests.adapters import HTTPAdapter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from urllib3.util import Retry

from kdal.demo.example import Example, index_of
from kdal.labelstudio.client import LabelStudioError
from kdal.processes.child import ProcessError, Supervisor
from kdal.resources import Resources
from kdal.storage.tables import Round

PATIENCE = 1800.0
"""Seconds that a round may take to compute."""


def wait_for_order(resources: Resources, project: int, children: Supervisor, number: int = 0) -> Round:
    """Wait until a round of a project is open.

    Raises:
        ProcessError: kdal ended, the round failed, or it took too long; says why.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        last = resources.storage.last_round(project)
        if last is not None and last.number >= number and last.state == "open":
            return last
        if last is not None and last.state == "failed":
            raise ProcessError(f"round {last.number} failed: {last.error}")
        if (ended := children.wait(timeout=0.2)) is not None:
            raise ProcessError(f"{ended.name} ended by itself:\n{ended.tail()}")
    raise ProcessError(f"round {number} was not open after {PATIENCE:.0f} s; see `kdal status`")


def label(
    shown: Example, resources: Resources, project: int, *, rounds: int, budget: int, children: Supervisor
) -> None:
    """Label batch by batch until so many rounds were trained; begins where an earlier run stopped."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with requests.Session() as session, Progress(*columns, transient=True) as progress:
        session.headers.update(resources.label_studio.authorization())
        # As a person presses the button again: on SQLite, Label Studio's writers may time out on each other.
        again = Retry(total=5, backoff_factor=0.5, status_forcelist=(500, 502, 503), allowed_methods=None)
        session.mount("http://", HTTPAdapter(max_retries=again))
        bar = progress.add_task("")
        while (last := wait_for_order(resources, project, children)).number < rounds:
            wanted = budget * (last.number + 1)
            done = len(resources.label_studio.labelled_ids(project))
            for count in range(done, wanted):
                progress.update(bar, description=f"Round {last.number}: label {count + 1} of {wanted}")
                _label_next(shown, session, resources, project)
            progress.update(bar, description=f"Round {last.number + 1}: kdal trains and reorders")
            wait_for_order(resources, project, children, last.number + 1)


def _label_next(shown: Example, session: requests.Session, resources: Resources, project: int) -> None:
    base = resources.settings.label_studio_url
    task = session.get(f"{base}/api/projects/{project}/next", timeout=60)
    if not task.ok:
        raise LabelStudioError(f"next task: {task.status_code} {task.text[:500]}", task.status_code)
    result = shown.answer(index_of(task.json()["data"]["image"]))
    answer = session.post(
        f"{base}/api/tasks/{task.json()['id']}/annotations/", json={"result": result, "lead_time": 1.0}, timeout=60
    )
    if not answer.ok:
        raise LabelStudioError(f"submit: {answer.status_code} {answer.text[:500]}", answer.status_code)
