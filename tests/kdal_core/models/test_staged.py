import pytest
import torch
from torch.nn import functional as F

from kdal_core.errors import ConfigError
from kdal_core.models import StagedNetwork, build_model, parameter_count

STAGED = ["tiny_cnn", "small_cnn", "mid_cnn", "wide_cnn", "lenet5"]


@pytest.mark.parametrize("name", STAGED)
@pytest.mark.parametrize("size", [(28, 28), (13, 30)])
def test_the_stem_of_a_mix_is_the_mix_of_the_stems(name, size):
    model = build_model(name, 5, size)
    model(torch.rand(8, 3, *size))  # batch normalisation sees something else than its defaults
    model.eval()
    assert isinstance(model, StagedNetwork)
    a, b = torch.rand(2, 4, 3, *size)
    with torch.inference_mode():
        mixed = 0.3 * model.stem(a) + 0.7 * model.stem(b)
        outputs, features = model.tail(model.trunk(mixed))
        expected, expected_features = model.forward_with_features(0.3 * a + 0.7 * b)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features, expected_features, rtol=1e-4, atol=1e-5)


def test_lenet_has_the_published_number_of_parameters():
    assert parameter_count(build_model("lenet5", 10, (28, 28))) == 61_706


@pytest.mark.parametrize("size", [(28, 28), (29, 31), (12, 12)])
def test_lenet_computes_what_its_layers_written_out_do(size):
    model = build_model("lenet5", 7, size).eval()
    images = torch.rand(3, 3, *size)
    x = F.max_pool2d(F.relu(model.conv1(images.mean(dim=1, keepdim=True) * 2 - 1)), 2)
    x = F.max_pool2d(F.relu(model.conv2(x)), 2).flatten(1)
    expected = model.head(F.relu(model.fc2(F.relu(model.fc1(x)))))
    with torch.inference_mode():
        outputs, features = model.forward_with_features(images)
    torch.testing.assert_close(outputs, expected)
    assert features.shape == (3, 84)
    torch.testing.assert_close(model(images), expected)  # with gradients, another pooling


def test_lenet_of_images_below_twelve_pixels_is_refused():
    with pytest.raises(ConfigError, match="12 pixels"):
        build_model("lenet5", 2, (28, 11))
