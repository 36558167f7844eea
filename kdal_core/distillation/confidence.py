"""How sure a student is of mixes: the straightforward way, a forward for each pair and each lambda."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from kdal_core.distillation.pairs import as_pairs, as_weights
from kdal_core.training.inference import block_size
from kdal_core.validation import InvalidInput

Student = Callable[[Tensor], Tensor]
"""Float images (B, C, H, W) in [0, 1] -> logits (B, classes). Torch modules are put into eval mode while asked."""


def pair_confidence(
    student: Student, images: Tensor | ArrayLike, pairs: ArrayLike, lambdas: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """C2 of pairs: the student's lowest confidence along each pair's mixes, and the lambda where that is.

    C1(x) = max_y P(y | x);  C2(i, j) = min over lambda of C1(lambda · x_i + (1 - lambda) · x_j).

    Args:
        student: images to logits.
        images: (N, C, H, W), uint8 or float in [0, 1].
        pairs: (P, 2) row numbers; lambda weighs the first image of each.
        lambdas: (L,) in [0, 1]; repetitions count once.

    Returns:
        confidence (P,) in [1 / classes, 1], computed in float32, and lambda (P,), one of `lambdas`; where several give
        the same confidence, the smallest.

    Raises:
        InvalidInput: wrong shapes, pairs out of range, lambdas out of [0, 1], a student that gives no finite logits.

    The student sees blocks of one size only (the last is filled up): what a pair gets does not depend on which others
    are asked for with it. Source: Active Mixup paper, equations 1 and 2.

    >>> def student(x):  # two classes, told apart by the mean brightness
    ...     bright = x.mean(dim=(1, 2, 3))
    ...     return torch.stack([bright, 1 - bright], dim=1)
    >>> images = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    >>> confidence, best = pair_confidence(student, images, [[0, 1]], [0.3, 0.5, 0.7])
    >>> confidence.tolist(), best.tolist()
    ([0.5], [0.5])
    """
    weights = as_weights(lambdas)
    curves = confidence_curves(student, images, pairs, weights)  # (P, L)
    lowest = curves.argmin(axis=1)  # the first of equal ones
    return curves[np.arange(len(curves)), lowest].astype(np.float64), weights[lowest]


def confidence_curves(
    student: Student, images: Tensor | ArrayLike, pairs: ArrayLike, lambdas: ArrayLike
) -> NDArray[np.float32]:
    """C1 of every mix: (P, L), a row for each pair, a column for each distinct lambda, ascending.

    Arguments, errors and source as in `pair_confidence`.
    """
    pixels = as_images(images)
    chosen, weights = as_pairs(pairs, len(pixels)), as_weights(lambdas)
    curves = np.empty((len(chosen), len(weights)), np.float32)
    with inference(student) as device:
        size = block_size(pixels.shape[2:], device.type)
        for start in range(0, len(chosen), size):
            block = chosen[start : start + size]
            curves[start : start + size] = _block_confidence(student, pixels, block, weights, device, size).T
    return curves


def _block_confidence(
    student: Student,
    pixels: Tensor,
    block: NDArray[np.int64],
    weights: NDArray[np.float64],
    device: torch.device,
    size: int,
) -> NDArray[np.float32]:
    """C1 of b <= `size` pairs at each of L lambdas, (L, b)."""
    rows = torch.from_numpy(block)
    rows = torch.cat([rows, rows[-1:].expand(size - len(rows), -1)])
    first, second = (as_float(pixels[rows[:, side]], device) for side in (0, 1))  # (B, C, H, W)
    curve = [highest_probability(logits_of(student, torch.lerp(second, first, float(weight)))) for weight in weights]
    found: NDArray[np.float32] = torch.stack(curve)[:, : len(block)].cpu().numpy()
    return found


def logits_of(student: Student, x: Tensor) -> Tensor:
    """The student's logits (B, classes), checked."""
    logits = student(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InvalidInput(f"student must give logits ({len(x)}, classes) for {len(x)} images, not {found}.")
    return logits


def highest_probability(logits: Tensor) -> Tensor:
    """C1: the largest entry of the softmax of each row of logits (M, classes): (M,) float32."""
    return highest_of_columns(logits.float().T.contiguous())  # torch is eight times as fast along long rows


def highest_of_columns(logits: Tensor) -> Tensor:
    """C1 of logits (..., classes, M): (..., M)."""
    # The largest is exp(0) / sum.
    found = (logits - logits.amax(dim=-2, keepdim=True)).exp_().sum(dim=-2).reciprocal_()
    if torch.isnan(found).any():
        raise InvalidInput("student gives NaN or infinite logits: its training failed; lower the learning rate.")
    return found


@contextmanager
def inference(student: Student) -> Iterator[torch.device]:
    """No gradients and eval mode for a while, put back afterwards; the device the student is on."""
    module = student if isinstance(student, nn.Module) else None
    was_training = [part for part in module.modules() if part.training] if module is not None else []
    parameter = next(module.parameters(), None) if module is not None else None
    try:
        if module is not None:
            module.eval()
        with torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            yield torch.device("cpu") if parameter is None else parameter.device
    finally:
        for part in was_training:
            part.training = True


def as_images(images: Tensor | ArrayLike) -> Tensor:
    """Images as a tensor (N, C, H, W), uint8 or float32 in [0, 1], contiguous."""
    pixels = images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    if pixels.ndim != 4:
        raise InvalidInput(f"images must have the shape (N, C, H, W), not {tuple(pixels.shape)}.")
    if len(pixels) < 2:
        raise InvalidInput(f"Mixing takes at least two images, not {len(pixels)}.")
    if pixels.dtype == torch.uint8:
        return pixels.contiguous()
    if not pixels.dtype.is_floating_point:
        raise InvalidInput(f"images must be uint8, or float in [0, 1], not {pixels.dtype}.")
    if not bool((pixels >= 0).all() and (pixels <= 1).all()):
        raise InvalidInput("images must be float in [0, 1] or uint8; divide by 255.")
    return pixels.float().contiguous()


def as_float(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 or float images as float in [0, 1] on the device."""
    moved = pixels.to(device)
    return moved.float().div_(255) if moved.dtype == torch.uint8 else moved
