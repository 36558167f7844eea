"""A project's models, one a round: what they are, which one serves, and how its owner puts another one in its place.

`promote` and `rollback` begin a round of their own, which trains nothing (`kdal.rounds.chosen`): a worker brings the
order and the pre-annotations of the chosen model into force as any round's, in one switch, whatever is killed
meanwhile. So nothing of it can happen beside a round that computes, and annotators keep the order they have until then.

The choice holds. The model of a later round takes its place only if it scores higher on labels that neither was trained
on, or if the owner promotes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from kdal.labelstudio.formats import format_for
from kdal.policy import Policy
from kdal.rounds.lineage import CHOSEN, PRUNED, parents, was_chosen
from kdal.rounds.store import RoundStore
from kdal.storage.database import Storage
from kdal.storage.tables import Project, Round
from kdal_core.errors import AssetError, ConfigError

if TYPE_CHECKING:  # it brings torch, which takes seconds, and who lists models needs none
    from kdal.resources import Resources

TRIGGER = "models"
"""Why a round began that serves an owner's choice."""
CHANGED = "MODEL_CHOSEN"
"""The event that wakes the worker."""


@dataclass(frozen=True)
class ModelVersion:
    """The model of a round. What an older kdal did not note is None, or empty."""

    number: int
    """Of the round."""
    created_at: datetime
    """When the round began, in UTC."""
    labels: int
    """Labels that the round's snapshot found."""
    trained_on: int | None
    """Those of them that the model was trained on."""
    pool: int
    """Tasks without a label at that moment."""
    moment: str | None
    """When the last of the labels changed, by Label Studio's clock."""
    code: str | None
    """The versions of kdal and torch."""
    seed: int | None
    student: str | None
    teacher: str | None
    backbones: str | None
    """The pretrained backbones, for people."""
    weights: dict[str, str]
    """The files of its weights, with their sha256."""
    metric: str | None
    score: float | None
    """On the held-out labels."""
    held_out: int
    """How many these are."""
    promoted: bool
    """Whether the gate let it serve."""
    verdict: str | None
    """What the gate said, for people."""
    parent: int | None
    """The round whose model served while this one was trained; none for the first."""
    serves: bool
    """Whether it answers predictions now."""
    chosen: bool
    """Whether it serves because the owner chose it."""
    kept: bool
    """Whether its weights are still there, so that it can serve again and be exported."""

    @property
    def name(self) -> str:
        """For people: what Label Studio calls the round's order."""
        return f"kdal-r{self.number}"


@dataclass(frozen=True)
class Choice:
    """What an owner has decided: the model of round `model` serves once round `round` is open."""

    round: int
    model: int


def versions(storage: Storage, project: int) -> list[ModelVersion]:
    """All models of a project, first to last.

    Raises:
        ConfigError: kdal does not know the project.
    """
    row, rounds = _project(storage, project), storage.rounds(project)
    came_from, pinned = parents(rounds), was_chosen(rounds, row.serving_round)
    return [_version(row, one, came_from[one.number], pinned) for one in rounds if "promoted" in one.facts]


def version(storage: Storage, project: int, number: int) -> ModelVersion:
    """The model of one round.

    Raises:
        ConfigError: the round has none, or kdal does not know the project; says which rounds have one.
    """
    found = {one.number: one for one in versions(storage, project)}
    if number not in found:
        there = ", ".join(map(str, found)) or "none has one yet"
        raise ConfigError(f"project {project}: round {number} has no model; rounds that have one: {there}")
    return found[number]


def promote(resources: Resources, project: int, number: int) -> Choice:
    """Let the model of a round serve, with its order and its pre-annotations, from the next round on, begun now.

    Raises:
        ConfigError: the model serves already, is gone, or does not fit the project as it is now; or a round is being
            computed. Says what to do; nothing has changed then.
        AssetError: its weights cannot be read.
    """
    storage = resources.storage
    row, chosen = _project(storage, project), version(storage, project, number)
    if row.disconnected_at is not None:
        raise ConfigError(f"project {project} is disconnected: run `kdal connect --project {project}` first")
    if chosen.serves:
        raise ConfigError(f"project {project}: {chosen.name} serves already")
    last = storage.last_round(project)
    if last is not None and last.state in ("computing", "failed"):
        raise ConfigError(_busy(project, last))
    _check_fits(resources, row, chosen)
    next_number = 0 if last is None else last.number + 1
    if not storage.begin_round(project, next_number, TRIGGER, facts={CHOSEN: number}):
        raise ConfigError(_busy(project, storage.round(project, next_number)))
    storage.add_event(project, CHANGED)
    return Choice(next_number, number)


