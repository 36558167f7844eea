"""A student's logits along the mixes of a pair: guessed from its two images, then from mixes that were asked about.

Over the mixes of all pairs, most of what the student says is a sum: a part that depends on the first image, a part that
depends on the second, and products of a few values of each (a shirt and trousers make a dress). These are fitted to a
few thousand pairs, at three lambdas, and cost no forward for any other pair. What is left is different for each pair,
and smooth in lambda: a forward at the right lambda tells most of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PENALTY = 10.0  # of the fit, where each value of an image has been brought to a variance of 1
WIDEST = 128  # values of an image that the fit makes use of, before and after the rectifier each
MULTIPLIED = 24  # values of each image that are multiplied with those of the other
PART = 1024  # pairs of the fit that are looked at together


@dataclass(frozen=True)
class Sketch:
    """Guessed logits of every pair of N images at every lambda of a grid.

    Attributes:
        first: (N, K, C) what an image adds as the first of a pair, at each of K nodes (lambdas).
        second: (N, K, C) as the second.
        strong: (N, U) the values that are multiplied with those of the other image.
        products: (U * U, K * C) what each product adds.
        weights: (L, K) float32: each row mixes the logits at the nodes to those at a lambda of the grid.
    """

    first: Tensor
    second: Tensor
    strong: Tensor
    products: Tensor
    weights: Tensor

    def curves(self, pairs: Tensor) -> Tensor:
        """Logits of pairs (B, 2): (L, C, B), so that classes and lambdas are gone through in long rows."""
        _, nodes, classes = self.first.shape
        added = self.first.index_select(0, pairs[:, 0]) + self.second.index_select(0, pairs[:, 1])  # (B, K, C)
        added = added.view(len(pairs), -1).addmm_(_outer(self.strong, pairs), self.products)
        columns = added.T.reshape(nodes, -1)  # (K, C * B)
        return (self.weights @ columns).view(-1, classes, len(pairs))


def inner(grid: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places in an ascending grid (L,) that a student must be asked about: at 0 and 1 a mix is an image itself."""
    return np.flatnonzero((grid > 0) & (grid < 1))


def places_to_fit(grid: NDArray[np.float64]) -> list[int]:
    """At most three places, over the grid, but well apart from 0 and 1, where the logits are known anyway."""
    places = inner(grid)
    if len(places) == 0:
        return []
    low, high = max(0.25, grid[places[0]]), min(0.75, grid[places[-1]])
    wanted = (low, (low + high) / 2, high)
    return sorted({int(places[np.abs(grid[places] - at).argmin()]) for at in wanted})


def sketch(
    logits: Tensor,
    hidden: Tensor,
    grid: NDArray[np.float64],
    places: Sequence[int],
    pairs: Tensor,
    asked: Tensor,
) -> Sketch:
    """Fit the two parts of a mix's logits; at lambda 0 and 1 they are the images' own.

    Args:
        logits: (N, C) of the images.
        hidden: (N, D) values of the images from which the logits are computed; or the logits.
        grid: (L,) lambdas, ascending.
        places: Q places in the grid.
        pairs: (S, 2) row numbers.
        asked: (Q, S, C) logits of these pairs' mixes at these places.
    """
    nodes = [0.0, 1.0, *(float(grid[place]) for place in places)]
    weights = torch.from_numpy(_through(grid, nodes)).float().to(logits.device)
    nothing = torch.zeros_like(logits)
    first, second = [nothing, logits], [logits, nothing]
    known, strong = _columns(hidden)  # (N, F), (N, U)
    products = strong.new_zeros(strong.shape[1] ** 2, len(nodes), logits.shape[1])
    if len(places):
        ends = torch.stack([logits[pairs[:, 0]], logits[pairs[:, 1]]])  # (2, S, C)
        straight = torch.stack([at * ends[0] + (1 - at) * ends[1] for at in nodes[2:]])  # (Q, S, C)
        fitted = _fitted(known, strong, pairs, (asked - straight).double())  # (Q, 2F + U² + 1, C)
        width = known.shape[1]
        for node, (at, found) in enumerate(zip(nodes[2:], fitted, strict=True), start=2):
            first.append(at * logits + (known @ found[:width]).float())
            second.append((1 - at) * logits + (known @ found[width : 2 * width] + found[-1]).float())
            products[:, node] = found[2 * width : -1]
    flat = products.flatten(1).float()
    return Sketch(torch.stack(first, dim=1), torch.stack(second, dim=1), strong.float(), flat, weights)


