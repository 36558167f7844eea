"""Soft targets and the distillation loss, in their public place; `kdal_core.losses` computes them."""

from kdal_core.losses import kd_loss, soft_targets

__all__ = ["kd_loss", "soft_targets"]
