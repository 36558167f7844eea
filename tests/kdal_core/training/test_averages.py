"""Batch norm's averages are right after any training, also a short one of a network that forgets slowly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdal_core.distillation import SoftLabelTask
from kdal_core.models import DropoutNet, build_model, model_names
from kdal_core.models.pretrained import torchvision_names
from kdal_core.tasks import Box, BoxTask, Lane, LaneTask, LearningLossTask
from kdal_core.training import TrainConfig, TrioSpec, distil, infer, load_checkpoint, save_checkpoint, train
from kdal_core.training.averages import measure_averages, plain_batches
from kdal_core.training.checkpoints import ModelSpec

FAMILIES = {
    # torchvision's module: its smallest network and those with another momentum: (name, side in pixels, steps, rate)
    "alexnet": [("alexnet", 64, 12, 3e-4)],
    "convnext": [("convnext_tiny", 32, 6, 1e-3)],
    "densenet": [("densenet121", 32, 12, 2e-3)],
    "efficientnet": [("efficientnet_b0", 64, 12, 2e-3), ("efficientnet_b5", 32, 15, 2e-3)],
    "googlenet": [("googlenet", 64, 12, 2e-3)],
    "inception": [("inception_v3", 75, 12, 2e-3)],
    "mnasnet": [("mnasnet0_5", 64, 15, 2e-3)],
    "mobilenetv2": [("mobilenet_v2", 64, 15, 2e-3)],
    "mobilenetv3": [("mobilenet_v3_small", 64, 15, 2e-3), ("mobilenet_v3_large", 64, 15, 2e-3)],
    "regnet": [("regnet_y_400mf", 64, 15, 2e-3)],
    "resnet": [("resnet18", 64, 15, 2e-3)],
    "shufflenetv2": [("shufflenet_v2_x0_5", 64, 15, 2e-3)],
    "squeezenet": [("squeezenet1_1", 64, 25, 2e-3)],
    "swin_transformer": [("swin_t", 32, 5, 1e-3)],
    "vgg": [("vgg11_bn", 32, 6, 3e-4)],
    "vision_transformer": [("vit_b_16", 32, 5, 1e-3)],
}
OWN = [("tiny_cnn", 16), ("small_cnn", 16), ("mid_cnn", 16), ("wide_cnn", 16), ("lenet5", 32)]


def coloured(size, count=12):
    """Red and blue noise, (N, 3, S, S) uint8, and which it is."""
    rng, labels = np.random.default_rng(0), np.arange(count) % 2
    base = np.array([[200, 40, 40], [40, 60, 200]])[labels][:, :, None, None]
    pixels = (base + rng.normal(0, 25, (count, 3, size, size))).clip(0, 255)
    return torch.from_numpy(pixels.astype(np.uint8)), labels.tolist()


def config(steps, **changes):
    settings = {"min_steps": steps, "max_steps": steps, "batch_size": 12, "augment": False, "device": "cpu"}
    return TrainConfig(**settings | changes)


def test_the_table_of_families_has_all_that_are_offered():
    modules = {
        name: torchvision.models.get_model_builder(name).__module__.rpartition(".")[2] for name in model_names()[5:]
    }
    assert {*FAMILIES, "maxvit"} == set(modules.values())
    assert all(modules[name] == family for family, rows in FAMILIES.items() for name, *_ in rows)
    assert model_names() == [*(name for name, _ in OWN), *torchvision_names()]


@pytest.mark.parametrize(("name", "side", "steps", "lr"), [row for rows in FAMILIES.values() for row in rows])
def test_every_family_knows_its_own_training_images_after_a_brief_training(task_of_two, name, side, steps, lr):
    images, labels = coloured(side)
    model = task_of_two.build(name, (side, side))
    train(task_of_two, model, images, labels, config(steps, lr=lr))
    assert task_of_two.score(infer(task_of_two, model, images, device="cpu").predictions, labels) == 1.0


def test_the_one_family_that_takes_large_images_only_is_averaged_too(task_of_two):
    """A step of MaxViT takes a minute on a busy CPU, so it is not trained here; its norms forget 1% a step."""
    images, _ = coloured(224, 2)
    model = task_of_two.build("maxvit_t", (224, 224))
    assert {module.momentum for module in model.modules() if isinstance(module, _BatchNorm)} == {0.01}
    assert not settled(model, images)
    measure_averages(model, [images.float() / 255])
    assert settled(model, images)


@pytest.mark.parametrize(("name", "side"), OWN)
@pytest.mark.parametrize("steps", [1, 3, 30])
def test_our_own_networks_do_too_however_few_their_steps(task_of_two, name, side, steps):
    images, labels = coloured(side)
    model = task_of_two.build(name, (side, side))
    train(task_of_two, model, images, labels, config(steps))
    assert settled(model, images)
    if steps == 30:
        assert task_of_two.score(infer(task_of_two, model, images, device="cpu").predictions, labels) == 1.0


@pytest.fixture(scope="module")
def task_of_two():
    from kdal_core.tasks import ClassificationTask

    return ClassificationTask(("red", "blue"))


def settled(model, images):
    """Whether each batch norm's averages are those of what it sees of these images when it predicts.

    Of all norms but the first few, what they see depends on the averages before them; so they agree but for little.
    """
    seen = {}

    def listen(norm, inputs, _output):
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        seen[norm] = (inputs[0].mean(axes), inputs[0].var(axes, unbiased=False))

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_hook(listen) for norm in norms]
    with torch.no_grad():
        model.eval()(images.float() / 255)
    for hook in hooks:
        hook.remove()
    assert set(seen) == set(norms)
    off = [
        torch.cat(
            [
                (norm.running_mean - mean).abs() / (variance + norm.eps).sqrt(),
                ((norm.running_var + norm.eps) / (variance + norm.eps)).log().abs(),
            ]
        )
        for norm, (mean, variance) in seen.items()
    ]
    return all(torch.quantile(each, 0.9) < 0.25 for each in off)


ROADS = tuple((Lane(np.array([[0.2 + 0.05 * i, 0.3], [0.1 + 0.1 * i, 1.0]])),) for i in range(6))
CELLS = tuple((Box(0.1 + 0.1 * i, 0.2, 0.3 + 0.1 * i, 0.6),) for i in range(6))
SOFT = [torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.8])] * 3


@pytest.mark.parametrize(
    ("kind", "network", "targets"),
    [
        (LaneTask(("lane",), slots=2, rows=8, columns=8), "mobilenet_v3_small", ROADS),
        (LaneTask(("lane",), slots=2, rows=8, columns=8), "tiny_rows", ROADS),
        (BoxTask(("cell",)), "mobilenet_v3_small", CELLS),
        (BoxTask(("cell",)), "tiny_boxes", CELLS),
        (SoftLabelTask(("red", "blue")), "mobilenet_v3_small", SOFT),
    ],
    ids=lambda value: getattr(value, "kind", value if isinstance(value, str) else None),
)
def test_averages_are_those_of_the_training_images_in_every_task(kind, network, targets):
    images, _ = coloured(64, 6)
    model = kind.build(network, (64, 64))
    assert not settled(model, images)
    train(kind, model, images, list(targets), config(4, augment=True))
    assert settled(model, images)


def test_a_distilled_student_and_networks_with_wrappers_are_averaged_too(task_of_two):
    images, labels = coloured(64)
    spec = TrioSpec("mobilenet_v3_small", "mobilenet_v3_large", (64, 64))
    teacher = task_of_two.build("mobilenet_v3_large", (64, 64))
    for unlabelled, wrap, kind in (
        (None, None, task_of_two),
        (images, None, task_of_two),
        (None, lambda net: DropoutNet(net, 0.5), task_of_two),
        (None, None, LearningLossTask(task_of_two)),
    ):
        settings = config(4, unlabelled=unlabelled is not None)
        student = distil(kind, spec, teacher, images, labels, settings, unlabelled=unlabelled, wrap=wrap)
        assert settled(student, images)
        assert not any(module.training for module in student.modules())


def test_of_images_with_and_without_labels_each_kind_counts_half(task_of_two):
    dark, bright = (
        torch.full((4, 3, 16, 16), 10, dtype=torch.uint8),
        torch.full((40, 3, 16, 16), 210, dtype=torch.uint8),
    )
    generator = torch.Generator().manual_seed(0)
    sources = [(dark, range(4)), (bright, range(40))]
    batches = list(plain_batches(sources, 16, torch.device("cpu"), generator))
    assert {len(batch) for batch in batches} == {16}
    assert len(batches) * 16 >= 44
    assert torch.cat(batches).mean().item() == pytest.approx(110 / 255, abs=1e-4)


def test_of_very_many_images_a_part_is_enough():
    images = torch.zeros(5000, 3, 2, 2, dtype=torch.uint8)
    batches = plain_batches([(images, range(5000))], 32, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert sum(len(batch) for batch in batches) == 1024


def test_a_network_that_was_trained_elsewhere_keeps_its_momentum_and_gets_new_averages(task_of_two):
    """A start from pretrained weights: the averages of the old images do not stay."""
    images, labels = coloured(64)
    model = task_of_two.build("mobilenet_v3_small", (64, 64))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        nn.init.constant_(norm.running_mean, 3.0)
    train(task_of_two, model, images, labels, config(2, lr=1e-6))
    assert {norm.momentum for norm in norms} == {0.01}
    assert settled(model, images)


def test_measuring_changes_no_parameter_draws_no_number_and_uses_no_dropout():
    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.dropout, self.last = nn.BatchNorm2d(3), nn.Dropout(0.9), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.last(self.dropout(self.norm(x)))

    model, state = Probe(), torch.random.get_rng_state()
    before = {name: value.clone() for name, value in model.named_parameters()}
    batches = [torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    measure_averages(model, batches)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    expected = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(model.norm.running_mean, expected)
    torch.testing.assert_close(model.last.running_var, torch.ones(3), atol=0.02, rtol=0)
    fixed = nn.Sequential(
        nn.BatchNorm2d(3, track_running_stats=False), torchvision.ops.FrozenBatchNorm2d(3), nn.Conv2d(3, 1, 1)
    )
    measure_averages(fixed, batches)  # nothing to measure
    assert torch.equal(fixed[1].running_mean, torch.zeros(3))


def test_averages_are_stored_with_the_network_and_training_stays_a_function_of_its_input(task_of_two):
    images, labels = coloured(64)

    def trained():
        model = build_model("mobilenet_v3_small", 2, (64, 64))
        train(task_of_two, model, images, labels, config(3, augment=True))
        return model

    first, again = trained(), trained()
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    spec = ModelSpec("classification", "mobilenet_v3_small", ("red", "blue"), (64, 64))
    loaded, _ = load_checkpoint(save_checkpoint(first, spec))
    assert settled(loaded, images)
    assert not settled(train_as_torchvision_would(task_of_two, images, labels), images)


def train_as_torchvision_would(task, images, labels):
    """The same steps with torch's own moving averages."""
    model = task.build("mobilenet_v3_small", (64, 64)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(3):
        optimizer.zero_grad()
        task.loss(model(images.float() / 255), task.collate(labels)).backward()
        optimizer.step()
    return model


def test_a_batch_of_two_is_enough(task_of_two):
    images, labels = coloured(64)
    model = task_of_two.build("mobilenet_v3_small", (64, 64))
    train(task_of_two, model, images[:2], labels[:2], replace(config(3), batch_size=2))
    assert settled(model, images[:2])
