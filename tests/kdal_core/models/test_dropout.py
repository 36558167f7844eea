import pytest
import torch
from torch import nn

from kdal_core.errors import KdalError
from kdal_core.models import DropoutNet, Network, build_model
from kdal_core.models.registry import lane_networks


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_in_eval_mode_the_network_is_the_one_inside(name):
    inner = build_model(name, 3, (32, 32)).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        ours, plain = DropoutNet(inner, 0.5).eval().forward_with_features(images), inner.forward_with_features(images)
    assert torch.equal(ours[0], plain[0])
    assert torch.equal(ours[1], plain[1])


def test_in_training_outputs_are_of_features_each_dropped_or_scaled_up():
    torch.manual_seed(0)
    model = DropoutNet(build_model("small_cnn", 3, (8, 8)), 0.25)
    seen = []
    model.head.register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0]))
    features = model.forward_with_features(torch.rand(400, 3, 8, 8))[1]
    ratio = (seen[-1] / features)[features > 0]
    assert torch.allclose(ratio, torch.where(ratio > 0, 4 / 3, 0.0))
    assert (ratio == 0).float().mean() == pytest.approx(0.25, abs=0.02)


def test_the_wrapper_adds_no_parameters():
    inner = build_model("small_cnn", 3, (8, 8))
    assert list(DropoutNet(inner).state_dict()) == [f"inner.{key}" for key in inner.state_dict()]


def test_a_network_without_a_head_is_refused():
    class Headless(Network):
        def __init__(self):
            super().__init__()
            self.body = nn.Flatten()

    with pytest.raises(KdalError, match="Headless has none"):
        DropoutNet(Headless())


def test_a_lane_network_has_no_head_over_its_features_and_is_refused():
    network = lane_networks((32, 64), slots=4, rows=6, columns=8, classes=1).build("tiny_rows")
    with pytest.raises(KdalError, match="inner must have a head over its features; RowAnchorNet has none"):
        DropoutNet(network)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_range_is_refused(p):
    with pytest.raises(KdalError, match="p must"):
        DropoutNet(build_model("small_cnn", 3, (8, 8)), p)
