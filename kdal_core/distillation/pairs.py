"""Pairs of images and their mixes: x(λ) = λ · first + (1 - λ) · second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kdal_core.validation import InvalidInput, as_count

Mode = Literal["all", "code"]
DEFAULT_LAMBDAS: tuple[float, ...] = (0.30, 0.34, 0.38, 0.42, 0.46, 0.50, 0.54, 0.58, 0.62, 0.66, 0.70)
"""The grid of the paper's public code."""

MOST_IMAGES = 2**31  # their pairs still have a number in int64


@dataclass(frozen=True)
class PairPool:
    """The numbered pairs of n images; any stretch of them can be had without the others.

    Attributes:
        n: number of images, at least 2.
        mode: "all" n(n-1)/2 pairs i < j, row by row; "code": those of the paper's public code, which pairs each image
            with the one r places on, round the end, for r = 1 to (n-1)/2 rounded down. For even n it misses the
            n/2 pairs that lie opposite each other.
    """

    n: int
    mode: Mode = "all"

    def __post_init__(self) -> None:
        if isinstance(self.n, int | np.integer) and self.n < 2:
            raise InvalidInput(f"Mixing takes at least two images, not {self.n}.")
        as_count("n", self.n, low=2, high=MOST_IMAGES)
        if self.mode not in ("all", "code"):
            raise InvalidInput(f"mode must be 'all' or 'code', not {self.mode!r}.")

    def __len__(self) -> int:
        return self.n * (self.n - 1) // 2 if self.mode == "all" else self.n * ((self.n - 1) // 2)

    def pairs(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pairs with these numbers, (m,) in [0, len) -> (m, 2), i < j."""
        if self.mode == "code":
            i = positions % self.n
            j = (i + 1 + positions // self.n) % self.n
            return np.stack([np.minimum(i, j), np.maximum(i, j)], axis=1)
        starts = self._starts(np.arange(self.n, dtype=np.int64))
        i = np.searchsorted(starts, positions, side="right") - 1
        i = np.minimum(i, self.n - 2)  # the last row is empty and starts where the one before it ends
        return np.stack([i, positions - starts[i] + i + 1], axis=1)

    def positions(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of pairs (m, 2) in either order; -1 for those that are not the pool's."""
        i, j = pairs.min(axis=1), pairs.max(axis=1)
        if self.mode == "all":
            return np.where(i == j, -1, self._starts(i) + j - i - 1)
        step = np.where(j - i <= (self.n - 1) // 2, j - i, self.n - (j - i))
        first = np.where(j - i <= (self.n - 1) // 2, i, j)
        found = (step >= 1) & (step <= (self.n - 1) // 2)
        return np.where(found, (step - 1) * self.n + first, -1)

    def _starts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the first pair of each row."""
        starts: NDArray[np.int64] = rows * (2 * self.n - rows - 1) // 2
        return starts


def mixup_pairs(n: int, mode: Mode = "all") -> NDArray[np.int64]:
    """The pairs of n images that may be mixed.

    Args:
        n: number of images, at least 2.
        mode: "all" n(n-1)/2 pairs, or "code", those of the paper's public code (see `PairPool`).

    Returns:
        (P, 2) int64, i < j in each row.

    Raises:
        InvalidInput: fewer than two images, an unknown mode.

    Source: Active Mixup paper, section 3.2 (the pool); methods.md, section 3 (modes).

    >>> mixup_pairs(4).tolist()
    [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    >>> mixup_pairs(4, mode="code").tolist()
    [[0, 1], [1, 2], [2, 3], [0, 3]]
    """
    pool = PairPool(n, mode)
    return pool.pairs(np.arange(len(pool), dtype=np.int64))


def mix_images(images: Tensor, pairs: ArrayLike, lambdas: ArrayLike) -> Tensor:
    """The mixes as a teacher sees them: rounded to 8 bits, so that white mixed with white stays white.

    Args:
        images: uint8 (N, C, H, W).
        pairs: (m, 2) row numbers.
        lambdas: (m,) weight of each pair's first image, in [0, 1].

    Returns:
        uint8 (m, C, H, W).

    >>> white = torch.full((2, 1, 1, 1), 255, dtype=torch.uint8)
    >>> mix_images(white, [[0, 1]], [0.3]).item()
    255
    """
    chosen, weights = as_pairs(pairs, len(images)), torch.from_numpy(as_weights(lambdas, keep_order=True))
    if len(chosen) != len(weights):
        raise InvalidInput(f"There are {len(chosen)} pairs but {len(weights)} lambdas.")
    out = torch.empty(len(chosen), *images.shape[1:], dtype=torch.uint8)
    for start in range(0, len(chosen), 1024):
        part = slice(start, start + 1024)
        rows = torch.from_numpy(chosen[part])
        weight = weights[part].float().view(-1, 1, 1, 1)
        mixed = torch.lerp(images[rows[:, 1]].float(), images[rows[:, 0]].float(), weight)
        # The paper's code casts to 8 bits what rounding may have lifted above 255, which then wraps round to 0.
        out[part] = mixed.round_().clamp_(0, 255).to(torch.uint8)
    return out


def as_pairs(values: ArrayLike, n: int) -> NDArray[np.int64]:
    """`values` as (P, 2) int64 row numbers of n images, two different ones in each row."""
    array = np.asarray(values)
    if array.size == 0:
        array = array.reshape(0, 2).astype(np.int64)
    if array.ndim != 2 or array.shape[1] != 2 or not np.issubdtype(array.dtype, np.integer):
        raise InvalidInput(f"pairs must be whole numbers of the shape (P, 2), not {array.dtype} {array.shape}.")
    pairs = array.astype(np.int64)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= n):
        raise InvalidInput(f"pairs must hold row numbers from 0 to {n - 1}.")
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise InvalidInput("pairs mixes an image with itself.")
    return pairs


def as_weights(values: ArrayLike, *, keep_order: bool = False) -> NDArray[np.float64]:
    """`values` as (L,) float64 in [0, 1], at least one; ascending and distinct unless `keep_order`."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or (array.size == 0 and not keep_order):
        raise InvalidInput(f"lambdas must be a list of at least one number, not of the shape {array.shape}.")
    if not ((array >= 0) & (array <= 1)).all():
        raise InvalidInput("lambdas must lie in [0, 1]: lambda is the weight of the first image of a pair.")
    return array if keep_order else np.unique(array)


def pool_of_images(images: Tensor | Sequence[Tensor], *, mixed_colours: bool = False) -> Tensor:
    """Unlabelled images that can be mixed with each other, as uint8 (N, 3, H, W); they need not be the teacher's kind.

    Args:
        images: uint8 (N, C, H, W), or a sequence of uint8 (C, H, W), with 1 or 3 channels; one channel becomes three
            equal ones.
        mixed_colours: whether grey and colour images may be mixed with each other.

    Raises:
        InvalidInput: fewer than two images, images of different sizes, grey and colour together, another type.
    """
    if not isinstance(images, Tensor):
        images = _stacked(images)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        found = f"{images.dtype} {tuple(images.shape)}"
        raise InvalidInput(f"images must be uint8 (N, 3, H, W), or (N, 1, H, W) if they are grey, not {found}.")
    if len(images) < 2:
        raise InvalidInput(f"Mixing takes at least two images, not {len(images)}.")
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1).contiguous()
    grey = ((images[:, 0] == images[:, 1]) & (images[:, 0] == images[:, 2])).flatten(1).all(dim=1)
    count = int(grey.sum())
    if 0 < count < len(images) and not mixed_colours:
        which = int(torch.nonzero(grey == (count <= len(images) // 2))[0])
        raise InvalidInput(
            f"{count} images are grey and {len(images) - count} have colours (image {which} is of the fewer kind): "
            "their mixes would be of neither kind. Use one kind, or say mixed_colours=True."
        )
    return images.contiguous()


def _stacked(images: Sequence[Tensor]) -> Tensor:
    if len(images) < 2:
        raise InvalidInput(f"Mixing takes at least two images, not {len(images)}.")
    first = images[0]
    for number, image in enumerate(images):
        if image.ndim != 3 or math.prod(image.shape) == 0:
            raise InvalidInput(f"Image {number} must be (C, H, W), not {tuple(image.shape)}.")
        if image.shape[0] != first.shape[0]:
            raise InvalidInput(
                f"Image 0 has {first.shape[0]} channels, image {number} has {image.shape[0]}: grey and colour images "
                "cannot be mixed. Convert them to one kind."
            )
        if image.shape != first.shape or image.dtype != first.dtype:
            raise InvalidInput(
                f"Image 0 is {first.dtype} of {first.shape[1]} x {first.shape[2]} pixels, image {number} {image.dtype} "
                f"of {image.shape[1]} x {image.shape[2]}: images that are mixed must have one size. Resize them first."
            )
    return torch.stack(list(images))
