"""Which projects kdal serves, and by which policy: what Label Studio's API says, whoever called /setup.

A request to /setup is a hint, as events are. Label Studio sends it while it makes the ML backend, before its API shows
that, so a set-up is asked about several times before it is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import structlog

from kdal.labelstudio.client import LabelStudioError
from kdal.labelstudio.connection import confirmed_set_up, project_uid
from kdal.labelstudio.formats import format_for
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.storage.set_ups import forget_set_ups, postpone_set_up, set_ups_due
from kdal.storage.tables import SETUP
from kdal.storage.tables import SetUp as Row
from kdal_core.errors import ConfigError

LOOKS = 8
"""How often Label Studio is asked whether a project that it has got a backend of ours: over two minutes."""
SAME = 3
"""How often it is asked about a project of which it says what is known."""
SLOWEST = 30
"""Seconds at most between two such questions."""
DOWN = timedelta(seconds=5)
"""After which a Label Studio that does not answer is asked again."""
log = structlog.get_logger()


def checked_policy(resources: Resources, label_config: str, extra_params: Any) -> Policy:
    """The policy that extra params say, once it is sure that kdal can serve this labelling config by it.

    Raises:
        ConfigError: it cannot; names the tag or the key.
    """
    policy = Policy.parse(extra_params)
    task = format_for(label_config, policy).task()
    resources.teachers.check(policy, task)
    policy.check(task)
    return policy


class SetUps:
    """Asks Label Studio's API about the set-ups that wait, and notes the projects that it confirms.

    Args:
        resources: tables and Label Studio.
        time: the time of day.
    """

    def __init__(self, resources: Resources, time: Callable[[], datetime]) -> None:
        self._resources, self._time = resources, time

    def due(self) -> list[Row]:
        """Those that it is time to ask about."""
        return set_ups_due(self._resources.storage, self._time())

    def settle(self, rows: list[Row]) -> None:
        """Ask about each of them; one question tells which projects there are, however many were invented."""
        storage = self._resources.storage
        try:
            dates = self._resources.label_studio.creation_dates(sorted({row.project_id for row in rows}))
        except LabelStudioError as error:
            log.warning("set-ups wait for Label Studio", count=len(rows), reason=str(error))
            for row in rows:
                postpone_set_up(storage, row, self._time() + DOWN, in_vain=False)
            return
        uids = {number: project_uid({"id": number, "created_at": date}) for number, date in dates.items()}
        invented = [row for row in rows if uids.get(row.project_id) != row.uid]
        if invented:
            log.warning("forgot set-ups of projects that Label Studio does not know", count=len(invented))
            forget_set_ups(storage, invented)
        for row in rows:
            if uids.get(row.project_id) == row.uid:
                self._settle(row)

    def _settle(self, row: Row) -> None:
        storage = self._resources.storage
        try:
            confirmed = self._confirmed(row)
        except LabelStudioError as error:
            log.warning("a set-up waits for Label Studio", project=row.project_id, reason=str(error))
            if error.transient:
                postpone_set_up(storage, row, self._time() + DOWN, in_vain=False)
                return
            confirmed = False  # it does not let us see the project's ML backends
        if confirmed or row.looks + 1 >= LOOKS:
            forget_set_ups(storage, [row])
        else:
            postpone_set_up(storage, row, self._time() + timedelta(seconds=min(2**row.looks, SLOWEST)))
        if not confirmed and row.looks + 1 >= LOOKS:
            log.warning(
                "forgot a set-up: the project has no ML backend at KDAL_URL in Label Studio",
                project=row.project_id,
                url=self._resources.settings.url,
            )

    def _confirmed(self, row: Row) -> bool:
        storage, number = self._resources.storage, row.project_id
        project = storage.project(number)
        known = None if project is None or project.uid != row.uid else project.backend_id
        found = confirmed_set_up(self._resources.settings, self._resources.label_studio, number, known)
        if found is None or found["uid"] != row.uid:
            return False
        try:
            policy = checked_policy(self._resources, found["label_config"], found["extra_params"])
        except ConfigError as error:
            if project is not None and project.uid == row.uid:
                storage.update_project(number, refusal=str(error))
            return True  # Label Studio was told so when it called
        told = policy.model_dump(mode="json", exclude_unset=True)
        if storage.put_project(number, row.uid, found["label_config"], told, event=SETUP):
            storage.accept_project(number, row.uid)
            return True
        return row.looks + 1 >= SAME  # nothing new: Label Studio may not have saved yet what it called about
