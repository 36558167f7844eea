"""What Active Mixup is compared with, one file each, behind one protocol."""

from kdal_core.distillation.rivals.protocol import Method, Problem, method, method_names

__all__ = ["Method", "Problem", "method", "method_names"]
