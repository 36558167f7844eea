"""Why the first tasks of a round's order come first, and what was suggested on them: for people who look at it.

It is worked out while the round orders its pool, when all that decides is at hand, and kept in two small files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.rounds.batch import TOLD_FIRST
from kdal.rounds.store import RoundStore
from kdal.storage.assets import DamagedAssetError, MissingAssetError
from kdal_core.acquisition import Selection

REASONS, REGIONS = "queue.json", "queue-regions.json"
"""A round's files."""
SAMPLE = 2000
"""Images of the pool, and labelled ones, that distances are compared with."""
MOST_REGIONS = 60
"""Regions of a task that are kept for its picture."""


@dataclass(frozen=True)
class Entry:
    """Why a task is where it is in an order. Shares are of the pool, 0 to 1; None where nothing tells.

    Attributes:
        task: its number.
        why: "random", drawn for honest estimates, or all are; "cold", no model yet; "behind", skipped or unreadable;
            "gap", the models disagree; "unsure"; "far", unlike the labelled; "covers", it stands for others; "rank",
            the strategy says no more.
        gap: the share of images on which the models disagree less.
        unsure: the share of which the model is surer.
        far: the share that is nearer to a labelled image.
        covers: images like it that no task before it stands for.
    """

    task: int
    why: str
    gap: float | None = None
    unsure: float | None = None
    far: float | None = None
    covers: int = 0


@dataclass(frozen=True)
class QueueFile:
    """What a round keeps of the first tasks of its order.

    Attributes:
        entries: by task, in order.
        regions: suggestions as Label Studio's regions, by task.
        strategy: that ordered them.
    """

    entries: Mapping[int, Entry] = field(default_factory=dict)
    regions: Mapping[int, list[Json]] = field(default_factory=dict)
    strategy: str = ""

    @classmethod
    def load(cls, store: RoundStore) -> QueueFile:
        """Read it from the assets; empty for a round of an older kdal, which has written none.

        Raises:
            DamagedAssetError: what is there is none.
        """
        try:
            told = store.read_json(REASONS)
            entries = {entry["task"]: Entry(**entry) for entry in told["entries"]}
            strategy = str(told["strategy"])
        except MissingAssetError:
            return cls()
        except (KeyError, TypeError) as error:
            raise DamagedAssetError(f"{store.key(REASONS)} is damaged: {error}") from error
        try:
            regions = {int(task): list(found) for task, found in store.read_json(REGIONS).items()}
        except MissingAssetError:
            regions = {}
        except (ValueError, TypeError, AttributeError) as error:
            raise DamagedAssetError(f"{store.key(REGIONS)} is damaged: {error}") from error
        return cls(entries, regions, strategy)


def save_reasons(store: RoundStore, entries: Sequence[Entry], strategy: str) -> None:
    """Keep why the first tasks come first."""
    kept = [
        {name: value for name, value in asdict(entry).items() if value is not None} for entry in entries[:TOLD_FIRST]
    ]
    store.write_json(REASONS, {"strategy": strategy, "entries": kept})


def carry_reasons(store: RoundStore, earlier: int, order: Sequence[int]) -> None:
    """Keep the reasons of an earlier round for a round that has its order; of tasks that it did not explain, none."""
    known = QueueFile.load(store.of_round(earlier))
    save_reasons(store, [known.entries.get(task, Entry(task, "rank")) for task in order[:TOLD_FIRST]], known.strategy)


def save_regions(store: RoundStore, tasks: Sequence[int], regions: Mapping[int, list[Json]]) -> None:
    """Keep what is suggested on the first tasks."""
    first = tasks[:TOLD_FIRST]
    store.write_json(REGIONS, {str(task): regions[task][:MOST_REGIONS] for task in first if regions.get(task)})


def reasons(
    tasks: Sequence[int],
    positions: NDArray[np.int64],
    drawn: NDArray[np.int64],
    selection: Selection,
    arrays: Mapping[str, NDArray[Any]],
    *,
    trained: bool,
    by_chance: bool,
) -> list[Entry]:
    """Why the first tasks of an order come first.

    Args:
        tasks: the M tasks that the strategy ordered, in their order.
        positions: (M,) their rows in `arrays`.
        drawn: rows of those drawn at random.
        selection: the strategy's.
        arrays: what it went by: gaps, probabilities, features, each (M, ...).
        trained: whether the round has models of its own.
        by_chance: whether the order is a random one, because the policy says so, or nothing tells images apart.
    """
    head = positions[:TOLD_FIRST]
    at_random = set(drawn.tolist())
    gap = _gap(arrays, head)
    unsure = _unsure(arrays, head) if gap is None else None
    far = _far(arrays, head) if trained else None
    covers = np.zeros(int(selection.indices.max(initial=-1)) + 1, dtype=np.int64)
    covers[selection.indices] = selection.diversity
    found = []
    for place, row in enumerate(head.tolist()):
        told: Json = {
            name: None if shares is None else round(float(shares[place]), 4)
            for name, shares in (("gap", gap), ("unsure", unsure), ("far", far))
        }
        told["covers"] = max(0, int(covers[row]))
        if row in at_random or by_chance:
            why = "random"
        elif not trained:
            why = "cold"
        else:
            why = _strongest(told)
        found.append(Entry(tasks[place], why, **told))
    return found


def _strongest(told: Json) -> str:
    """The reason that sets a task apart most."""
    shares = {name: told[name] for name in ("gap", "unsure", "far") if told[name] is not None}
    best = max(shares, key=lambda name: shares[name], default="rank")
    return "covers" if told["covers"] > 1 and shares.get(best, 0.0) < 0.8 else best


def _gap(arrays: Mapping[str, NDArray[Any]], head: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """(H,) the share of the pool on which the two gaps of distillation are smaller, added up."""
    if "d_ss" not in arrays or "d_st" not in arrays:
        return None
    return _below(np.nan_to_num(arrays["d_ss"] + arrays["d_st"], posinf=1e30), head)


def _unsure(arrays: Mapping[str, NDArray[Any]], head: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """(H,) the share of the pool of whose likeliest class the model is surer."""
    found = arrays.get("probabilities")
    return None if found is None or found.ndim != 2 else _below(-found.max(axis=1), head)


def _below(values: NDArray[Any], head: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.searchsorted(np.sort(values), values[head]) / max(len(values), 1)


def _far(arrays: Mapping[str, NDArray[Any]], head: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """(H,) the share of the pool that is nearer to its nearest labelled image; samples of both where there are many."""
    for name, of_labelled in (("teacher_features", "labelled_teacher_features"), ("features", "labelled_features")):
        if name in arrays and len(arrays.get(of_labelled, ())):
            pool, labelled = arrays[name], arrays[of_labelled]
            draw = np.random.default_rng(0)
            some = draw.permutation(len(pool))[:SAMPLE]
            labelled = labelled[draw.permutation(len(labelled))[:SAMPLE]].astype(np.float32)
            others = np.sort(_nearest(pool[some].astype(np.float32), labelled))
            return np.searchsorted(others, _nearest(pool[head].astype(np.float32), labelled)) / len(others)
    return None


def _nearest(points: NDArray[np.float32], labelled: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) squared distance of each point to the nearest labelled one."""
    lengths = (labelled.astype(np.float64) ** 2).sum(axis=1)
    crossed = (points @ labelled.T).astype(np.float64)
    found: NDArray[np.float64] = (lengths - 2 * crossed).min(axis=1) + (points.astype(np.float64) ** 2).sum(axis=1)
    return found
