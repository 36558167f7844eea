"""Predictions and features of a trained model, for any number of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.models import Network
from kdal_core.tasks import Task
from kdal_core.tasks.task import Detects
from kdal_core.training.config import resolve_device
from kdal_core.training.data import KEEP_IN_MEMORY, ImageSource, fetch, to_float
from kdal_core.validation import InvalidInput

LEAST, MOST = 8, 64  # images in a block
PIXELS = {"cpu": 2**19, "cuda": 2**23}  # of all images of a block: what a CPU's cache holds, what keeps a GPU busy


@dataclass(frozen=True)
class Inference:
    """One row for each image.

    Attributes:
        predictions: (N, ...) float32 as the task decodes them.
        features: (N, D) float32.
        distributions: (N, ..., K) probabilities of the task's `distributions`, where they were asked for: float32
            where an image has one of them, float16 where it has many (lanes: 8 · 36 · 65 numbers, 37 kB an image).
        object_features: (N, K, E) float16 of the objects predicted, where they were asked for.
    """

    predictions: NDArray[np.float32]
    features: NDArray[np.float32]
    distributions: NDArray[np.floating] | None = None
    object_features: NDArray[np.floating] | None = None


def infer(
    task: Task,
    model: Network,
    images: ImageSource,
    *,
    device: str = "auto",
    distributions: bool = False,
    object_features: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Inference:
    """Run a model over images, in order, in float32; the model is left on the CPU, in eval mode.

    It sees blocks of as many images as `block_size` says, never more or fewer: the last block is filled up. So the
    same numbers are computed in the same way whatever is asked for together, and shards of any size give the same bits
    on CPUs of one kind and with one number of threads (seen, not promised by torch). For blocks of other sizes torch
    chooses other ways, that round differently.

    Args:
        task: what is labelled.
        model: trained network.
        images: N >= 1 uint8 images (3, H, W), all of one size.
        device: "auto", "cpu", "cuda" or "cuda:1".
        distributions: whether to give these too; what is larger than 512 MB lies in a temporary file.
        object_features: whether to give these too, of a task that has them (`Detects`).
        progress: called with the share done, in [0, 1].

    Raises:
        InvalidInput: no image, or images of another form.
    """
    if len(images) == 0:
        raise InvalidInput("There is no image to predict.")
    where = resolve_device(device)
    model.to(where).eval()
    predictions, features = [], []
    dense: NDArray[np.floating] | None = None
    of_objects: NDArray[np.floating] | None = None
    with torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        size = block_size(images[0].shape[1:], where.type)
        for start in range(0, len(images), size):
            stop = min(start + size, len(images))
            x = to_float(fetch(images, range(start, stop)), where)  # (B, 3, H, W)
            outputs, pooled = model.forward_with_features(_filled(x, size))
            predictions.append(task.decode(outputs)[: len(x)])
            features.append(pooled[: len(x)].float().cpu().numpy())
            if distributions:
                probabilities = task.distributions(outputs)[: len(x)]  # (B, ..., K)
                if dense is None:
                    dense = _room((len(images), *probabilities.shape[1:]))
                dense[start:stop] = probabilities.cpu().numpy()
            if object_features and isinstance(task, Detects):
                found = task.object_features(outputs)[: len(x)]  # (B, K, E)
                if of_objects is None:
                    of_objects = _room((len(images), *found.shape[1:]))
                of_objects[start:stop] = found.cpu().numpy()
            if progress is not None:
                progress(stop / len(images))
    model.to("cpu")
    return Inference(np.concatenate(predictions), np.concatenate(features), dense, of_objects)


def block_size(image_size: Sequence[int], device: str) -> int:
    """Images of this (height, width) that go through a network together: a function of these arguments alone.

    >>> [block_size(size, "cpu") for size in ((8, 8), (144, 400), (1080, 1920))], block_size((144, 400), "cuda")
    ([64, 8, 8], 64)
    """
    fitting = PIXELS[device] // max(1, math.prod(image_size))
    return min(max(fitting // LEAST * LEAST, LEAST), MOST)


def _room(shape: tuple[int, ...]) -> NDArray[np.floating]:
    """An empty array for probabilities (N, ..., K); on disk if it is large, so that any pool fits."""
    kind = np.dtype(np.float32 if len(shape) == 2 else np.float16)
    if kind.itemsize * math.prod(shape) <= KEEP_IN_MEMORY:
        return np.empty(shape, kind)
    with TemporaryFile() as file:  # it goes away with the last reference to the array
        return np.memmap(file, dtype=kind, mode="w+", shape=shape)


def _filled(batch: Tensor, size: int) -> Tensor:
    """A batch (B, 3, H, W) filled up to this many images with its last one."""
    missing = size - len(batch)
    return batch if missing == 0 else torch.cat([batch, batch[-1:].expand(missing, -1, -1, -1)])
