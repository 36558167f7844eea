"""Backbones: pixels, digests, and the classifier that is one layer on them."""

from __future__ import annotations

import pytest
import torch

from kdal_core.errors import ConfigError
from kdal_core.models import (
    Backbone,
    FrozenClassifier,
    backbone,
    backbone_parameters,
    build_model,
    has_pretrained_features,
)
from kdal_core.models.backbones import LEAST_SIDE, Preprocessing


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Backbone:
    return backbone("mobilenet_v2", cache=tmp_path_factory.mktemp("weights"))


def test_features_of_bytes_and_of_floats_are_the_same(small):
    images = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)
    found = small.features(images)
    assert (found.shape, found.dtype) == ((3, 1280), torch.float32)
    assert torch.equal(found, small.features(images.float() / 255))


def test_small_images_are_enlarged_and_patches_fit(small):
    assert Preprocessing().size(32, 32) == (LEAST_SIDE, LEAST_SIDE)
    assert Preprocessing(multiple=14).size(100, 230) == (98, 224)
    assert Preprocessing(fixed=(384, 384)).size(100, 230) == (384, 384)
    assert small.features(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape == (1, 1280)
    vit = backbone("vit_tiny_patch16_224", "none")
    assert vit.features(torch.zeros(2, 3, 90, 201, dtype=torch.uint8)).shape == (2, 192)


def test_a_backbone_is_frozen_and_its_averages_stay_whatever_it_is_told(small):
    before = {key: value.clone() for key, value in small.state_dict().items()}
    small.train()
    small(torch.rand(4, 3, 160, 160))
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())
    assert not any(parameter.requires_grad for parameter in small.parameters())


def test_the_digest_tells_weights_apart_and_nothing_else(small, tmp_path):
    assert backbone("mobilenet_v2", cache=tmp_path).digest == small.digest
    assert backbone("mobilenet_v2", "none").digest != small.digest


def test_names(random_state_is_kept):
    assert has_pretrained_features("mobilenet_v2+tf_efficientnet_lite0")
    assert not has_pretrained_features("mobilenet_v2+small_cnn")
    assert backbone_parameters("mobilenet_v2") == 2_223_872
    with pytest.raises(ConfigError, match="There is no backbone 'mobile'"):
        backbone("mobile", "none")
    backbone("mobilenet_v2", "none")


def test_a_classifier_on_a_backbone_is_a_network_like_any_other(small):
    network = FrozenClassifier(small, 3)
    weight, bias = torch.randn(3, 1280), torch.randn(3)
    network.set_head(weight, bias, normalised=True)
    images = torch.rand(2, 3, 160, 160)
    logits, features = network.forward_with_features(images)
    expected = torch.nn.functional.normalize(features) @ weight.T + bias
    torch.testing.assert_close(logits, expected)
    again = build_model("frozen/mobilenet_v2", 3, (160, 160))
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again.eval()(images), logits)
    with pytest.raises(ConfigError, match="There is no model 'frozen/mobile'"):
        build_model("frozen/mobile", 3, (160, 160))
