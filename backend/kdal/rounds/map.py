"""A map of a round's images: the two directions in which their features differ most, for people who look at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal.rounds.store import Arrays, RoundStore
from kdal.storage.assets import DamagedAssetError, MissingAssetError

FILE = "map.npz"
KINDS = ("pool", "labelled", "batch")
"""What an image is, by its number in the file."""
MOST = {"pool": 500, "labelled": 250, "batch": 150}
"""Images of each kind on the map: a sample of the first two, the first of the batch."""
FITTED = 2000
"""Images that the directions are found from."""


@dataclass(frozen=True)
class Point:
    """An image on the map."""

    task: int
    x: float
    """0 to 1, from left to right."""
    y: float
    """0 to 1, from top to bottom."""
    kind: str
    """One of `KINDS`."""


def save_map(
    store: RoundStore,
    tasks: NDArray[np.int64],
    batch: Sequence[int],
    arrays: Mapping[str, NDArray[Any]],
    labelled: NDArray[np.int64],
) -> None:
    """Work out the map of a round, and keep it; nothing where there are no features, or fewer than three images.

    Args:
        store: of the round.
        tasks: (M,) of the pool, as they are in `arrays`.
        batch: tasks of the batch, in their order.
        arrays: the teacher's features of the pool, else the student's, else thumbnails; each (M, ...). Of the
            labelled images the same under "labelled_" and the name.
        labelled: (L,) tasks of these.
    """
    name = next((each for each in ("teacher_features", "features", "thumbnails") if each in arrays), None)
    if name is None or len(tasks) < 3:
        return
    of_labelled = arrays.get(f"labelled_{name}")
    if of_labelled is None or len(of_labelled) != len(labelled):
        labelled, of_labelled = labelled[:0], arrays[name][:0]
    draw = np.random.default_rng(0)
    row_of = {task: row for row, task in enumerate(tasks.tolist())}
    first = np.array([row_of[task] for task in batch if task in row_of][: MOST["batch"]], dtype=np.int64)
    others = np.setdiff1d(draw.permutation(len(tasks))[: MOST["pool"]], first)
    known = np.sort(draw.permutation(len(labelled))[: MOST["labelled"]])
    fitted = np.sort(draw.permutation(len(tasks))[:FITTED])
    directions = _directions(_flat(arrays[name][fitted]))
    shown = [arrays[name][others], of_labelled[known], arrays[name][first]]
    places = np.concatenate([directions(_flat(part)) for part in shown])
    store.write_arrays(
        FILE,
        tasks=np.concatenate([tasks[others], labelled[known], tasks[first]]),
        places=_in_frame(places).astype(np.float32),
        kinds=np.repeat(np.arange(3, dtype=np.int8), [len(part) for part in shown]),
    )


def load_map(store: RoundStore) -> list[Point]:
    """The points of a round's map; none where it has no map.

    Raises:
        DamagedAssetError: what is there is none.
    """
    try:
        arrays: Arrays = store.read_arrays(FILE)
    except MissingAssetError:
        return []
    try:
        rows = zip(arrays["tasks"].tolist(), arrays["places"].tolist(), arrays["kinds"].tolist(), strict=True)
        return [Point(task, x, y, KINDS[kind]) for task, (x, y), kind in rows]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DamagedAssetError(f"{store.key(FILE)} is damaged: {error}") from error


def _flat(features: NDArray[Any]) -> NDArray[np.float64]:
    return features.reshape(len(features), int(np.prod(features.shape[1:]))).astype(np.float64)


def _directions(features: NDArray[np.float64]) -> Any:
    """A function from features to their places along the two principal directions of these."""
    from sklearn.decomposition import PCA

    if min(features.shape) < 2 or not np.ptp(features, axis=0).any():
        return lambda each: np.zeros((len(each), 2))
    found = PCA(2, svd_solver="randomized", random_state=0).fit(features)
    return lambda each: found.transform(each) if len(each) else np.zeros((0, 2))


def _in_frame(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places within 0 to 1, the outermost hundredth on each side drawn in to the frame."""
    low, high = np.quantile(places, 0.01, axis=0), np.quantile(places, 0.99, axis=0)
    span = np.where(high > low, high - low, 1.0)
    framed: NDArray[np.float64] = np.clip((places - low) / span, 0.0, 1.0)
    return framed
