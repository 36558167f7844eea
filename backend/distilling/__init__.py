"""`kdal distill`: a compact student from a black-box teacher, a few images and a bounded number of queries."""

from backend.distilling.config import Distillation, load_distillation
from backend.distilling.outcome import Outcome
from backend.distilling.running import run_distillation

__all__ = ["Distillation", "Outcome", "load_distillation", "run_distillation"]
