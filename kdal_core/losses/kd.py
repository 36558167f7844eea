"""Soft targets and the distillation loss of Hinton, Vinyals, Dean (2015)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from kdal_core.validation import InvalidInput


def soft_targets(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities softened by a temperature: p_i = exp(z_i / T) / sum_j exp(z_j / T).

    Args:
        logits: (N, C) unnormalised scores.
        temperature: T > 0. At 1 the plain softmax; the higher, the flatter.

    Returns:
        (N, C) probabilities, each row summing to 1.

    Raises:
        InvalidInput: a wrong shape, or a temperature that is not a positive finite number.

    Source: Hinton et al. 2015 (arXiv:1503.02531), equation 1.

    >>> import torch
    >>> [round(p, 6) for p in soft_targets(torch.tensor([[1.0, 2.0, 3.0]]), temperature=2.0)[0].tolist()]
    [0.186324, 0.307196, 0.50648]
    """
    _check(logits, temperature)
    return F.softmax(logits / temperature, dim=1)


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher || student) between the two softened distributions, averaged over the batch.

    The factor T² keeps the size of the gradient as T grows.

    Args:
        student_logits: (N, C); gradients flow into these.
        teacher_logits: (N, C); treated as constants.
        temperature: T > 0.

    Returns:
        A scalar, >= 0, in nats · T².

    Raises:
        InvalidInput: shapes that differ or are not (N, C) with N >= 1, or a temperature <= 0.

    Source: Hinton et al. 2015 (arXiv:1503.02531), section 2.

    >>> import torch
    >>> student, teacher = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    >>> round(kd_loss(student, teacher, temperature=2.0).item(), 5)
    1.28063
    """
    _check(student_logits, temperature)
    if student_logits.shape != teacher_logits.shape:
        raise InvalidInput(
            f"student_logits {tuple(student_logits.shape)} and teacher_logits {tuple(teacher_logits.shape)} "
            "must have the same shape: both models must be built for the same classes."
        )
    if len(student_logits) == 0:
        raise InvalidInput("student_logits is empty: a mean over no image does not exist.")
    student = F.log_softmax(student_logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def binary_kd_losses(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`kd_loss` where each logit is a distribution of its own, of there and not there: sigmoids instead of softmax.

    Args:
        student_logits: any shape; gradients flow into these.
        teacher_logits: the same shape; treated as constants.
        temperature: T > 0.

    Returns:
        T² · KL(teacher || student) of each logit, >= 0, in nats · T².

    Raises:
        InvalidInput: shapes that differ, or a temperature <= 0.

    >>> import torch
    >>> both = torch.tensor([2.0, -1.0]), torch.tensor([-1.0, 1.0])
    >>> pairs = [torch.stack([logits, torch.zeros(2)], dim=1) for logits in both]
    >>> torch.testing.assert_close(binary_kd_losses(*both, 3.0).mean(), kd_loss(*pairs, 3.0))
    """
    if student_logits.shape != teacher_logits.shape:
        raise InvalidInput(
            f"student_logits {tuple(student_logits.shape)} and teacher_logits {tuple(teacher_logits.shape)} "
            "must have the same shape: both models must be built for the same classes and places."
        )
    _check_temperature(temperature)
    student, teacher = student_logits / temperature, teacher_logits.detach() / temperature
    there = teacher.sigmoid()
    own = F.binary_cross_entropy_with_logits(teacher, there, reduction="none")  # the teacher's entropy
    return (F.binary_cross_entropy_with_logits(student, there, reduction="none") - own) * temperature**2


def _check(logits: Tensor, temperature: float) -> None:
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise InvalidInput(f"logits must have the shape (N, C) with C >= 1, not {tuple(logits.shape)}.")
    _check_temperature(temperature)


def _check_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise InvalidInput(f"temperature must be a positive finite number, not {temperature!r}.")
