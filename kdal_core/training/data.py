"""Images as training and inference read them: any sequence of uint8 (3, H, W) tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from kdal_core.validation import InvalidInput

KEEP_IN_MEMORY = 512 * 2**20  # bytes of decoded images


class ImageSource(Protocol):
    """Images by position: a (N, 3, H, W) uint8 tensor is one, and so is anything that loads them lazily."""

    def __len__(self) -> int:
        """N, the number of images."""

    def __getitem__(self, index: int, /) -> Tensor:
        """Image (3, H, W) uint8; all of one size."""


def fetch(images: ImageSource, indices: Sequence[int]) -> Tensor:
    """The images at these positions, (B, 3, H, W) uint8, contiguous."""
    if isinstance(images, Tensor):
        # images[indices] does the same, a number at a time
        batch = images.index_select(0, torch.as_tensor(indices, device=images.device))
    else:
        batch = torch.stack([_checked(images[index]) for index in indices])
    if batch.ndim != 4 or batch.shape[1] != 3 or batch.dtype != torch.uint8:
        raise InvalidInput(f"images must be uint8 (N, 3, H, W), not {batch.dtype} {tuple(batch.shape)}.")
    return batch.contiguous()


def in_memory(images: ImageSource) -> ImageSource:
    """The same images, decoded once and kept when they fit in `KEEP_IN_MEMORY`, else as they came."""
    if isinstance(images, Tensor) or len(images) == 0:
        return images
    first = _checked(images[0])
    if first.numel() * len(images) > KEEP_IN_MEMORY:
        return images
    return fetch(images, range(len(images)))


def to_float(batch: Tensor, device: torch.device) -> Tensor:
    """uint8 (B, 3, H, W) -> float in [0, 1] on the device."""
    return batch.to(device, non_blocking=True).float().div_(255)


def endless_batches(count: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[list[int]]:
    """`steps` full batches of positions: shuffles of all `count`, one after the other, cut without rest."""
    stream: list[int] = []
    for _ in range(steps):
        while len(stream) < batch_size:
            stream += torch.randperm(count, generator=generator).tolist()
        yield stream[:batch_size]
        del stream[:batch_size]


def _checked(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
        raise InvalidInput(f"An image must be uint8 (3, H, W), not {image.dtype} {tuple(image.shape)}.")
    return image
