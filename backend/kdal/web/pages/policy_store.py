"""A project's policy where it belongs, in Label Studio, and who changed it on the page, and when."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from kdal.aliases import Json
from kdal.labelstudio.connection import connect_backend, project_uid, served_by
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.storage.assets import MissingAssetError
from kdal.storage.tables import Project
from kdal.web.pages.policy_form import stamp
from kdal_core.errors import ConfigError, KdalError

KEPT = 100
"""Changes that are kept: the newest."""


class ChangedMeanwhileError(KdalError):
    """The policy is not any more what whoever changes it has seen."""


@dataclass(frozen=True)
class Change:
    """A change made on the page."""

    when: str
    """ISO 8601, UTC."""
    who: str
    policy: Json
    """As it was from then on."""
    before: Json
    """As it was until then."""

    @property
    def at(self) -> datetime:
        """When, in UTC."""
        return datetime.fromisoformat(self.when)

    @property
    def keys(self) -> list[tuple[str, str, str]]:
        """What changed: each key with the value before and after, "" where it was not set."""
        names = sorted({*self.policy, *self.before})
        told = [(name, _told(self.before, name), _told(self.policy, name)) for name in names]
        return [each for each in told if each[1] != each[2]]


class PolicyStore:
    """Reads and changes policies.

    Args:
        resources: has Label Studio, which holds the truth, and the assets, which hold the history.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._locks: dict[str, Lock] = defaultdict(Lock)
        self._lock = Lock()

    def current(self, project: Project) -> Json:
        """The keys that a project's policy sets, as Label Studio has it now.

        Raises:
            LabelStudioError: it does not answer.
            ConfigError: it holds no policy of this project, or one that cannot be read.
        """
        backend = served_by(self._resources.settings, self._resources.label_studio, project)
        if backend is None:
            raise ConfigError(f"kdal is not among the ML backends of project {project.id} in Label Studio")
        return Policy.parse(backend.get("extra_params")).model_dump(mode="json", exclude_unset=True)

    def change(self, project: Project, policy: Json, *, seen: str, who: str) -> None:
        """Put another policy in place of the one that was seen.

        Args:
            project: whose.
            policy: checked before.
            seen: `stamp` of the policy that it was made from.
            who: makes the change.

        Raises:
            ChangedMeanwhileError: the policy is another one by now; nothing is changed.
            LabelStudioError: Label Studio does not answer, or refuses.
        """
        with self._one(project.uid):
            before = self.current(project)
            if stamp(before) != seen:
                raise ChangedMeanwhileError(
                    "Somebody changed the policy after this form was opened; nothing was written. Below each field "
                    "stands what it is now: save again to write yours in its place."
                )
            client = self._resources.label_studio
            if project_uid(client.project(project.id)) != project.uid:
                raise ConfigError(f"project {project.id} was deleted in Label Studio, and its number given to another")
            connect_backend(self._resources.settings, client, project.id, policy)
            change = Change(datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds"), who, policy, before)
            kept = [asdict(each) for each in self.history(project)[: KEPT - 1][::-1]]
            self._resources.assets.write_json(_key(project), [*kept, asdict(change)])

    def history(self, project: Project) -> list[Change]:
        """The changes made on the page, newest first."""
        try:
            rows: Any = self._resources.assets.read_json(_key(project))
            return [Change(**row) for row in rows][::-1]
        except (MissingAssetError, TypeError):
            return []

    @contextmanager
    def _one(self, uid: str) -> Iterator[None]:
        with self._lock:
            lock = self._locks[uid]
        with lock:
            yield


def _key(project: Project) -> str:
    return f"projects/{project.uid}/policy-history.json"


def _told(policy: Json, name: str) -> str:
    return json.dumps(policy[name]) if name in policy else ""
