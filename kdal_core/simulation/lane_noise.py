"""Lanes labelled wrong, as people do where paint is worn or hidden: beside their place, in part, not at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.simulation.campaign import NoiseSettings
from kdal_core.tasks import Lane
from kdal_core.tasks.lane import clean_lane

POINTS = 16
"""Vertices of a lane that is drawn beside its place."""
WIDTH = 1000.0
"""Pixels of the image that `NoiseSettings.pixels` are of."""
LEAST_KEPT, MOST_KEPT = 0.3, 0.7
"""Share of a lane's height that is left where it is cut short."""

Objects = NDArray[np.object_]


def badly_drawn(
    truth: Objects, attributes: Mapping[str, Objects], noise: NoiseSettings, seed: int
) -> tuple[Objects, NDArray[np.bool_]]:
    """What a pool's images are labelled with.

    Args:
        truth: (N,) tuples of lanes.
        attributes: {name: (N,) tuples}, a number for each lane.
        noise: which lanes may be drawn wrong, how many of them are, and how.
        seed: same seed and pool, same answers.

    Returns:
        Labels (N,), tuples of lanes, and which images (N,) have a lane that is wrong.

    Raises:
        ConfigError: an attribute that the lanes do not have.
    """
    labels, wrong = np.empty(len(truth), dtype=object), np.zeros(len(truth), dtype=np.bool_)
    may = may_be_wrong(truth, attributes, noise, seed)
    for image, lanes in enumerate(truth):
        draws = np.random.default_rng([9, seed, image]).random((len(lanes), 6))
        drawn: list[Lane | None] = list(lanes)
        for number in np.flatnonzero(may[image] & (draws[:, 0] < noise.rate)).tolist():
            drawn[number] = distorted(lanes[number], noise, draws[number, 1:])
            wrong[image] = True
        labels[image] = tuple(lane for lane in drawn if lane is not None)
    return labels, wrong


def may_be_wrong(
    truth: Objects, attributes: Mapping[str, Objects], noise: NoiseSettings, seed: int
) -> list[NDArray[np.bool_]]:
    """For each image which of its lanes are among the hardest `noise.share` of the pool's; equally hard ones by lot."""
    counts = [len(lanes) for lanes in truth]
    if unknown := [name for name in noise.attributes if name not in attributes]:
        has = f"it has {', '.join(attributes)}" if attributes else "it says nothing of its lanes"
        raise ConfigError(f"noise.attributes: the data set has no {unknown[0]!r} for each of its lanes; {has}.")
    values = [np.concatenate([np.zeros(0), *map(np.asarray, attributes[name])]) for name in noise.attributes]
    hardness = np.max(values, axis=0) if values else np.zeros(sum(counts))
    lot = np.random.default_rng([10, seed]).random(len(hardness))
    chosen = np.zeros(len(hardness), dtype=np.bool_)
    chosen[np.lexsort((lot, -hardness))[: round(noise.share * len(hardness))]] = True
    return np.split(chosen, np.cumsum(counts)[:-1])


def distorted(lane: Lane, noise: NoiseSettings, draws: NDArray[np.float64]) -> Lane | None:
    """A lane as it is labelled wrong, None where it is left out.

    Args:
        lane: the right one.
        noise: its ways and pixels.
        draws: (5,) in [0, 1): of the way, the side, the shift, the lean and the bend.
    """
    way = noise.ways[int(draws[0] * len(noise.ways))]
    if way == "missing":
        return None
    x, y = lane.points.T
    along = np.linspace(0, 1, POINTS)  # from top to bottom
    start = y[0]
    if way == "cut":  # what is far away is given up first
        start = y[-1] - (LEAST_KEPT + draws[2] * (MOST_KEPT - LEAST_KEPT)) * (y[-1] - y[0])
    rows = start + along * (y[-1] - start)
    columns = np.interp(rows, y, x)
    if way == "shifted":
        side = 1 if draws[1] < 0.5 else -1
        lean, bend = (2 * draws[3] - 1) * (along - 0.5), (2 * draws[4] - 1) * 4 * along * (1 - along)
        columns = columns + (side * (0.5 + draws[2]) + lean + bend) * noise.pixels / WIDTH
    try:
        return clean_lane(np.stack([columns, rows], axis=1), lane.label)
    except LabelFormatError:  # nothing of it is left inside the image
        return None
