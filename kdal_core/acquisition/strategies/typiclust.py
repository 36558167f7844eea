"""The most typical image of each region where nothing is labelled yet: for the first few labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.neighbors import nearest_neighbors
from kdal_core.acquisition.strategies.points import grid_points, squared_lengths
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.validation import as_count

COPIES = 1e-3  # grid steps; the mean distance of a point all whose neighbours are copies of it, instead of 0
DENSE = 1_000  # images of a cluster up to which all its distances are held, 8 MB
ANY = np.iinfo(np.int64).max


def typiclust(pool: PoolScores, *, k: int = 20, max_clusters: int = 500, min_size: int = 5) -> Selection:
    """Cluster pool and labelled images; from each cluster, those without labels first, its most typical image.

    Args:
        pool: with features (N, D) and, where there are any, labelled_features (L, D); seed; picks.
        k: neighbours that make an image typical; in a cluster of m it is at most m - 1.
        max_clusters: there are min(L + picks, max_clusters) of them.
        min_size: clusters with fewer images come last.

    Returns:
        Selection; scores are typicalities, 1 / distance, which do not compare between clusters nor descend.

    Raises:
        InvalidInput: NaN, infinite features, labelled features of another width, or parameters below 1.

    Source: Hacohen, Dekel and Weinshall 2022 (arXiv:2202.02794), section 3 and eq. 1; as in the official code
    (avihu111/TypiClust, typiclust.py) k-means up to 50 clusters and mini-batch k-means (batches of 5000) above; the
    clusters are ordered once, by the number of labelled images and then by size, and with more picks than clusters
    it goes round again, neighbours being those still unlabelled. The code drops clusters of up to 5, the paper those
    of fewer than 5: here the paper. P: of equal clusters the one with the pool's first image, small clusters after the
    others instead of never, as many clusters as distinct images at most, and images behind the picks go on in rounds,
    by the typicality they had when their cluster was last visited.
    """
    for name, value in (("k", k), ("max_clusters", max_clusters), ("min_size", min_size)):
        as_count(name, value, low=1, high=ANY)
    points = grid_points(pool)
    wanted = min(len(points.labelled) + pool.picks, max_clusters)
    labels = clusters(points.everything, wanted, pool.generator())
    size = len(points.pool)
    order, typicality = typical_rounds(points.pool, labels[:size], labels[size:], pool.picks, k=k, min_size=min_size)
    return Selection(order, typicality / points.step, np.zeros(size, dtype=np.int64))


STRATEGY = Strategy("typiclust", typiclust, frozenset({"features", "labelled_features"}), cold=True)


def clusters(rows: NDArray[np.float64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """k-means labels (N,) of rows (N, D) in at most `count` clusters; fewer where fewer rows are distinct."""
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    count = max(1, count)
    if len(np.unique(rows[: 4 * count], axis=0)) < count:  # mostly the first few rows are enough to tell
        count = min(count, len(np.unique(rows, axis=0)))
    from sklearn.cluster import KMeans, MiniBatchKMeans  # a second to import

    seed = int(generator.integers(2**31))
    method = (
        KMeans(count, n_init=1, random_state=seed)
        if count <= 50
        else MiniBatchKMeans(count, n_init=1, batch_size=5000, random_state=seed)
    )
    return method.fit_predict(rows).astype(np.int64)  # type: ignore[no-any-return]


def typical_rounds(
    rows: NDArray[np.float64],
    labels: NDArray[np.int64],
    labelled: NDArray[np.int64],
    picks: int,
    *,
    k: int = 20,
    min_size: int = 5,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The order of a pool once it is clustered.

    Args:
        rows: (N, D) pool.
        labels: (N,) cluster of each image of the pool.
        labelled: (L,) cluster of each labelled image.
        picks: picks after each of which the typicality of the images left in its cluster is found again.
        k: as `typiclust` has it.
        min_size: as `typiclust` has it.

    Returns:
        All N indices, and their typicality (N,) when they were put in their place, in 1 / units of `rows`.
    """
    queue = cluster_order(labels, labelled, min_size)
    left = [members for members, _ in queue]
    small = [is_small for _, is_small in queue]
    last: list[NDArray[np.float64] | None] = [None] * len(queue)  # typicality of those left, as of the last visit
    visits = [0] * len(queue)
    order: list[int] = []
    scores: list[float] = []
    while len(order) < picks:
        unfinished = [c for c in range(len(queue)) if len(left[c])]
        # the small ones wait until nothing is left of the others
        for c in ([c for c in unfinished if not small[c]] or unfinished)[: picks - len(order)]:
            values = typicality(rows[left[c]], k)
            best = int(values.argmax())
            order.append(int(left[c][best]))
            scores.append(float(values[best]))
            left[c], last[c] = np.delete(left[c], best), np.delete(values, best)
            visits[c] += 1
    behind: list[tuple[bool, int, int, float, int]] = []
    for c, members in enumerate(left):
        seen = last[c]
        values = typicality(rows[members], k) if seen is None else seen
        ranks = np.argsort(-values, kind="stable")
        behind += [
            (small[c], visits[c] + turn, c, float(values[i]), int(members[i])) for turn, i in enumerate(ranks.tolist())
        ]
    behind.sort(key=lambda entry: entry[:3])
    indices = np.array(order + [entry[4] for entry in behind], dtype=np.int64)
    return indices, np.array(scores + [entry[3] for entry in behind], dtype=np.float64)


def cluster_order(
    labels: NDArray[np.int64], labelled: NDArray[np.int64], min_size: int
) -> list[tuple[NDArray[np.int64], bool]]:
    """Members of each cluster of the pool, ascending, and whether it is too small, in the order of their turns."""
    by_cluster = np.argsort(labels, kind="stable")
    names, starts, sizes = np.unique(labels[by_cluster], return_index=True, return_counts=True)
    members = np.split(by_cluster, starts[1:])
    known = np.array([np.count_nonzero(labelled == name) for name in names], dtype=np.int64)
    first = by_cluster[starts]
    small = sizes + known < min_size
    turns = np.lexsort((first, -(sizes + known), known, small))
    return [(members[c], bool(small[c])) for c in turns]


def typicality(rows: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """1 / mean distance to the k nearest others of rows (m, D) -> (m,), eq. 1; finite also among copies.

    >>> typicality(np.array([[0.0], [1.0], [3.0]]), k=2).tolist()
    [0.5, 0.6666666666666666, 0.4]
    """
    k = min(k, len(rows) - 1)
    if k < 1:
        return np.full(len(rows), 1 / COPIES)
    if len(rows) <= DENSE:
        lengths = squared_lengths(rows)
        squared = rows @ (-2 * rows.T)
        squared += lengths
        squared += lengths[:, None]
        np.fill_diagonal(squared, np.inf)
        nearest = np.sort(np.partition(squared, k - 1, axis=1)[:, :k], axis=1)
    else:
        found = nearest_neighbors(rows, k)
        nearest = np.stack([squared_lengths(rows - rows[column]) for column in found.T], axis=1)
    # by rising distance, so that the sum does not depend on the order of the rows
    mean: NDArray[np.float64] = np.sqrt(np.maximum(nearest, 0.0)).mean(axis=1)
    return 1 / np.maximum(mean, COPIES)
