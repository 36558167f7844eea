"""Distillation: the public home of soft targets and the distillation loss."""

from kdal_core.losses import kd_loss, soft_targets

__all__ = ["kd_loss", "soft_targets"]
