"""Labels that are a teacher's probabilities, in their public place; `kdal_core.tasks` learns from them."""

from kdal_core.tasks.soft_labels import SoftLabel, SoftLabelTask

__all__ = ["SoftLabel", "SoftLabelTask"]
