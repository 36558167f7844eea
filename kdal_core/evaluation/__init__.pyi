from .accepting import AcceptThreshold, accept_threshold
from .calibration import Calibration, calibrate, calibrated, fit_scores, fit_temperature, uncalibrated
from .comparison import ALPHA, Comparison, compare, image_scores
from .intervals import Interval, bootstrap, mean_interval, wilson
from .learning_curve import CurvePoint, LearningCurve, learning_curve

__all__ = [
    "ALPHA",
    "AcceptThreshold",
    "Calibration",
    "Comparison",
    "CurvePoint",
    "Interval",
    "LearningCurve",
    "accept_threshold",
    "bootstrap",
    "calibrate",
    "calibrated",
    "compare",
    "fit_scores",
    "fit_temperature",
    "image_scores",
    "learning_curve",
    "mean_interval",
    "uncalibrated",
    "wilson",
]
