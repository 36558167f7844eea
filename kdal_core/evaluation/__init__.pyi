from .accepting import AcceptThreshold, accept_threshold
from .calibration import Calibration, calibrate, calibrated, fit_scores, fit_temperature, uncalibrated
from .comparison import ALPHA, Comparison, compare, image_scores

__all__ = [
    "ALPHA",
    "AcceptThreshold",
    "Calibration",
    "Comparison",
    "accept_threshold",
    "calibrate",
    "calibrated",
    "compare",
    "fit_scores",
    "fit_temperature",
    "image_scores",
    "uncalibrated",
]
