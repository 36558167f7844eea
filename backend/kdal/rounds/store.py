"""A round's files: the only place that knows where they are among the assets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdal.labelstudio.task_order import rank_score
from kdal.storage.assets import Assets, DamagedAssetError, MissingAssetError
from kdal_core.errors import AssetError

if TYPE_CHECKING:  # torch is slow to import, and who asks for an order needs none
    from kdal_core.models import Network
    from kdal_core.training import ModelSpec

Arrays = dict[str, NDArray[Any]]

STUDENT, TEACHER, DISTILLED = "student", "teacher", "distilled"
"""The trio's roles; the distilled student is the one that serves."""
HEADS = "heads.npz"
"""The file of a round's heads on frozen features."""
SHARD = 2048
"""Tasks of a shard of the pool. Fixed, so that what is computed does not depend on how many workers there are."""


class DamagedModelError(AssetError):
    """A checkpoint that cannot be used."""


LOST = (MissingAssetError, DamagedAssetError, DamagedModelError)
"""What says that a file of a round is gone for good: waiting does not help, computing it again does."""


@dataclass(frozen=True)
class Order:
    """A round's manifest: all unlabelled tasks, first to be labelled first."""

    tasks: list[int]
    budget: int
    """The first ``budget`` tasks are the batch: tasks, also where the policy's budget counts objects."""
    selected: int
    """The first ``selected`` tasks were ordered by the strategy; behind them come skipped and unreadable ones."""
    explored: list[int] = field(default_factory=list)
    """Those of them that were drawn at random, `kdal_core.acquisition.explore`: their labels did not choose
    themselves."""
    estimates: list[float] = field(default_factory=list)
    """How many objects each task seems to show, at least 1, where the policy's budget counts these."""

    @property
    def scores(self) -> dict[int, float]:
        """Task id -> score in Label Studio."""
        return {task: rank_score(rank, len(self.tasks)) for rank, task in enumerate(self.tasks)}


def _open() -> None:
    pass


@dataclass(frozen=True)
class RoundStore:
    """What a round keeps among the assets.

    Attributes:
        assets: where.
        uid: of the project, ``<id>.<created>``: tells a project from a later one of the same number.
        number: of the round.
        fence: called before each writing; it raises once the round no longer belongs to who writes.
    """

    assets: Assets
    uid: str
    number: int
    fence: Callable[[], None] = field(default=_open, compare=False, repr=False)

    def of_round(self, number: int) -> RoundStore:
        """The store of another round of the same project."""
        return replace(self, number=number)

    def key(self, name: str) -> str:
        """Asset key of one of the round's files, for messages."""
        return f"projects/{self.uid}/rounds/{self.number:04d}/{name}"

    # ------------------------------------------------------------------ files of any kind

    def read(self, name: str) -> bytes:
        """A file; `MissingAssetError` when there is none."""
        return self.assets.read(self.key(name))

    def read_json(self, name: str) -> Any:
        """A JSON file; `MissingAssetError` when there is none."""
        return self.assets.read_json(self.key(name))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        self.fence()
        self.assets.write_json(self.key(name), value)

    def read_arrays(self, name: str) -> Arrays:
        """A file of named arrays; `MissingAssetError` when there is none."""
        return self.assets.read_arrays(self.key(name))

    def write_arrays(self, name: str, **arrays: NDArray[Any]) -> None:
        """Write a file of named arrays."""
        self.fence()
        self.assets.write_arrays(self.key(name), **arrays)

    # ------------------------------------------------------------------ models

    @property
    def served_file(self) -> str:
        """Name of the file of the model that serves once the round was promoted."""
        return _model_file(DISTILLED)

    @property
    def model_files(self) -> tuple[str, ...]:
        """Names of the files that may hold weights of the round's models."""
        return (*(_model_file(role) for role in (DISTILLED, STUDENT, TEACHER)), HEADS)

    def digest(self, name: str) -> str:
        """The sha256 of a file; `MissingAssetError` when there is none."""
        return hashlib.sha256(self.read(name)).hexdigest()

    def delete_models(self) -> None:
        """Delete the round's weights; everything else stays."""
        for name in self.model_files:
            self.fence()
            self.assets.delete(self.key(name))

    def save_model(self, role: str, model: Network, spec: ModelSpec) -> None:
        """Write a model as its checkpoint."""
        from kdal_core.training import save_checkpoint

        data = save_checkpoint(model, spec)
        self.fence()
        self.assets.write(self.key(_model_file(role)), data)

    def load_model(self, role: str = DISTILLED) -> tuple[Network, ModelSpec]:
        """A model from its checkpoint.

        Raises:
            MissingAssetError: there is none.
            DamagedModelError: there is one that cannot be used.
            AssetError: the assets are out of reach.
        """
        from kdal_core.training import load_checkpoint

        try:
            data = self.read(_model_file(role))
        except DamagedAssetError as error:
            raise DamagedModelError(str(error)) from error
        try:
            return load_checkpoint(data)
        except AssetError as error:
            raise DamagedModelError(f"{self.key(_model_file(role))}: {error}") from error

    # ------------------------------------------------------------------ scores and order

    def write_shard(self, shard: int, **arrays: NDArray[Any]) -> None:
        """Write what the models made of one shard of the pool."""
        self.write_arrays(_shard_file(shard), **arrays)

    def read_shard(self, shard: int) -> Arrays:
        """What the models made of one shard of the pool."""
        return self.read_arrays(_shard_file(shard))

    def save_order(self, order: Order, tasks: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        """Write the manifest, and the strategy's scores (M,) of the tasks (M,) that it ordered."""
        self.write_json("order.json", asdict(order))
        self.write_arrays("scores.npz", tasks=tasks, scores=scores)

    def order(self) -> Order:
        """Read the manifest."""
        try:
            return Order(**self.read_json("order.json"))
        except TypeError as error:
            raise AssetError(f"{self.key('order.json')} is damaged, it is no order: {error}") from error


def _model_file(role: str) -> str:
    return f"{role}.safetensors"


def _shard_file(shard: int) -> str:
    return f"shards/{shard:05d}.npz"
