"""Predictions and features of a trained model, for any number of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.models import Network
from kdal_core.tasks import Task
from kdal_core.training.config import resolve_device
from kdal_core.training.data import KEEP_IN_MEMORY, ImageSource, fetch, to_float
from kdal_core.validation import InvalidInput

MIN_ROWS = 8  # matrix products of fewer rows take another path through the CPU and round differently


@dataclass(frozen=True)
class Inference:
    """One row for each image.

    Attributes:
        predictions: (N, ...) float32 as the task decodes them.
        features: (N, D) float32.
        distributions: (N, ..., K) probabilities of the task's `distributions`, where they were asked for: float32
            where an image has one of them, float16 where it has many (lanes: 8 · 36 · 65 numbers, 37 kB an image).
    """

    predictions: NDArray[np.float32]
    features: NDArray[np.float32]
    distributions: NDArray[np.floating] | None = None


def infer(
    task: Task,
    model: Network,
    images: ImageSource,
    *,
    batch_size: int = 128,
    device: str = "auto",
    distributions: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Inference:
    """Run a model over images, in order, in float32; the model is left on the CPU, in eval mode.

    Args:
        task: what is labelled.
        model: trained network.
        images: N >= 1 uint8 images (3, H, W), all of one size.
        batch_size: images a batch. On a CPU an image's result does not hang on its batch, so shards of any size
            give the same bits (seen, not promised by torch: CUDA may differ in the last ones).
        device: "auto", "cpu", "cuda" or "cuda:1".
        distributions: whether to give these too; what is larger than 512 MB lies in a temporary file.
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
    with torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        for start in range(0, len(images), batch_size):
            stop = min(start + batch_size, len(images))
            x = to_float(fetch(images, range(start, stop)), where)  # (B, 3, H, W)
            outputs, pooled = model.forward_with_features(_padded(x))
            predictions.append(task.decode(outputs)[: len(x)])
            features.append(pooled[: len(x)].float().cpu().numpy())
            if distributions:
                probabilities = task.distributions(outputs)[: len(x)]  # (B, ..., K)
                if dense is None:
                    dense = _room((len(images), *probabilities.shape[1:]))
                dense[start:stop] = probabilities.cpu().numpy()
            if progress is not None:
                progress(stop / len(images))
    model.to("cpu")
    return Inference(np.concatenate(predictions), np.concatenate(features), dense)


def _room(shape: tuple[int, ...]) -> NDArray[np.floating]:
    """An empty array for probabilities (N, ..., K); on disk if it is large, so that any pool fits."""
    kind = np.dtype(np.float32 if len(shape) == 2 else np.float16)
    if kind.itemsize * math.prod(shape) <= KEEP_IN_MEMORY:
        return np.empty(shape, kind)
    with TemporaryFile() as file:  # it goes away with the last reference to the array
        return np.memmap(file, dtype=kind, mode="w+", shape=shape)


def _padded(batch: Tensor) -> Tensor:
    """A batch (B, 3, H, W) filled up to `MIN_ROWS` images with its last one."""
    missing = MIN_ROWS - len(batch)
    return batch if missing <= 0 else torch.cat([batch, batch[-1:].expand(missing, -1, -1, -1)])
