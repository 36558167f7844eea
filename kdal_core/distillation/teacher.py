"""A black-box teacher: images in, probabilities out, nothing else of it may be used. And one made of a torch module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kdal_core.errors import ConfigError, TeacherError
from kdal_core.training.config import resolve_device
from kdal_core.training.data import to_float
from kdal_core.validation import InvalidInput

SUM_TOLERANCE = 0.01
"""How far from 1 the probabilities of an image may sum: services round their answers to a few digits."""


class Teacher(Protocol):
    """Whatever answers with class probabilities. Ask it through `ask`, which checks, pays and remembers."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes, in the order of the columns of an answer."""

    def query(self, images: Tensor) -> Tensor:
        """uint8 images (N, 3, H, W) -> probabilities (N, C) float32, a row for each image.

        Raises:
            TeacherError: there is no answer; it says whether the images may have been charged all the same.
        """


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Class names of a teacher: at least two, all different."""
    names = tuple(str(name) for name in classes)
    if len(names) < 2 or len(set(names)) != len(names):
        raise ConfigError(f"A teacher's classes must be at least two distinct names, not {list(names)}.")
    return names


def check_images(images: Tensor) -> Tensor:
    """Images as teachers take them, contiguous: uint8 (N, 3, H, W)."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        found = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise InvalidInput(f"A teacher is asked about uint8 images (N, 3, H, W), not {found}.")
    return images.contiguous()


def check_answer(answer: Any, images: int, classes: Sequence[str]) -> Tensor:
    """A teacher's answer as (N, C) float32 on the CPU, if it is one; rows that were rounded are made to sum to 1.

    Args:
        answer: what the teacher returned: a tensor, an array or nested lists of numbers.
        images: N, the images it was asked about.
        classes: the C names it is meant to answer with.

    Raises:
        TeacherError: a wrong shape, too few or too many classes, NaN, or numbers that are no probabilities: logits,
            log-probabilities or percentages. The message says which.

    >>> check_answer([[0.25, 0.75]], 1, ("cat", "dog")).tolist()
    [[0.25, 0.75]]
    >>> check_answer([[-1.0, 3.0]], 1, ("cat", "dog"))  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    kdal_core.errors.TeacherError: The teacher's answer holds values from -1 to 3, which are no probabilities: they look
    like logits. Let it apply softmax.
    """
    try:
        found = torch.as_tensor(answer).detach().to("cpu", torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TeacherError(f"The teacher's answer is no array of numbers: {error}.") from error
    if found.ndim != 2 or len(found) != images:
        raise TeacherError(
            f"The teacher was asked about {images} images and answered in the shape {tuple(found.shape)}."
        )
    if found.shape[1] != len(classes):
        few = "only " if found.shape[1] < len(classes) else ""
        raise TeacherError(
            f"The teacher answers with {few}{found.shape[1]} classes where {len(classes)} are configured: "
            f"{', '.join(classes)}."
        )
    if not torch.isfinite(found).all():
        raise TeacherError("The teacher's answer holds NaN or infinite values.")
    sums = found.sum(dim=1)
    if (found < 0).any() or (found > 1 + SUM_TOLERANCE).any() or ((sums - 1).abs() > SUM_TOLERANCE).any():
        raise TeacherError(_no_probabilities(found, sums))
    rounded = (sums - 1).abs() > 1e-5
    found[rounded] /= sums[rounded, None]
    return found.contiguous()


def _no_probabilities(found: Tensor, sums: Tensor) -> str:
    """What an answer looks like that is none, in words."""
    low, high = found.min().item(), found.max().item()
    start = f"The teacher's answer holds values from {low:.4g} to {high:.4g}, which are no probabilities: "
    if high <= 0 and bool(((found.exp().sum(dim=1) - 1).abs() < SUM_TOLERANCE).all()):
        return start + "they look like log-probabilities. Let it apply exp."
    if low >= 0 and bool(((sums - 100).abs() < 100 * SUM_TOLERANCE).all()):
        return start + "they look like percentages. Let it divide by 100."
    if low >= 0 and high <= 1:
        return (
            start + f"those of an image sum to between {sums.min().item():.4g} and {sums.max().item():.4g}, not 1. "
            "Let it apply softmax; independent scores for each class cannot be distilled."
        )
    return start + "they look like logits. Let it apply softmax."


class TorchTeacher:
    """A torch module as a black box.

    Args:
        module: takes float images (N, 3, H, W) in [0, 1], as every network of kdal does; put into eval mode.
        classes: names, one for each of its outputs.
        logits: whether it gives logits, to which softmax is applied, or probabilities already.
        device: "auto", "cpu", "cuda" or "cuda:1".
        batch_size: images it sees at a time.

    >>> from torch import nn
    >>> teacher = TorchTeacher(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), ("cat", "dog", "hen"), device="cpu")
    >>> teacher.query(torch.zeros(5, 3, 2, 2, dtype=torch.uint8)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        module: nn.Module,
        classes: Sequence[str],
        *,
        logits: bool = True,
        device: str = "auto",
        batch_size: int = 128,
    ) -> None:
        self._device = resolve_device(device)
        self._module = module.to(self._device).eval()
        self._classes, self._logits, self._batch_size = check_classes(classes), logits, batch_size

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes."""
        return self._classes

    def query(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> probabilities (N, C) float32."""
        images = check_images(images)
        with torch.inference_mode():
            parts = [self._module(to_float(batch, self._device)) for batch in torch.split(images, self._batch_size)]
            outputs = torch.cat(parts).float()
            return (outputs.softmax(dim=1) if self._logits else outputs).cpu().clone()
