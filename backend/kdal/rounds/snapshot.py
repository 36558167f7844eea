"""Step 1 of a round: what is labelled and what is not, read from Label Studio at one moment."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from statistics import median
from typing import Any

import structlog

from kdal.aliases import Json
from kdal.backbones import RoundBackbones, Told
from kdal.images.allowed import Sources
from kdal.images.errors import UnreachableError
from kdal.images.refs import ImageRef
from kdal.labelstudio.accepted import finished_by_anybody, only_accepted
from kdal.labelstudio.formats import Format, format_for
from kdal.labelstudio.formats.base import finished_annotations
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds.progress import StepReport
from kdal.rounds.query_log import QueryLog
from kdal.rounds.store import LOST, RoundStore
from kdal.storage.assets import DamagedAssetError, MissingAssetError
from kdal.storage.tables import Project
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.tasks import Task

HEADER = "header.json"
BACKBONES, STARTS = "backbones.json", "starts.json"
"""Files of a round's backbones, and of the weights that its networks start from, for the next one."""
log = structlog.get_logger()
SAMPLE = 64
"""Images looked at to find out how large a project's images are."""


@dataclass(frozen=True)
class Labelled:
    """A labelled task; its target is what its kind of task takes, none when it could not be read."""

    ref: ImageRef
    target: Any
    held_out: bool
    seconds: float | None = None
    """That its annotator spent on it, as Label Studio measured it."""
    annotator: int | None = None
    """Label Studio's number of who gave the label that counts most."""


@dataclass(frozen=True)
class SnapshotHeader:
    """What is asked of a snapshot most often, in a file of its own: a large snapshot takes seconds to read."""

    label_config: str
    policy: Policy
    image_size: tuple[int, int]
    """(H, W) that the networks see."""
    labelled: frozenset[int]
    """Ids of the labelled tasks, usable or not."""
    moment: datetime | None
    """When the last of them changed, by Label Studio's clock; none without labels, or of an older kdal."""
    accepted: frozenset[int] = frozenset()
    """Ids of tasks whose suggestion `kdal accept` has accepted, and that nobody has labelled."""
    sources: Sources = field(default_factory=Sources)
    """Where the project's images may be read."""

    @property
    def format(self) -> Format:
        """How the project's labels are read and written."""
        return format_for(self.label_config, self.policy)

    def save(self, store: RoundStore) -> None:
        """Write it to the assets."""
        moment = None if self.moment is None else self.moment.isoformat()
        value = asdict(self) | {"policy": self.policy.model_dump(), "moment": moment, "sources": self.sources.as_json()}
        value |= {"labelled": sorted(self.labelled), "accepted": sorted(self.accepted)}
        store.write_json(HEADER, value)

    @classmethod
    def load(cls, store: RoundStore) -> SnapshotHeader:
        """Read it from the assets.

        Raises:
            MissingAssetError: the round has no snapshot yet.
        """
        try:
            value = store.read_json(HEADER)
        except MissingAssetError:
            return Snapshot.load(store).header(None)  # an older kdal's
        try:
            return cls(
                label_config=value["label_config"],
                policy=_policy(value),
                image_size=(value["image_size"][0], value["image_size"][1]),
                labelled=frozenset(value["labelled"]),
                moment=None if value["moment"] is None else datetime.fromisoformat(value["moment"]),
                accepted=frozenset(value.get("accepted", ())),
                # Of kdal 0.2's, what its tasks name.
                sources=Sources.from_json(value["sources"]) if "sources" in value else Snapshot.load(store).sources,
            )
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise DamagedAssetError(f"{store.key(HEADER)} is damaged: {error}") from error


