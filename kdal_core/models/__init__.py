"""The networks, by name: small ones of our own for small images, torchvision's for the rest; and two wrappers."""

from kdal_core.models.dropout import DropoutNet
from kdal_core.models.loss_head import LossHeadNet
from kdal_core.models.network import Network, StagedNetwork, parameter_count
from kdal_core.models.registry import build_model, check_model, check_pair, default_pair, model_names

__all__ = [
    "DropoutNet",
    "LossHeadNet",
    "Network",
    "StagedNetwork",
    "build_model",
    "check_model",
    "check_pair",
    "default_pair",
    "model_names",
    "parameter_count",
]
