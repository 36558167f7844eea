"""Where to begin when nothing is labelled: no model says anything yet, so diversity alone decides."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from torch.nn import functional as F

from kdal_core.acquisition.greedy import Selection, greedy_select
from kdal_core.acquisition.neighbors import nearest_neighbors
from kdal_core.acquisition.strategies.protocol import rounded
from kdal_core.training.data import ImageSource, fetch
from kdal_core.validation import InvalidInput, as_matrix

THUMBNAIL = 16  # pixels
COMPONENTS = 32
FAINTEST = 1 / 255
"""Deviation below which a thumbnail counts as blank, so that no noise is made large."""


def cold_start_features(images: ImageSource, *, even_light: bool = False, batch_size: int = 256) -> NDArray[np.float32]:
    """Features that need no trained model: grey thumbnails, standardised, reduced by PCA.

    Args:
        images: N >= 1 uint8 images (3, H, W), all of one size.
        even_light: give each thumbnail mean 0 and deviation 1 first, so that pictures which differ in brightness and
            contrast alone are alike. Else pale ones (fog, night, worn paint) lie closest together, and an order that
            covers the densest places takes too many of them.
        batch_size: images decoded at a time.

    Returns:
        (N, D) float32 with D <= 32; Euclidean distance is about that of the thumbnails.

    Raises:
        InvalidInput: no image, or images of another form.
    """
    if len(images) == 0:
        raise InvalidInput("There is no image to start from.")
    parts = [
        _thumbnails(images, range(start, min(start + batch_size, len(images))))
        for start in range(0, len(images), batch_size)
    ]
    pixels = np.concatenate(parts).astype(np.float64)  # (N, h * w)
    if even_light:
        pixels -= pixels.mean(axis=1, keepdims=True)
        pixels /= np.maximum(pixels.std(axis=1, keepdims=True), FAINTEST)
    pixels -= pixels.mean(axis=0)
    if (deviation := pixels.std()) < 1e-6:  # one image, or the same one many times
        return np.zeros((len(pixels), 1), dtype=np.float32)
    pixels /= deviation
    components = min(COMPONENTS, *pixels.shape)
    reduced: NDArray[np.float32] = PCA(components, svd_solver="covariance_eigh").fit_transform(pixels)
    return reduced.astype(np.float32)


def cold_start(features: ArrayLike, *, k: int = 10, mode: str = "coverage") -> Selection:
    """Order a whole pool by diversity alone: the same greedy pass with no uncertainty.

    Args:
        features: (N, D) of `cold_start_features`, or of any pretrained backbone.
        k: neighbours; a pool of N <= k images uses N - 1.
        mode: of `greedy_select`.

    Returns:
        Selection of all N images, best first.

    Raises:
        InvalidInput: NaN, or parameters out of range.
    """
    points = rounded(as_matrix("features", features))
    neighbors = nearest_neighbors(points, min(k, max(len(points) - 1, 0)))
    return greedy_select(np.zeros(len(points)), neighbors, len(points), 1.0, mode)


def _thumbnails(images: ImageSource, indices: range) -> NDArray[np.float32]:
    """Grey images of at most 16 x 16 pixels as rows (B, h * w) in [0, 1]."""
    batch = fetch(images, indices).float().div_(255)  # (B, 3, H, W)
    grey = (batch * batch.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    size = (min(THUMBNAIL, batch.shape[2]), min(THUMBNAIL, batch.shape[3]))
    rows: NDArray[np.float32] = F.adaptive_avg_pool2d(grey, size).flatten(1).numpy()
    return rows
