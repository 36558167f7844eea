"""Held-out metrics, one file each."""

from kdal_core.metrics.accuracy import accuracy

__all__ = ["accuracy"]
