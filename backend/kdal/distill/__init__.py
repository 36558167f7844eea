"""`kdal distill`: a compact student from a black-box teacher, a few images and a bounded number of queries."""

from kdal.distill.config import Distillation, load_distillation
from kdal.distill.outcome import Outcome
from kdal.distill.run import run_distillation

__all__ = ["Distillation", "Outcome", "load_distillation", "run_distillation"]
