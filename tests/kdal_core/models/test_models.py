import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from kdal_core.errors import ConfigError
from kdal_core.models import build_model, check_pair, default_pair, model_names, parameter_count
from kdal_core.models.pretrained import torchvision_names
from kdal_core.models.registry import _classifiers


@pytest.mark.parametrize("name", ["tiny_cnn", "small_cnn", "mid_cnn", "wide_cnn"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (12, 40), (28, 28), (64, 64)])
def test_small_networks_take_any_small_size(name, size):
    model = build_model(name, 7, size).eval()
    images = torch.rand(2, 3, *size)
    logits, features = model(images), model.features(images)
    assert logits.shape == (2, 7)
    assert features.ndim == 2
    assert torch.equal(model.head(features), logits)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "squeezenet1_1", "vgg11", "googlenet"])
def test_torchvision_networks_give_logits_and_pooled_features(name):
    model = build_model(name, 3, (96, 96)).eval()
    with torch.inference_mode():
        logits, features = model.forward_with_features(torch.rand(1, 3, 96, 96))
    assert logits.shape == (1, 3)
    assert features.shape == (1, model.head.in_features)


def test_networks_of_every_family_can_be_built_and_run_without_memory():
    for name in [*torchvision_names()[::9], "regnet_x_8gf", "maxvit_t", "vit_b_16", "swin_t", "inception_v3"]:
        with pytest.raises(ConfigError, match="at least 4 times"):
            check_pair(name, name, 3, (224, 224))


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (64, 64), (224, 224), (400, 144)])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_default_teacher_has_four_times_the_parameters(size, classes):
    student, teacher = default_pair(size)
    check_pair(student, teacher, classes, size)
    with torch.device("meta"):
        small, large = (build_model_on_meta(name, classes, size) for name in (student, teacher))
    assert parameter_count(large) >= 4 * parameter_count(small)


def build_model_on_meta(name, classes, size):
    return _classifiers(classes, size).construct(name, False)


@pytest.mark.parametrize("pair", [("wide_cnn", "small_cnn"), ("small_cnn", "small_cnn"), ("resnet18", "resnet34")])
def test_a_teacher_that_is_too_small_is_refused(pair):
    with pytest.raises(ConfigError, match="at least 4 times"):
        check_pair(*pair, 10, (64, 64))


def test_an_unknown_name_is_refused_with_names_near_it():
    with pytest.raises(ConfigError, match="'resnet50'"):
        build_model("resnet5o", 10, (224, 224))


@pytest.mark.parametrize(
    ("name", "classes", "size"),
    [("small_cnn", 0, (8, 8)), ("small_cnn", 2, (0, 8)), ("inception_v3", 2, (32, 32)), ("vit_b_16", 2, (30, 30))],
)
def test_what_cannot_be_built_is_refused(name, classes, size):
    with pytest.raises(ConfigError):
        build_model(name, classes, size)


def test_names_are_unique_and_start_with_our_own():
    names = model_names()
    assert names[:4] == ["tiny_cnn", "small_cnn", "mid_cnn", "wide_cnn"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_the_seed_alone_decides_the_initial_parameters(name, random_state_is_kept):
    first, again, other = (build_model(name, 4, (32, 32), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_normalisation_is_inside_the_network():
    model = build_model("small_cnn", 2, (8, 8))
    assert model.body[0](torch.full((1, 3, 2, 2), 0.5)).abs().max() == 0


def test_small_networks_have_no_pretrained_weights():
    with pytest.raises(ConfigError, match="no pretrained weights"):
        build_model("small_cnn", 2, (8, 8), weights="default")


def test_weights_of_a_torchvision_state_dict_file_are_used_below_the_head(tmp_path):
    import torchvision

    source = torchvision.models.get_model("resnet18", num_classes=5)
    save_file(dict(source.state_dict()), tmp_path / "resnet18.safetensors")
    model = build_model("resnet18", 3, (64, 64), weights=str(tmp_path / "resnet18.safetensors"))
    assert torch.equal(model.body.conv1.weight, source.conv1.weight)
    assert model.head.out_features == 3


def test_weights_of_our_own_file_bring_the_head_when_the_classes_agree(tmp_path):
    source = build_model("small_cnn", 3, (8, 8), seed=5)
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    same = build_model("small_cnn", 3, (8, 8), weights=str(tmp_path / "own.safetensors"))
    other = build_model("small_cnn", 4, (8, 8), weights=str(tmp_path / "own.safetensors"))
    assert torch.equal(same.head.weight, source.head.weight)
    assert torch.equal(other.body[1].weight, source.body[1].weight)


@pytest.mark.parametrize("weights", ["DEFAULT.pth", "missing.safetensors", "broken.safetensors", "other.safetensors"])
def test_weights_that_do_not_fit_are_refused(weights, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    save_file(build_model("wide_cnn", 3, (8, 8)).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="weights"):
        build_model("small_cnn", 3, (8, 8), weights=str(tmp_path / weights))


def test_a_failed_download_says_what_to_do(monkeypatch):
    from urllib.error import URLError

    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: "/nonexistent/hub")
    monkeypatch.setattr("os.makedirs", lambda *a, **k: None)
    with pytest.raises(ConfigError, match="could not be downloaded"):
        build_model("mobilenet_v3_small", 3, (64, 64), weights="default")


class LargestTensor(TorchDispatchMode):
    """Notes how large the largest tensor was that was really made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.device.type != "meta":
            self.numbers = max(self.numbers, found.numel())
        return found


@pytest.mark.parametrize("teacher", ["regnet_y_128gf", "vit_h_14"])
def test_a_pair_is_checked_without_building_its_networks(teacher):
    """Their shapes are enough: whoever names a network in a policy cannot make a server take gigabytes for it."""
    with LargestTensor() as largest:
        check_pair("regnet_y_400mf", teacher, num_classes=10, image_size=(224, 224))
    assert largest.numbers < 1_000_000