def rollback(resources: Resources, project: int) -> Choice:
    """Let the model serve that did while the one that serves was trained; see `promote`.

    Raises:
        ConfigError: there is none; else as `promote`.
        AssetError: its weights cannot be read.
    """
    row = _project(resources.storage, project)
    if row.serving_round is None:
        raise ConfigError(f"project {project}: no model serves yet, so there is nothing to roll back")
    serving = version(resources.storage, project, row.serving_round)
    if serving.parent is None:
        raise ConfigError(
            f"project {project}: {serving.name} is the first model that served. `kdal models list --project {project}` "
            "shows what `kdal models promote` can put in its place"
        )
    return promote(resources, project, serving.parent)


def kept_versions(storage: Storage, project: int, keep: int) -> set[int]:
    """The rounds whose models stay when all but some are pruned.

    Args:
        keep: how many of the newest stay, at least; beside them the one that serves, the one that `rollback` leads to,
            and those of rounds that are open, or not open yet.
    """
    row, rounds = _project(storage, project), storage.rounds(project)
    numbers = [one.number for one in versions(storage, project) if one.kept]
    stays: set[int | None] = set(numbers[-keep:]) if keep else set()
    if row.serving_round is not None:
        stays |= {row.serving_round, parents(rounds).get(row.serving_round)}
    unfinished = [one for one in rounds if one.state in ("computing", "failed", "open")]
    published = storage.published_round(project)
    for one in [*unfinished, *([] if published is None else [published])]:
        stays |= {one.number, one.facts.get(CHOSEN)}
    return {number for number in stays if number is not None}


def prune(resources: Resources, project: int, keep: int) -> list[int]:
    """Delete the weights of old models; returns the rounds that lost them.

    Rounds keep everything else: their labels, their order, and what is known of their models.

    Args:
        keep: as for `kept_versions`.

    Raises:
        ConfigError: kdal does not know the project, or `keep` is negative.
        AssetError: files cannot be deleted.
    """
    if keep < 0:
        raise ConfigError(f"cannot keep {keep} models: give 0 or more")
    storage = resources.storage
    row, stays = _project(storage, project), kept_versions(storage, project, keep)
    gone = []
    for one in versions(storage, project):
        if one.kept and one.number not in stays:
            # Noted first: a model that is half gone is never offered again.
            storage.merge_round(project, one.number, facts={PRUNED: True})
            RoundStore(resources.assets, row.uid, one.number).delete_models()
            gone.append(one.number)
    return gone


def _version(project: Project, row: Round, parent: int | None, pinned: bool) -> ModelVersion:
    facts, serves = row.facts, project.serving_round == row.number
    return ModelVersion(
        number=row.number,
        created_at=row.created_at,
        labels=facts.get("labels", 0),
        trained_on=facts.get("trained_on"),
        pool=facts.get("pool", 0),
        moment=facts.get("moment"),
        code=facts.get("code"),
        seed=facts.get("seed"),
        student=facts.get("student"),
        teacher=facts.get("teacher") or facts.get("black_box"),
        backbones=facts.get("backbones"),
        weights=facts.get("weights", {}),
        metric=facts.get("metric"),
        score=facts.get("held_out_score"),
        held_out=facts.get("held_out", 0),
        promoted=bool(facts["promoted"]),
        verdict=facts.get("verdict"),
        parent=parent,
        serves=serves,
        chosen=serves and pinned,
        kept=not facts.get(PRUNED),
    )


def _project(storage: Storage, number: int) -> Project:
    row = storage.project(number)
    if row is None:
        known = ", ".join(str(one.id) for one in storage.projects(disconnected=True)) or "none"
        raise ConfigError(f"kdal does not know project {number}; projects that it knows: {known}")
    return row


def _busy(project: int, last: Round) -> str:
    if last.state == "failed":
        return (
            f"project {project}: round {last.number} failed and is tried again. Give it up with `kdal cancel --project "
            f"{project}`, then choose the model"
        )
    return (
        f"project {project}: round {last.number} is being computed, and would put an order of its own in force. Wait "
        f"until `kdal status` shows that it is open, or give it up with `kdal cancel --project {project}`, then choose "
        "the model"
    )


def _check_fits(resources: Resources, project: Project, chosen: ModelVersion) -> None:
    """Check that a model can be loaded, and predicts what the project is labelled with."""
    if not chosen.kept:
        raise ConfigError(f"project {project.id}: the weights of {chosen.name} were deleted by `kdal models prune`")
    store = RoundStore(resources.assets, project.uid, chosen.number)
    recorded = chosen.weights.get(store.served_file)
    if recorded is not None and recorded != store.digest(store.served_file):
        raise AssetError(f"{store.key(store.served_file)} is not what round {chosen.number} wrote: restore it")
    _, spec = store.load_model()
    task = format_for(project.label_config, Policy.stored(project.policy)).task()
    if (spec.kind, spec.classes) != (task.kind, tuple(task.classes)):
        raise ConfigError(
            f"project {project.id}: {chosen.name} predicts {spec.kind} of {', '.join(spec.classes)}, and the project "
            f"is now labelled with {task.kind} of {', '.join(task.classes)}"
        )
