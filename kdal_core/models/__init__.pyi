from .dropout import DropoutNet
from .loss_head import LossHeadNet
from .network import Network, StagedNetwork, parameter_count
from .registry import build_model, check_model, check_pair, default_pair, model_names

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
