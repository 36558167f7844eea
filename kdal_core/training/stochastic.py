"""Many predictions of one model for the same images, by dropout: what BALD measures disagreement on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kdal_core.models import DropoutNet
from kdal_core.tasks import Task
from kdal_core.training.config import resolve_device
from kdal_core.training.data import ImageSource
from kdal_core.training.inference import infer
from kdal_core.validation import as_count

ROWS = 128  # images the head sees at a time: always as many, so that an image's result never depends on the others


def dropout_samples(
    task: Task,
    model: DropoutNet,
    images: ImageSource,
    *,
    passes: int = 20,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.float32]:
    """Predictions of `passes` networks drawn from a model by dropping features; the backbone runs once.

    A pass drops the same features of every image, as if one thinned network looked at the whole pool. The
    samples are therefore a function of the model, the image, `passes` and `seed` alone: shards of any size
    give the same, bit for bit as with `infer`, and predictions for two images in the same pass belong together.

    Args:
        task: what is labelled; it decodes each pass.
        model: trained with its dropout; left on the CPU, in eval mode (batch norm too is in eval mode).
        images: N >= 1 uint8 images (3, H, W), all of one size.
        passes: M >= 1.
        seed: of the masks. The process's own random state is not used.
        device: "auto", "cpu", "cuda" or "cuda:1".
        progress: called with the share of the backbone's work done, in [0, 1].

    Returns:
        (M, N, ...) float32, each pass as the task decodes it; for classification probabilities (M, N, C).

    Raises:
        InvalidInput: no image, images of another form, or no pass.

    Source: Gal et al. 2017 (arXiv:1703.02910), section 3; masks shared by the pool: consistent MC dropout,
    Kirsch et al. 2019 (BatchBALD, arXiv:1906.08158).
    """
    passes = as_count("passes", passes, low=1, high=100_000)
    inferred = infer(task, model, images, device=device, progress=progress)
    features = torch.from_numpy(inferred.features)  # (N, D)
    masks = _masks(passes, features.shape[1], model.p, seed)  # (M, D)
    where = resolve_device(device)
    head = model.head.to(where)
    with torch.inference_mode():
        parts = [_decoded(task, head, block, masks.to(where)) for block in _blocks(features).to(where)]
    head.to("cpu")
    return np.concatenate(parts, axis=1)[:, : len(features)]


def _masks(passes: int, width: int, p: float, seed: int) -> Tensor:
    """(M, D): 0 with probability p, else 1 / (1 - p). The first rows do not depend on how many follow."""
    generator = torch.Generator().manual_seed(seed)
    kept = [torch.rand(width, generator=generator) >= p for _ in range(passes)]
    return torch.stack(kept).float() / (1 - p)


def _blocks(features: Tensor) -> Tensor:
    """Features (N, D) as (K, ROWS, D), filled up with zeros."""
    return F.pad(features, (0, 0, 0, -len(features) % ROWS)).view(-1, ROWS, features.shape[1])


def _decoded(task: Task, head: nn.Module, block: Tensor, masks: Tensor) -> NDArray[np.float32]:
    """Predictions (M, ROWS, ...) for one block of features (ROWS, D), a pass at a time."""
    return np.stack([task.decode(head(block * mask)) for mask in masks])
