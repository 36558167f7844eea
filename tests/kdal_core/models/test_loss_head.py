import copy

import pytest
import torch
from torch import nn

from kdal_core.errors import KdalError
from kdal_core.models import LossHeadNet, Network, build_model
from kdal_core.models.registry import lane_networks

# (name, size, channels of each level): the last map at each resolution, then the pooled features
LEVELS = [
    ("small_cnn", 8, [32, 64, 64]),  # 8, 4 px
    ("small_cnn", 28, [32, 64, 64, 64]),  # 28, 14, 7 px
    ("resnet18", 64, [64, 64, 128, 256, 512, 512]),  # 32, 16, 8, 4, 2 px
    ("squeezenet1_1", 64, [64, 64, 128, 512, 512]),  # 31, 15, 7, 3 px; a branch alone at 15 and 7
    ("vit_b_16", 32, [768, 768]),  # the patches alone are a map
]


def widths(model):
    return [level[0].in_features for level in model.levels]


@pytest.mark.parametrize(("name", "side", "channels"), LEVELS)
def test_the_loss_is_predicted_from_the_last_map_of_each_resolution(name, side, channels):
    assert widths(LossHeadNet(build_model(name, 3, (side, side)), (side, side))) == channels


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "densenet121", "convnext_tiny", "swin_t", "vgg11", "googlenet"])
def test_networks_of_every_family_take_a_loss_head(name):
    model = LossHeadNet(build_model(name, 3, (64, 64)), (64, 64), width=4).eval()
    with torch.inference_mode():
        (logits, predicted), features = model.forward_with_features(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 3)
    assert predicted.shape == (2,)
    assert widths(model)[-1] == features.shape[1]


@pytest.mark.parametrize(
    ("name", "channels"), [("tiny_rows", [16, 32, 48, 64]), ("mobilenet_v3_small", [16, 72, 96, 288, 576])]
)
def test_lane_networks_take_a_loss_head(name, channels):
    size = (75, 211)
    inner = lane_networks(size, slots=4, rows=6, columns=8, classes=2).build(name).eval()
    model = LossHeadNet(inner, size, width=4).eval()
    images = torch.rand(2, 3, *size)
    with torch.inference_mode():
        (outputs, predicted), features = model.forward_with_features(images)
        plain, pooled = inner.forward_with_features(images)
    assert widths(model) == [*channels, features.shape[1]]
    assert predicted.shape == (2,)
    assert torch.equal(features, pooled)
    assert torch.equal(outputs.rows, plain.rows)
    assert torch.equal(outputs.kinds, plain.kinds)


def test_the_outputs_and_features_are_those_of_the_network_inside():
    inner = build_model("small_cnn", 3, (8, 8)).eval()
    images = torch.rand(4, 3, 8, 8)
    (logits, _), features = LossHeadNet(inner, (8, 8)).eval().forward_with_features(images)
    assert torch.equal(logits, inner(images))
    assert torch.equal(features, inner.features(images))


def test_a_prediction_is_the_formula_of_the_paper_on_the_pooled_maps():
    model = LossHeadNet(build_model("small_cnn", 3, (8, 8)), (8, 8), width=5).eval()
    images = torch.rand(4, 3, 8, 8)
    shallow = model.inner.body[:4](images)  # normalise, convolve, norm, ReLU
    deep = model.inner.body[:8](images)  # halve, convolve, norm, ReLU
    levels = [shallow.mean((2, 3)), deep.mean((2, 3)), model.inner.features(images)]
    hidden = [
        (level @ layer[0].weight.T + layer[0].bias).clamp(min=0)
        for level, layer in zip(levels, model.levels, strict=True)
    ]
    expected = torch.cat(hidden, dim=1) @ model.loss_head.weight[0] + model.loss_head.bias
    torch.testing.assert_close(model(images)[1], expected)


@pytest.mark.parametrize("joint", [False, True])
def test_the_prediction_trains_the_network_inside_only_when_joint(joint):
    model = LossHeadNet(build_model("small_cnn", 3, (8, 8)), (8, 8), joint=joint)
    model(torch.rand(4, 3, 8, 8))[1].sum().backward()
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum()}
    assert ("inner.body.1.weight" in reached) == joint
    assert {"levels.0.0.weight", "loss_head.weight"} <= reached


def test_building_leaves_the_network_inside_and_the_random_state_alone(random_state_is_kept):
    inner = build_model("small_cnn", 3, (8, 8))
    before = copy.deepcopy(inner.state_dict())
    first, again, other = (LossHeadNet(inner, (8, 8), seed=seed).loss_head.weight for seed in (1, 1, 2))
    assert inner.training
    assert all(torch.equal(value, before[key]) for key, value in inner.state_dict().items())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_hook_is_left_behind():
    model = LossHeadNet(build_model("small_cnn", 3, (8, 8)), (8, 8))
    model(torch.rand(2, 3, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())


def test_other_sizes_of_the_same_depth_can_be_seen():
    model = LossHeadNet(build_model("resnet18", 3, (64, 64)), (64, 64)).eval()
    assert model(torch.rand(1, 3, 96, 64))[1].shape == (1,)


def test_what_cannot_have_a_loss_head_is_refused():
    class Bodiless(Network):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(1, 1)

    with pytest.raises(KdalError, match="Bodiless has none"):
        LossHeadNet(Bodiless(), (8, 8))
    for width in (0, 129):
        with pytest.raises(KdalError, match="width must"):
            LossHeadNet(build_model("small_cnn", 3, (8, 8)), (8, 8), width=width)
