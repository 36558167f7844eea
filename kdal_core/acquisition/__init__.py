"""Acquisition: from the trio's disagreement and the pool's neighbourhoods to an order of the pool."""

from typing import TYPE_CHECKING

import lazy_loader

from kdal_core.acquisition.cold_start import cold_start
from kdal_core.acquisition.exploration import Explored, explore
from kdal_core.acquisition.gaps import (
    box_gap,
    class_gap,
    four_case_uncertainty,
    label_noise,
    lane_gap,
    prediction_gap,
    uncertainty,
)
from kdal_core.acquisition.greedy import MODES, Selection, greedy_select
from kdal_core.acquisition.joined import joined_features
from kdal_core.acquisition.neighbors import Neighbors, nearest_neighbors, neighbor_search, reverse_neighbor_counts
from kdal_core.acquisition.rarity import rarity
from kdal_core.acquisition.strategies import PoolScores, Strategy, strategy, strategy_names

if TYPE_CHECKING:
    from kdal_core.acquisition.cold_start_images import cold_start_features, thumbnails_tell
else:  # it imports torch and scikit-learn, which takes seconds
    __getattr__, _, _ = lazy_loader.attach(
        __name__, submod_attrs={"cold_start_images": ["cold_start_features", "thumbnails_tell"]}
    )

__all__ = [
    "MODES",
    "Explored",
    "Neighbors",
    "PoolScores",
    "Selection",
    "Strategy",
    "box_gap",
    "class_gap",
    "cold_start",
    "cold_start_features",
    "explore",
    "four_case_uncertainty",
    "greedy_select",
    "joined_features",
    "label_noise",
    "lane_gap",
    "nearest_neighbors",
    "neighbor_search",
    "prediction_gap",
    "rarity",
    "reverse_neighbor_counts",
    "strategy",
    "strategy_names",
    "thumbnails_tell",
    "uncertainty",
]
