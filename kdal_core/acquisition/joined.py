"""Features of several backbones side by side, in few dimensions: what coverage and neighbours are computed on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdal_core.training.projection import joined, principal_components
from kdal_core.validation import InvalidInput

COMPONENTS = 128
"""Principal components that are kept of each backbone's features."""


def joined_features(features: Sequence[NDArray[np.floating]], *, components: int = COMPONENTS) -> NDArray[np.float32]:
    """Each backbone's features reduced to its principal components, brought to length 1, and put side by side.

    Args:
        features: of each backbone, (N, D_i) of the same N images, of any float type.
        components: kept of each; fewer where there are fewer images or dimensions.

    Returns:
        (N, E) float32; rows have length 1.

    Raises:
        InvalidInput: no backbone, no image, or features of different images.
    """
    if not features or len({len(part) for part in features}) != 1 or not len(features[0]):
        raise InvalidInput("features must be at least one array, all of the same images, one at least.")
    generator = np.random.default_rng(0)
    rows = np.arange(len(features[0]))
    parts = [principal_components(part, rows, components, generator) for part in features]
    return joined(parts, features)
