"""An annotator program: takes the next task from Label Studio's queue and submits what the image really shows."""

from __future__ import annotations

import time

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from kdal.console import SPINNER, out, progress
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
    doing = (
        "kdal puts the queue in order" if number == 0 else f"Round {number}: kdal trains and puts the queue in order"
    )
    with progress(out, doing, SPINNER) as report:
        while time.monotonic() < deadline:
            last = resources.storage.last_round(project)
            if last is not None and last.number >= number:
                if last.state == "open":
                    return last
                if last.state != "computing":
                    raise ProcessError(f"round {last.number} is {last.state}: {last.error or 'see `kdal status`'}")
                report(last.progress, 1.0, last.step)
            if (ended := children.ended()) is not None:
                raise ProcessError(f"{ended.name} ended by itself:\n{ended.tail()}")
            time.sleep(0.2)
    raise ProcessError(f"round {number} was not open after {PATIENCE:.0f} s; see `kdal status`")


def label(
    shown: Example, resources: Resources, project: int, last: Round, *, rounds: int, budget: int, children: Supervisor
) -> None:
    """Label batch by batch, from the open round `last` on, until this number of rounds was trained."""
    with requests.Session() as session:
        session.headers.update(resources.label_studio.authorization())
        # As a person presses the button again: on SQLite, Label Studio's writers may time out on each other.
        again = Retry(total=5, backoff_factor=0.5, status_forcelist=(500, 502, 503), allowed_methods=None)
        session.mount("http://", HTTPAdapter(max_retries=again))
        while last.number < rounds:
            wanted = budget * (last.number + 1)
            done = len(resources.label_studio.labelled_ids(project))
            with progress(out, f"Round {last.number}: a program labels") as report:
                for count in range(done, wanted):
                    report(count, wanted)
                    _label_next(shown, session, resources, project)
                report(wanted, wanted)
            last = wait_for_order(resources, project, children, last.number + 1)


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