def _fitted(known: Tensor, strong: Tensor, pairs: Tensor, bulges: Tensor) -> Tensor:
    """Ridge regression of bulges (Q, S, C) on both images' values, their products and a constant."""
    width = 2 * known.shape[1] + strong.shape[1] ** 2 + 1
    normal = PENALTY * torch.eye(width, dtype=known.dtype, device=known.device)
    right = known.new_zeros(len(bulges), width, bulges.shape[2])
    for start in range(0, len(pairs), PART):
        part = pairs[start : start + PART]
        one = known.new_ones(len(part), 1)
        rows = torch.cat([known[part[:, 0]], known[part[:, 1]], _outer(strong, part), one], dim=1)  # (B, width)
        normal += rows.T @ rows
        right += rows.T @ bulges[:, start : start + PART]
    fitted: Tensor = torch.linalg.solve(normal, right)
    return fitted


def _outer(strong: Tensor, pairs: Tensor) -> Tensor:
    """(B, U * U) products of each value of the first image with each of the second, for pairs (B, 2)."""
    first, second = strong.index_select(0, pairs[:, 0]), strong.index_select(0, pairs[:, 1])
    return (first[:, :, None] * second[:, None, :]).flatten(1)


def corrected(curves: Tensor, grid: Tensor, asked: Tensor, logits: Tensor) -> Tensor:
    """Guessed curves that go through what was asked: in between, what is missing at each lambda is interpolated.

    Args:
        curves: (L, C, B) guessed logits.
        grid: (L,) lambdas.
        asked: (R, B) places in the grid, R >= 1 different ones in (0, 1) for each pair.
        logits: (R, B, C) what the student says there.

    Returns:
        (L, C, B). What is missing goes to zero at lambda 0 and 1 like lambda · (1 - lambda).
    """
    lambdas = grid[asked]  # (R, B)
    at = grid[:, None]  # (L, 1)
    columns = torch.arange(asked.shape[1], device=asked.device)
    found = curves.clone()
    for lam, place, told in zip(lambdas, asked, logits, strict=True):
        below = torch.where(lambdas < lam, lambdas, -torch.inf).amax(dim=0)  # (B,), the next one that was asked
        above = torch.where(lambdas > lam, lambdas, torch.inf).amin(dim=0)
        rising = torch.where(below.isinf(), 1.0, (at - below) / (lam - below))  # (L, B)
        falling = torch.where(above.isinf(), 1.0, (above - at) / (above - lam))
        share = torch.where(at < lam, rising, falling).clamp(0, 1) * (at * (1 - at)) / (lam * (1 - lam))
        missing = told.T - curves[place, :, columns].T  # (C, B)
        found += share[:, None] * missing
    return found


def _columns(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) -> (N, F) and (N, U), float64 of mean 0 and variance 1.

    F: the values and, where some are negative, these rectified. U: the directions in which they vary most.
    """
    values = hidden.double()
    centred = values - values.mean(dim=0)
    _, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
    if values.shape[1] > WIDEST:
        values = centred @ directions[:, -WIDEST:]
    if bool((values < 0).any()):
        values = torch.cat([values, values.relu()], dim=1)
    return _standard(values), _standard(centred @ directions[:, -MULTIPLIED:])


def _standard(values: Tensor) -> Tensor:
    values = values - values.mean(dim=0)
    spread = values.std(dim=0, correction=0)
    return values / torch.where(spread > 0, spread, 1.0)


def _through(grid: NDArray[np.float64], nodes: Sequence[float]) -> NDArray[np.float64]:
    """(L, K): Lagrange's weights, of the polynomial through all nodes."""
    places = np.asarray(nodes)
    weights = np.empty((len(grid), len(places)))
    for node in range(len(places)):
        others = np.delete(places, node)
        weights[:, node] = ((grid[:, None] - others) / (places[node] - others)).prod(axis=1)
    return weights