@dataclass(frozen=True)
class Snapshot:
    """A project at the start of a round. Everything that follows is computed from it alone."""

    uid: str
    label_config: str
    policy: Policy
    image_size: tuple[int, int]
    """(H, W) that the networks see."""
    labelled: list[Labelled]
    pool: list[ImageRef]
    """Tasks to be ordered: neither labelled nor skipped, by id."""
    skipped: list[int]
    """Unlabelled tasks that somebody skipped: they stay servable, after all others."""
    why_untrained: str | None
    """Why no model can be trained yet; none when one can."""
    backbones: RoundBackbones | None = None
    """Pretrained networks whose features the round works with; none: its networks are trained whole."""
    why_no_backbones: str | None = None
    """Why there are none, where the policy lets kdal look for them."""
    sources: Sources = field(default_factory=Sources)
    """Where the project's images may be read."""
    starts: Mapping[str, Told] = field(default_factory=dict)
    """Pretrained weights that whole networks start from, by their role, "student" or "teacher"."""
    accepted: list[int] = field(default_factory=list)
    """Tasks whose suggestion `kdal accept` has accepted, and that nobody has labelled: no label, and not asked for."""

    @property
    def format(self) -> Format:
        """How the project's labels are read and written."""
        return format_for(self.label_config, self.policy)

    @property
    def training(self) -> list[Labelled]:
        """What models are trained on."""
        return [item for item in self.labelled if item.target is not None and not item.held_out]

    @property
    def held_out(self) -> list[Labelled]:
        """What decides whether a model may serve; never trained on in any round."""
        return [item for item in self.labelled if item.target is not None and item.held_out]

    @cached_property
    def images(self) -> list[ImageRef]:
        """All images that the round looks at: with labels that can be used, and waiting for one; by task."""
        labelled = [item.ref for item in self.labelled if item.target is not None]
        return sorted([*labelled, *self.pool], key=lambda ref: ref.task_id)

    def header(self, moment: datetime | None) -> SnapshotHeader:
        """What is asked of it most often."""
        labelled = frozenset(item.ref.task_id for item in self.labelled)
        return SnapshotHeader(
            self.label_config,
            self.policy,
            self.image_size,
            labelled,
            moment,
            accepted=frozenset(self.accepted),
            sources=self.sources,
        )

    def save(self, store: RoundStore) -> None:
        """Write it to the assets."""
        task = self.format.task()
        value = {
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "policy": self.policy.model_dump(),
            "backbones": None if self.backbones is None else self.backbones.as_json(),
            "sources": self.sources.as_json(),
            "labelled": [
                {
                    "ref": item.ref.as_json(),
                    "target": None if item.target is None else task.as_json(item.target),
                    "held_out": item.held_out,
                    "seconds": item.seconds,
                    "annotator": item.annotator,
                }
                for item in self.labelled
            ],
            "pool": [ref.as_json() for ref in self.pool],
        }
        store.write_json("snapshot.json", value)

    @classmethod
    def load(cls, store: RoundStore) -> Snapshot:
        """Read it from the assets."""
        try:
            return cls._read(store.read_json("snapshot.json"))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise DamagedAssetError(f"{store.key('snapshot.json')} is damaged, it is no snapshot: {error}") from error

    @classmethod
    def _read(cls, value: Any) -> Snapshot:
        policy = _policy(value)
        task = format_for(value["label_config"], policy).task()
        targets = [None if i["target"] is None else task.from_json(i["target"]) for i in value["labelled"]]
        labelled = zip(value["labelled"], targets, strict=True)
        return cls(
            uid=value["uid"],
            label_config=value["label_config"],
            policy=policy,
            image_size=(value["image_size"][0], value["image_size"][1]),
            labelled=[
                Labelled(ImageRef(**i["ref"]), target, i["held_out"], i.get("seconds"), i.get("annotator"))
                for i, target in labelled
            ],
            pool=[ImageRef(**ref) for ref in value["pool"]],
            skipped=value["skipped"],
            why_untrained=value["why_untrained"],
            accepted=value.get("accepted", []),
            backbones=RoundBackbones.from_json(value.get("backbones")),
            why_no_backbones=value.get("why_no_backbones"),
            sources=Sources.from_json(value["sources"]) if "sources" in value else _named_by(value),
            starts=value.get("starts", {}),
        )


def take_snapshot(resources: Resources, project: Project, store: RoundStore, report: StepReport) -> Snapshot:
    """Read a project from Label Studio's API, note what cannot be used, and write the snapshot.

    Raises:
        ConfigError: the labelling config has become one that kdal cannot serve.
    """
    label_config = str(resources.label_studio.project(project.id)["label_config"])
    policy = Policy.stored(project.policy)
    form = format_for(label_config, policy)
    task = form.task()
    reasons: dict[int, str] = {}

    labelled, accepted = [], []
    moments: list[datetime] = []
    for row in resources.label_studio.tasks(project.id, labelled=True, full=True):
        if not finished_by_anybody(row):
            continue  # it was removed while this was read, and is found again among those without a label
        moments += changed_at(row)
        ref = ImageRef.of(row, form.image_key)
        if only_accepted(row):
            accepted.append(ref.task_id)
            continue
        target = None
        try:
            target = form.target(row)
        except LabelFormatError as error:
            reasons[ref.task_id] = str(error)
        labelled.append(Labelled(ref, target, held_out(policy, ref.task_id), *_work(row)))

    unlabelled = [ImageRef.of(row, form.image_key) for row in resources.label_studio.tasks(project.id, labelled=False)]
    known = {item.ref.task_id for item in labelled}.union(accepted)
    unlabelled = [ref for ref in unlabelled if ref.task_id not in known]  # labelled between the two readings
    skipped = resources.label_studio.skipped_ids(project.id)
    usable = [item.target for item in labelled if item.target is not None and not item.held_out]
    refs = [item.ref for item in labelled] + unlabelled
    sources = Sources.of((ref.uri for ref in refs), resources.label_studio.s3_storages(project.id))
    resources = replace(resources, images=resources.images.within(sources))
    image_size = _asked_size(store, policy) or _image_size(resources, policy, task, refs)
    backbones, why_none = _backbones(resources, policy, task, image_size, store)
    if why_none is not None and policy.image_size is None:
        image_size = _small(image_size)
    starts: Mapping[str, Told] = {}
    if backbones is None and why_none is None and policy.black_box is None:
        starts, why_none = _starts(resources, policy, task, image_size, store)
    snapshot = Snapshot(
        uid=project.uid,
        label_config=label_config,
        policy=policy,
        image_size=image_size,
        labelled=labelled,
        pool=[ref for ref in unlabelled if ref.task_id not in skipped],
        skipped=[ref.task_id for ref in unlabelled if ref.task_id in skipped],
        why_untrained="no labels yet" if not usable else task.trainable(usable),
        accepted=accepted,
        backbones=backbones,
        why_no_backbones=why_none,
        sources=sources,
        starts=starts,
    )
    report.unusable(reasons)
    if backbones is not None:
        store.write_json(BACKBONES, backbones.as_json())
    if starts:
        store.write_json(STARTS, dict(starts))
    snapshot.save(store)
    snapshot.header(max(moments, default=None)).save(store)
    return snapshot


