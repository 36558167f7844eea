"""Fine-tuning, on crops of two photos that scikit-learn carries and at the least size that a backbone takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from kdal_core.errors import ConfigError
from kdal_core.models import Backbone, FrozenClassifier, Network, TunedClassifier, find_weights
from kdal_core.tasks import ClassificationTask
from kdal_core.training import (
    ModelSpec,
    TrainConfig,
    fine_tune,
    fine_tuning_config,
    infer,
    lessons,
    load_checkpoint,
    save_checkpoint,
    train,
)
from kdal_core.validation import InvalidInput

TASK = ClassificationTask(("temple", "flower"))
STEPS = {"min_steps": 3, "max_steps": 3, "batch_size": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    """Eight crops, (8, 3, 48, 64) uint8; every other one of the temple."""
    rng, photos = np.random.default_rng(0), load_sample_images().images
    corners = [(photos[i % 2], rng.integers(0, 300), rng.integers(0, 500)) for i in range(8)]
    return torch.stack([torch.from_numpy(p[y : y + 48, x : x + 64].copy()).permute(2, 0, 1) for p, y, x in corners])


@pytest.fixture(scope="module")
def frozen(tmp_path_factory) -> FrozenClassifier:
    """A head on MobileNetV2, drawn at random."""
    weights = find_weights("mobilenet_v2", cache=tmp_path_factory.mktemp("weights"))
    network = FrozenClassifier(Backbone("mobilenet_v2", weights), 2)
    rng = torch.Generator().manual_seed(0)
    network.set_head(torch.randn(2, 1280, generator=rng), torch.zeros(2), normalised=True)
    return network.eval()


@pytest.fixture(scope="module")
def told():
    """The crops' labels, half of them from people, and the word of a teacher that is fairly sure."""
    word = np.array([[0.8, 0.2], [0.2, 0.8]] * 4, dtype=np.float32)
    return lessons(word, np.arange(4), np.array([0, 1, 0, 1]), 0.5)


def said(network: Network, images: torch.Tensor) -> np.ndarray:
    return infer(TASK, network, images, device="cpu").predictions


def test_it_begins_where_the_head_ended_and_leaves_the_head_alone(frozen, crops, told):
    before = said(frozen, crops)
    network = TunedClassifier.beginning_as(frozen)
    np.testing.assert_allclose(said(network, crops), before, rtol=1e-5)
    result = fine_tune(TASK, network, crops, told, fine_tuning_config(**STEPS))
    assert result.steps == 3
    assert np.abs(said(network, crops) - before).max() > 0.01
    np.testing.assert_array_equal(said(frozen, crops), before)


def test_early_layers_and_averages_stay_and_later_layers_move(frozen, crops, told):
    network = TunedClassifier.beginning_as(frozen)
    fine_tune(TASK, network, crops, told, fine_tuning_config(**STEPS))
    before, after = dict(frozen.backbone.named_parameters()), dict(network.backbone.named_parameters())
    same = [torch.equal(value, after[name]) for name, value in before.items()]
    half = len(same) // 2
    assert all(same[:half])
    assert not any(same[half:])
    averages = dict(frozen.backbone.named_buffers())
    assert averages
    assert all(torch.equal(value, averages[name]) for name, value in network.backbone.named_buffers())


def test_the_backbone_has_a_learning_rate_of_its_own(frozen, crops, told):
    def moved(backbone_lr: float) -> tuple[float, float]:
        network = TunedClassifier.beginning_as(frozen)
        fine_tune(TASK, network, crops, told, fine_tuning_config(**STEPS, backbone_lr=backbone_lr))
        with torch.no_grad():
            pairs = zip(network.pretrained_parameters(), _later(frozen), strict=True)
            layers = max(float((new - old).abs().max()) for new, old in pairs)
            return layers, float((network.head.weight - frozen.head.weight).abs().max())

    slow, fast = moved(1e-6), moved(1e-4)
    assert fast[0] > 20 * slow[0]
    assert 0.5 < fast[1] / slow[1] < 2


def _later(frozen: FrozenClassifier) -> list[torch.Tensor]:
    parameters = list(frozen.backbone.parameters())
    return parameters[round(len(parameters) / 2) :]


def test_it_learns_what_it_is_told(frozen, crops, told):
    network = TunedClassifier.beginning_as(frozen)
    config = fine_tuning_config(**STEPS | {"min_steps": 12, "max_steps": 12}, augment=False)
    result = fine_tune(TASK, network, crops, told, config)
    assert result.losses[-1] < result.losses[0]
    assert (said(network, crops).argmax(axis=1) == told.targets.argmax(axis=1)).all()


def test_the_same_input_gives_the_same_network(frozen, crops, told):
    first, again = (TunedClassifier.beginning_as(frozen) for _ in range(2))
    for network in (first, again):
        fine_tune(TASK, network, crops, told, fine_tuning_config(**STEPS, seed=3))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())


def test_a_checkpoint_of_it_holds_all_of_it(frozen, crops, told):
    network = TunedClassifier.beginning_as(frozen)
    fine_tune(TASK, network, crops, told, fine_tuning_config(**STEPS))
    spec = ModelSpec(TASK.kind, "tuned/mobilenet_v2", TASK.classes, (48, 64))
    found, told_spec = load_checkpoint(save_checkpoint(network, spec))
    assert isinstance(found, TunedClassifier)
    assert told_spec == spec
    np.testing.assert_array_equal(said(found, crops), said(network, crops))


def test_an_image_with_a_label_is_shown_as_often_as_it_counts():
    word = np.full((6, 3), 1 / 3, dtype=np.float32)
    found = lessons(word, np.array([1, 4]), np.array([2, 0]), 0.5)
    np.testing.assert_allclose(found.weights.sum(), 1)
    np.testing.assert_allclose(found.targets.sum(axis=1), 1, rtol=1e-6)
    others = np.delete(found.weights, [1, 4])
    np.testing.assert_allclose(others, 0.5 / 6)
    np.testing.assert_allclose(found.weights[[1, 4]], 0.5 / 6 + 0.5 / 2)
    # The loss of any student is the sum of the two losses that it stands for.
    logs = np.log(np.random.default_rng(0).dirichlet(np.ones(3), size=6))
    of_labels = -(logs[1, 2] + logs[4, 0]) / 2
    of_word = -(word * logs).sum(axis=1).mean()
    together = -(found.weights * (found.targets * logs).sum(axis=1)).sum()
    np.testing.assert_allclose(together, 0.5 * of_labels + 0.5 * of_word, rtol=1e-6)


def test_labels_alone_leave_nothing_to_the_teacher():
    word = np.full((2, 2), 0.5, dtype=np.float32)
    found = lessons(word, np.array([0, 1]), np.array([1, 0]), 1.0)
    np.testing.assert_array_equal(found.targets, [[0, 1], [1, 0]])


def test_bad_input_is_refused(frozen, crops, told):
    network = TunedClassifier.beginning_as(frozen)
    with pytest.raises(InvalidInput, match="7 images but 8 targets"):
        fine_tune(TASK, network, crops[:7], told, fine_tuning_config(**STEPS))
    with pytest.raises(ConfigError, match="backbone_lr must be a positive"):
        fine_tuning_config(backbone_lr=-1.0)


def test_a_network_without_a_pretrained_part_has_one_learning_rate(digits, task, quick: TrainConfig):
    networks = [task.build("tiny_cnn", (8, 8)) for _ in range(2)]
    for network, config in zip(networks, (quick, replace(quick, backbone_lr=1.0)), strict=True):
        train(task, network, digits.images[:32], digits.targets[:32], config)
    assert all(torch.equal(a, b) for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True))
