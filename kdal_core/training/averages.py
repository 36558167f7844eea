"""Batch norm's averages of a trained network, measured again: what it divides by when it looks at one image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdal_core.training.data import ImageSource, endless_batches, fetch, to_float

MOST = 1024
"""Images over which averages are taken: with their pixels enough, and a small part of what training costs."""


def measure_averages(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running averages of all batch norms by those of the trained network over plain images, in place.

    While a network is trained its batch norms divide by each batch's own mean and deviation, and note a moving average
    of them for later. That average lags behind the parameters: some networks of torchvision forget 1% a step
    (MobileNetV3, EfficientNet-B5, MaxViT) or .03% (MNASNet), which suits a million steps; after 300 from nothing the
    average is largely that of the first ones, and the network's predictions are near chance though it has learnt all.
    Any other average is of random views that nobody asks about later.

    All layers but batch norm are as they are for predictions: dropout and stochastic depth are off. Batch norms that
    stay in eval mode when the network is trained keep their averages: a pretrained backbone's are never others.

    Args:
        model: it is left in eval mode.
        batches: at least one, float (B, 3, H, W) in [0, 1] with B >= 2, on the model's device; each counts alike.

    Source: "precise batch norm", Wu and Johnson 2021 (arXiv:2105.07576), section 3. `torch.optim.swa_utils.update_bn`
    does the same with dropout on.
    """
    model.train()
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and module.training
    ]
    model.eval()
    if not norms:
        return
    with _measuring(norms), torch.no_grad():
        for batch in batches:
            model(batch)


@contextmanager
def _measuring(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Batch norms that take the plain mean over all batches of this block, and are in eval mode after it."""
    momenta = {norm: norm.momentum for norm in norms}
    for norm in momenta:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
            norm.eval()


def plain_batches(
    sources: Sequence[tuple[ImageSource, Sequence[int]]], size: int, device: torch.device, generator: torch.Generator
) -> Iterator[Tensor]:
    """Batches (B, 3, H, W) in [0, 1] of `size` images or one more, as they are, in which all sources have equal shares.

    Args:
        sources: what a network was trained on: uint8 images, and the positions at which a pass over them looks.
        size: at least 2.
        device: where the batches are wanted.
        generator: of the order; of more than `MOST` images it draws `MOST`.
    """
    longest = max(len(rows) for _, rows in sources)
    count = -(-min(MOST, longest * len(sources)) // size)
    share = -(-size // len(sources))
    drawn = [endless_batches(len(rows), share, count, generator) for _, rows in sources]
    for places in zip(*drawn, strict=True):
        parts = [
            fetch(images, [rows[place] for place in chosen])
            for (images, rows), chosen in zip(sources, places, strict=True)
        ]
        yield to_float(torch.cat(parts), device)
