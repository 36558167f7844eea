"""Held-out metrics and distances between predictions, one file each."""

from typing import TYPE_CHECKING

import lazy_loader

from kdal_core.metrics.accuracy import accuracy
from kdal_core.metrics.culane import CULane, culane, f1_score
from kdal_core.metrics.lane_distance import lane_distance
from kdal_core.metrics.prediction_gaps import ClassGap, box_gap, class_gap, lane_gap, row_gap
from kdal_core.metrics.tusimple import TuSimple, tusimple

if TYPE_CHECKING:
    from kdal_core.metrics.average_precision import mean_average_precision
else:  # it imports torch, which takes seconds
    __getattr__, _, _ = lazy_loader.attach(__name__, submod_attrs={"average_precision": ["mean_average_precision"]})

__all__ = [
    "CULane",
    "ClassGap",
    "TuSimple",
    "accuracy",
    "box_gap",
    "class_gap",
    "culane",
    "f1_score",
    "lane_distance",
    "lane_gap",
    "mean_average_precision",
    "row_gap",
    "tusimple",
]
