"""States that a round may be in, made without computing one."""

from __future__ import annotations

import numpy as np
from dbos import DBOS

from kdal.rounds.engine import workflow_id
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import take_snapshot
from kdal.rounds.store import Order, RoundStore
from kdal.storage.tables import now


def open_round(loop, number=0):
    """Leave a round open as the engine does: its snapshot taken, its order in force."""
    storage = loop.resources.storage
    if loop.resources.storage.last_round(3) is None or loop.rounds[-1].number < number:
        storage.begin_round(3, number, "connect")
    store = RoundStore(loop.resources.assets, loop.row.uid, number)
    snapshot = take_snapshot(loop.resources, loop.row, store, StepReport())
    tasks = [ref.task_id for ref in snapshot.pool]
    store.save_order(Order(tasks, min(3, len(tasks)), len(tasks)), np.array(tasks), np.zeros(len(tasks)))
    version = f"kdal-r{number}"
    loop.project.predictions += [{"task": t, "score": t, "model_version": version, "result": []} for t in tasks]
    loop.project.model_version = version
    storage.update_round(3, number, state="open", opened_at=now(), version=version, budget=3, failures=0)
    storage.update_project(3, version=version, serving_round=number)


def engine_state(loop, number, restarts=0):
    status = DBOS.get_workflow_status(workflow_id(loop.row.uid, number, restarts))
    return None if status is None else status.status
