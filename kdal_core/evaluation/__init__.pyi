from .accepting import AcceptThreshold, accept_threshold
from .calibration import Calibration, calibrate, calibrated, fit_scores, fit_temperature, uncalibrated
from .comparison import ALPHA, Comparison, compare, image_scores
from .intervals import Interval, bootstrap, mean_interval, wilson
from .label_errors import LabelErrors, label_errors
from .labels_saved import LabelsSaved, labels_saved
from .learning_curve import CurvePoint, LearningCurve, learning_curve
from .power_law import PowerLaws, as_points, fit_power_laws
from .stopping import StoppingAdvice, stopping_advice
from .suggestions import Acceptance, Suggestions, suggestion_acceptance
from .time_saved import TimeSaved, time_saved

__all__ = [
    "ALPHA",
    "AcceptThreshold",
    "Acceptance",
    "Calibration",
    "Comparison",
    "CurvePoint",
    "Interval",
    "LabelErrors",
    "LabelsSaved",
    "LearningCurve",
    "PowerLaws",
    "StoppingAdvice",
    "Suggestions",
    "TimeSaved",
    "accept_threshold",
    "as_points",
    "bootstrap",
    "calibrate",
    "calibrated",
    "compare",
    "fit_power_laws",
    "fit_scores",
    "fit_temperature",
    "image_scores",
    "label_errors",
    "labels_saved",
    "learning_curve",
    "mean_interval",
    "stopping_advice",
    "suggestion_acceptance",
    "time_saved",
    "uncalibrated",
    "wilson",
]
