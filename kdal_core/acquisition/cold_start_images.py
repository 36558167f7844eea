"""What images look like when no model has seen them yet: features by which the first batch is chosen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from kdal_core.tasks import ColdStartImages
from kdal_core.training.data import ImageSource, fetch
from kdal_core.validation import InvalidInput

Floats = NDArray[np.float64]

THUMBNAIL = 16  # pixels
COMPONENTS = 32
FAINTEST = 1 / 255
"""Deviation below which a thumbnail counts as blank, so that no noise is made large."""
COLOUR_THUMBNAIL = 32  # pixels of the longer side
COLOURS = 32
FAINT_COLOUR = 4.0
"""Mean difference between an image's channels, of 255, below which it is grey."""
SAMPLE = 20_000
"""Pixels of the pool among which its colours are found."""


def cold_start_features(
    images: ImageSource, *, look: ColdStartImages = "thumbnails", batch_size: int = 256
) -> NDArray[np.float32]:
    """Features that need no trained model.

    "thumbnails": grey thumbnails, standardised, reduced by PCA; their distance is about that of the pictures.
    "even_thumbnails": the same, each with mean 0 and deviation 1 first, so that pictures which differ in brightness and
    contrast alone are alike. Else pale ones (fog, night, worn paint) lie closest together, and an order that covers the
    densest places takes too many of them.
    "colours": how much of each of the pool's colours an image shows, wherever it lies; each colour counts alike,
    however rare. For objects of any size anywhere in the image: thumbnails of such pictures are closest together where
    they are crowded, and small objects do not show in them.

    Args:
        images: N >= 1 uint8 images (3, H, W), all of one size.
        look: which of the three.
        batch_size: images decoded at a time.

    Returns:
        (N, D) float32 with D <= 32, to be compared by Euclidean distance.

    Raises:
        InvalidInput: no image, or images of another form.
    """
    if len(images) == 0:
        raise InvalidInput("There is no image to start from.")
    if look == "colours":
        return _colour_features(_in_batches(images, _small, batch_size), batch_size)
    pixels = _in_batches(images, _grey, batch_size).astype(np.float64)  # (N, h * w)
    if look == "even_thumbnails":
        pixels -= pixels.mean(axis=1, keepdims=True)
        pixels /= np.maximum(pixels.std(axis=1, keepdims=True), FAINTEST)
    pixels -= pixels.mean(axis=0)
    if (deviation := pixels.std()) < 1e-6:  # one image, or the same one many times
        return np.zeros((len(pixels), 1), dtype=np.float32)
    pixels /= deviation
    components = min(COMPONENTS, *pixels.shape)
    reduced: Floats = PCA(components, svd_solver="covariance_eigh").fit_transform(pixels)
    return reduced.astype(np.float32)


def thumbnails_tell(images: ImageSource) -> bool:
    """Whether the thumbnails of these images say what they show: those of grey ones, such as digits and scans, do.

    On photos, an order by thumbnails begins with the wrong images: its first batch taught 5 points less than a random
    one on clothes, 11 on streets (docs/results/photo-orders.md). On digits it taught 13 more.

    Args:
        images: N >= 1 uint8 images (3, H, W), of which some hundreds are looked at.
    """
    chosen = np.linspace(0, len(images) - 1, min(len(images), 256)).astype(np.int64)
    seen = fetch(images, np.unique(chosen).tolist()).float()
    colour = (seen.amax(dim=1) - seen.amin(dim=1)).flatten(1).mean(dim=1)  # (n,) 0 to 255
    return float((colour < FAINT_COLOUR).float().mean()) > 0.5


def _colour_features(pixels: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Pixels (N, P * 3) -> (N, D): the share of each colour of the pool, standardised over the pool.

    The colours are the means of k-means clusters of a sample of all pixels. `block`: images looked at at a time.
    """
    every = pixels.reshape(-1, 3)
    sample = every[np.random.default_rng(0).choice(len(every), min(SAMPLE, len(every)), replace=False)]
    count = min(COLOURS, len(np.unique(sample, axis=0)))
    colours = KMeans(count, n_init=1, random_state=0).fit(sample.astype(np.float64))

    def shares_of(rows: NDArray[np.float32]) -> Floats:
        found = colours.predict(rows.reshape(-1, 3).astype(np.float64)).reshape(len(rows), -1)  # (n, P)
        counts: Floats = np.stack([np.bincount(image, minlength=count) for image in found]) / found.shape[1]
        return counts

    shares = np.concatenate([shares_of(pixels[start : start + block]) for start in range(0, len(pixels), block)])
    deviation = shares.std(axis=0)
    told = deviation > 0  # the others are shown by all images alike
    if not told.any():
        return np.zeros((len(pixels), 1), dtype=np.float32)
    standardised: Floats = (shares[:, told] - shares[:, told].mean(axis=0)) / deviation[told]
    return standardised.astype(np.float32)


def _in_batches(images: ImageSource, look: Callable[[Tensor], Tensor], batch_size: int) -> NDArray[np.float32]:
    """What `look` makes of float batches (B, 3, H, W) in [0, 1], a row (N, P) for each image."""
    batches = [range(start, min(start + batch_size, len(images))) for start in range(0, len(images), batch_size)]
    rows = [look(fetch(images, batch).float().div_(255)).flatten(1).numpy() for batch in batches]
    joined: NDArray[np.float32] = np.concatenate(rows)
    return joined


def _grey(batch: Tensor) -> Tensor:
    """(B, 1, h, w) grey, of at most 16 x 16 pixels."""
    grey = (batch * batch.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return F.adaptive_avg_pool2d(grey, (min(THUMBNAIL, batch.shape[2]), min(THUMBNAIL, batch.shape[3])))


def _small(batch: Tensor) -> Tensor:
    """(B, h, w, 3), the longer side of at most 32 pixels."""
    scale = min(1.0, COLOUR_THUMBNAIL / max(batch.shape[2:]))
    size = [max(1, round(side * scale)) for side in batch.shape[2:]]
    return F.interpolate(batch, size=size, mode="bilinear", antialias=True, align_corners=False).permute(0, 2, 3, 1)
