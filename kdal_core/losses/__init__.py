"""Losses, one file each. The public home of the distillation losses is `kdal_core.distillation`."""

from kdal_core.losses.kd import binary_kd_losses, kd_loss, soft_targets

__all__ = ["binary_kd_losses", "kd_loss", "soft_targets"]
