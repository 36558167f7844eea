from .backbones import Backbone, backbone, backbone_parameters, has_pretrained_features
from .building import TEACHER_FACTOR
from .dropout import DropoutNet
from .frozen import FrozenClassifier
from .loss_head import LossHeadNet
from .network import Network, StagedNetwork, parameter_count
from .registry import build_model, check_model, check_pair, default_pair, model_names, suits_small_networks
from .tuned import TunedClassifier
from .weights import Weights, default_backbones, find_weights, known_weights

__all__ = [
    "TEACHER_FACTOR",
    "Backbone",
    "DropoutNet",
    "FrozenClassifier",
    "LossHeadNet",
    "Network",
    "StagedNetwork",
    "TunedClassifier",
    "Weights",
    "backbone",
    "backbone_parameters",
    "build_model",
    "check_model",
    "check_pair",
    "default_backbones",
    "default_pair",
    "find_weights",
    "has_pretrained_features",
    "known_weights",
    "model_names",
    "parameter_count",
    "suits_small_networks",
]
