"""Held-out metrics and distances between predictions, one file each."""

from kdal_core.metrics.accuracy import accuracy
from kdal_core.metrics.lane_distance import lane_distance
from kdal_core.metrics.prediction_gaps import ClassGap, box_gap, class_gap, lane_gap

__all__ = ["ClassGap", "accuracy", "box_gap", "class_gap", "lane_distance", "lane_gap"]
