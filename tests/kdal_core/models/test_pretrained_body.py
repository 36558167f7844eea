"""Networks on the maps of pretrained backbones: where their parameters come from, and which of them are trained."""

from __future__ import annotations

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from kdal_core.errors import ConfigError
from kdal_core.models import DropoutNet, LossHeadNet, TunedClassifier, backbone, parameter_count
from kdal_core.models.building import Family
from kdal_core.models.pretrained_body import PretrainedBody
from kdal_core.models.registry import box_networks, lane_networks
from kdal_core.tasks import Box, BoxTask, LaneTask
from kdal_core.training import TrainConfig, TrioSpec, infer, load_checkpoint, save_checkpoint, train

SIZE = (32, 48)
NAMES = ["pretrained/mobilenet_v2", "pretrained/tf_efficientnet_lite0"]
TASK = BoxTask(("a", "b"))
IMAGES = torch.randint(0, 256, (4, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
BOXES = [(Box(0.1, 0.1, 0.6, 0.7, number % 2),) for number in range(4)]


def families() -> list[Family]:
    return [box_networks(SIZE, classes=2), lane_networks(SIZE, slots=2, rows=4, columns=8, classes=1)]


def body_of(model) -> PretrainedBody:
    return next(module for module in model.modules() if isinstance(module, PretrainedBody))


@pytest.mark.parametrize("name", NAMES)
def test_the_maps_are_those_of_the_backbone_with_the_same_weights(name):
    own = backbone(name.removeprefix("pretrained/"))
    for family in families():
        body = body_of(family.build(name, "auto").eval())
        state = own.body.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in body.net.state_dict().items())
    deepest = {}
    layers = {"pretrained/mobilenet_v2": "features.17", "pretrained/tf_efficientnet_lite0": "blocks"}
    own.body.get_submodule(layers[name]).register_forward_hook(lambda *found: deepest.update(map=found[2]))
    images = torch.rand(2, 3, 96, 160)
    with torch.no_grad():
        own(images)
        maps = body(images)
    torch.testing.assert_close(maps[-1], deepest["map"])
    assert [160 // found.shape[3] for found in maps] == [4, 8, 16, 32]


def test_a_network_around_another_says_which_of_its_parameters_are_pretrained():
    detector = TASK.build(NAMES[0], SIZE, weights="auto")
    classifier = TunedClassifier(backbone("mobilenet_v2"), 2)
    for inner, outer in ((detector, LossHeadNet(detector, SIZE)), (classifier, DropoutNet(classifier))):
        found = {id(parameter) for parameter in outer.pretrained_parameters()}
        assert found == {id(parameter) for parameter in inner.pretrained_parameters()} != set()


def test_averages_and_the_first_layers_stay_and_all_else_is_trained():
    model = TASK.build(NAMES[0], SIZE, weights="auto")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train(TASK, model, IMAGES, BOXES, TrainConfig(min_steps=3, max_steps=3, batch_size=2, device="cpu"))
    after = model.state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert not any("running" in key for key in changed)
    layers = {key.split(".")[3] for key in changed if key.startswith("body.net.features")}
    assert layers == {str(number) for number in range(4, 18)}  # 3 is the last whose map is a quarter of the image
    assert {key.split(".")[0] for key in changed} >= {"body", "laterals", "smooth", "what", "where", "classify"}


def test_pretrained_layers_learn_at_their_own_rate():
    def moved(rate: float | None, part: str) -> float:
        model = TASK.build(NAMES[0], SIZE, weights="auto")
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        settings = {"min_steps": 2, "max_steps": 2, "batch_size": 2, "weight_decay": 0.0, "augment": False}
        train(TASK, model, IMAGES, BOXES, TrainConfig(backbone_lr=rate, device="cpu", **settings))
        after = {key: value.detach() for key, value in model.named_parameters() if key.startswith(part)}
        return max(float((value - before[key]).abs().max()) for key, value in after.items())

    assert moved(1e-5, "body.") < 0.1 * moved(None, "body.")
    assert moved(1e-5, "classify.") > 1e-4


def test_without_weights_all_layers_are_fresh_and_trained():
    model = TASK.build(NAMES[1], SIZE)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.train().modules() if isinstance(module, _BatchNorm))


@pytest.mark.parametrize(
    ("name", "task"), [(NAMES[0], TASK), (NAMES[1], LaneTask(("lane",), slots=2, rows=4, columns=8))]
)
def test_a_checkpoint_carries_all_of_the_network(name, task):
    model = task.build(name, SIZE, weights="auto").eval()
    spec = TrioSpec(name, name, SIZE).model_spec(task, "student")
    loaded, _ = load_checkpoint(save_checkpoint(model, spec))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    found, again = (infer(task, each, IMAGES) for each in (model, loaded))
    assert (found.features == again.features).all()


def test_backbones_are_taken_by_name_where_weights_may_be_had():
    spec = TrioSpec.suited(TASK, SIZE, student="tiny_boxes", teacher="mobilenet_v2", weights="auto")
    assert (spec.student, spec.student_weights) == ("tiny_boxes", "none")
    assert (spec.teacher, spec.teacher_weights) == ("pretrained/mobilenet_v2", "auto")
    plain = TrioSpec.suited(TASK, SIZE, student="tiny_boxes", teacher="mobilenet_v2")
    assert (plain.teacher, plain.teacher_weights) == ("mobilenet_v2", "none")
    file = TrioSpec.suited(TASK, SIZE, student="tf_efficientnet_lite0", weights="w.safetensors")
    assert (file.student, file.student_weights, file.teacher_weights) == (NAMES[1], "w.safetensors", "none")


def test_a_pretrained_teacher_has_to_be_larger_than_a_student_that_is_not():
    TASK.check_pair("small_boxes", NAMES[0], SIZE)
    with pytest.raises(ConfigError, match="A teacher needs more"):
        TASK.check_pair("wide_boxes", NAMES[0], SIZE)
    with pytest.raises(ConfigError, match="at least 4 times"):
        TASK.check_pair(NAMES[0], NAMES[1], SIZE)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("pretrained/mobilenet_v2", "default", "takes weights='auto'"),
        ("pretrained/mobilenet_v7", "none", "There is no model"),
        ("pretrained/swin_t", "none", "gives no maps"),
        ("pretrained/mobilenet_v2", "nowhere.pth", "cannot be read"),
    ],
)
def test_what_gives_no_maps_is_refused_by_name(name, weights, message):
    with pytest.raises(ConfigError, match=message):
        families()[0].build(name, weights)


def test_a_file_of_another_backbone_is_refused(tmp_path):
    from kdal_core.models import find_weights

    path = find_weights("tf_efficientnet_lite0").path
    with pytest.raises(ConfigError, match="does not fit 'pretrained/mobilenet_v2'"):
        families()[0].build(NAMES[0], str(path))
    assert parameter_count(families()[0].build(NAMES[1], str(path))) > 3_000_000
