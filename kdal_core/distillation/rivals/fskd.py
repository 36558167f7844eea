"""Few-shot distillation: pseudo examples, moved to where the student and its teacher disagree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdal_core.distillation.confidence import as_float
from kdal_core.distillation.pairs import pool_of_images
from kdal_core.distillation.querying import ask
from kdal_core.distillation.rivals.protocol import Problem
from kdal_core.distillation.stages import Distilled, Proposal, Stage, distil_in_stages
from kdal_core.models import Network

STEPS = 10
STEP = 0.02  # of the range of a pixel
BATCH = 128


def fskd(problem: Problem) -> Distilled:
    """Pseudo examples from few real images, in the stages of Active Mixup.

    Each stage draws real images and moves their pixels along the gradient of the student's loss against the teacher's
    answers, which are known already: examples that teach what the student has not learnt. The teacher is asked about
    where they arrive. Ours: the published method optimises pseudo examples of a small reference model along with the
    student; a black box gives no gradient, so only the student's is used.

    Source: Kimura et al. 2018 (arXiv:1802.03039).
    """
    pool = pool_of_images(problem.images, mixed_colours=problem.config.mixed_colours)
    seed = problem.config.training.seed

    def propose(student: Network | None, k: int, history: Sequence[Stage]) -> Proposal:
        assert student is not None  # nothing is replayed
        rng = np.random.default_rng([seed, len(history)])
        rows = torch.from_numpy(np.concatenate([rng.permutation(len(pool)) for _ in range(-(-k // len(pool)))])[:k])
        answers = ask(problem.teacher, pool, problem.ledger)  # known since the first stage: costs nothing
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return Proposal(pseudo_examples(student, pool[rows], answers[rows], generator))

    return distil_in_stages(
        problem.teacher,
        pool,
        problem.student,
        problem.ledger,
        propose,
        problem.config.training,
        on_stage=problem.on_stage,
    )


def pseudo_examples(student: Network, images: Tensor, answers: Tensor, generator: torch.Generator) -> Tensor:
    """Images moved uphill on the student's loss.

    Args:
        student: in eval mode.
        images: uint8 (N, 3, H, W) to start from; a little noise keeps two that start alike apart.
        answers: (N, C) the teacher's probabilities for them.
        generator: of the noise, on the CPU.

    Returns:
        uint8 (N, 3, H, W).
    """
    device = next(student.parameters()).device
    moved = []
    for start in range(0, len(images), BATCH):
        x = as_float(images[start : start + BATCH], device)
        noise = torch.randn(x.shape[0], 1, *x.shape[2:], generator=generator).to(device)
        x = (x + STEP * noise).clamp_(0, 1)
        target = answers[start : start + BATCH].to(device)
        for _ in range(STEPS):
            x.requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(student(x), target, reduction="sum"), x)
            x = (x.detach() + STEP * gradient.sign()).clamp_(0, 1)
        moved.append((x * 255).round_().to("cpu", torch.uint8))
    return torch.cat(moved)