def _backbones(
    resources: Resources, policy: Policy, task: Task, image_size: tuple[int, int], store: RoundStore
) -> tuple[RoundBackbones | None, str | None]:
    """The pretrained backbones for images of this (H, W), or why there are none."""
    if not policy.on_features(task, image_size):
        return None, None
    before = None
    if store.number:
        with suppress(*LOST, KeyError):  # the last round had none
            before = RoundBackbones.from_json(store.of_round(store.number - 1).read_json(BACKBONES))
    try:
        return resources.backbones.choose(policy, before), None
    except ConfigError as error:
        log.warning("no pretrained weights: networks are trained from nothing", project=store.uid, reason=str(error))
        return None, str(error)


def _starts(
    resources: Resources, policy: Policy, task: Task, image_size: tuple[int, int], store: RoundStore
) -> tuple[Mapping[str, Told], str | None]:
    """The pretrained weights that networks for images of this (H, W) start from, or why they cannot be had."""
    before: Mapping[str, Told] = {}
    if store.number:
        with suppress(*LOST):  # the last round had none
            before = store.of_round(store.number - 1).read_json(STARTS)
    try:
        return resources.backbones.starts(policy.trio(task, image_size), before), None
    except ConfigError as error:
        log.warning("no pretrained weights: networks are trained from nothing", project=store.uid, reason=str(error))
        return {}, str(error)


def _small(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) at which our small networks, trained from nothing, take minutes where large ones would take an hour."""
    from kdal_core.models.small import LARGEST_SIDE  # torch is slow to import, and who reads a header needs none

    scale = min(1.0, LARGEST_SIDE / max(size))
    return max(8, round(size[0] * scale)), max(8, round(size[1] * scale))


def changed_at(row: Json) -> list[datetime]:
    """When a task of Label Studio's API last changed, by its clock; nothing where it does not say so."""
    try:
        moment = datetime.fromisoformat(str(row.get("updated_at")))
    except ValueError:
        return []
    return [moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)]


def _work(row: Json) -> tuple[float | None, int | None]:
    """Seconds and annotator of the label of a task that counts most."""
    annotation = next(reversed(finished_annotations(row)), {})
    seconds, annotator = annotation.get("lead_time"), annotation.get("completed_by")
    if not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds <= 0:
        seconds = None
    return seconds, annotator if isinstance(annotator, int) else None


def _policy(value: Json) -> Policy:
    """The policy that a snapshot was taken with."""
    told = value["policy"]
    policy = Policy.stored(told)
    if "task" not in told:  # an older kdal's, which took polygons, brushes and key points for lanes unasked
        try:
            format_for(value["label_config"], policy)
        except ConfigError:
            return policy.model_copy(update={"task": "lanes"})
    return policy


def _named_by(value: Json) -> Sources:
    """The sources of a snapshot that an older kdal took: the hosts of its tasks."""
    refs = [item["ref"] for item in value["labelled"]] + value["pool"]
    return Sources.of((ref["uri"] for ref in refs), ())


def held_out(policy: Policy, task_id: int) -> bool:
    """Whether a task's label, once there is one, is never trained on."""
    # A hash rather than a draw: the same tasks are held out in each round, so no model has ever seen them.
    digest = hashlib.sha256(f"{policy.seed}:{task_id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < policy.holdout


def _asked_size(store: RoundStore, policy: Policy) -> tuple[int, int] | None:
    """(H, W) at which the project's black-box teacher saw the images: other pixels would be other questions."""
    asked = None if policy.black_box is None else QueryLog.before(store, policy.black_box)
    return None if asked is None else asked.image_size


def _image_size(resources: Resources, policy: Policy, task: Task, refs: list[ImageRef]) -> tuple[int, int]:
    """(H, W): the median size of the first images, with the longer side as the policy says."""
    ordered = sorted(refs, key=lambda r: r.task_id)
    try:
        sizes = resources.images.load(ordered[:SAMPLE], (8, 8)).sizes
    except UnreachableError:  # one server of several is away, or else a round now would train at a wrong size
        sizes = resources.images.load(ordered[:: -(-len(ordered) // SAMPLE)], (8, 8)).sizes
    if not sizes:  # they are named with their reasons where they are used
        return (task.defaults.longest_side, task.defaults.longest_side)
    width, height = median(w for w, _ in sizes), median(h for _, h in sizes)
    longest = policy.image_size or min(task.defaults.longest_side, max(width, height))
    scale = longest / max(width, height)
    return max(8, round(height * scale)), max(8, round(width * scale))
