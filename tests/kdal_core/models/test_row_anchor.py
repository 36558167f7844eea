from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from kdal_core.errors import ConfigError
from kdal_core.models import build_model, parameter_count
from kdal_core.models.bodies import BACKBONES
from kdal_core.models.registry import default_lane_pair, lane_model_names, lane_networks
from kdal_core.models.row_anchor import MOST_CELLS, ROW_SHAPES
from kdal_core.tasks import LaneTask
from kdal_core.training import TrioSpec, infer, load_checkpoint, save_checkpoint

SMALL = {"slots": 4, "rows": 9, "columns": 12, "classes": 3}
USUAL = {"slots": 8, "rows": 36, "columns": 64, "classes": 1}
SIZES = [(32, 64), (400, 144), (512, 512), (513, 32), (590, 1640), (720, 1280), (1024, 1024), (2048, 2048)]


def family(size, **sizes):
    return lane_networks(size, **{**SMALL, **sizes})


def built(name, size, **options):
    return family(size).build(name, **options)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def on_meta(name, size):
    """The network without its memory, with the usual numbers of slots, rows and columns."""
    with torch.device("meta"):
        return lane_networks(size, **USUAL).construct(name, False)


@pytest.mark.parametrize("name", [*ROW_SHAPES, "resnet18", "mobilenet_v3_small", "squeezenet1_1"])
@pytest.mark.parametrize("size", [(72, 200), (75, 211), (33, 70)])
def test_outputs_and_features_have_the_same_shape_for_images_of_any_size(name, size):
    model = built(name, size).eval()
    with torch.inference_mode():
        outputs, features = model.forward_with_features(torch.rand(2, 3, *size))
    assert outputs.rows.shape == (2, 4, 9, 13)
    assert outputs.kinds.shape == (2, 4, 3)
    assert features.ndim == 2
    assert torch.isfinite(outputs.rows).all()
    assert torch.isfinite(features).all()


@pytest.mark.parametrize("size", [(144, 400), (590, 1640), (2048, 1024)])
@pytest.mark.parametrize("name", [*ROW_SHAPES, "resnet50", "mobilenet_v3_large", "convnext_tiny", "efficientnet_b0"])
def test_networks_take_the_usual_sizes_of_cameras(name, size):
    model = on_meta(name, size).eval()
    with torch.inference_mode():
        outputs = model(torch.empty(1, 3, *size, device="meta"))
    assert outputs.rows.shape == (1, 8, 36, 65)


@pytest.mark.parametrize("name", ["tiny_rows", "small_rows"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (16, 300)])
def test_small_networks_take_images_of_a_few_pixels(name, size):
    model = built(name, size).train()
    outputs = model(torch.rand(2, 3, *size))
    outputs.rows.sum().backward()
    assert torch.isfinite(outputs.rows).all()


@pytest.mark.parametrize("prefix", BACKBONES)
def test_each_family_of_torchvisions_networks_that_is_named_can_be_built(prefix):
    name = next(name for name in lane_model_names() if name.startswith(prefix))
    family((144, 400)).check_runs(name)


def test_the_maps_that_are_joined_run_from_a_quarter_of_the_image_to_the_deepest():
    shapes = {
        "small_rows": [(32, 36, 100), (64, 18, 50), (96, 9, 25)],
        "resnet18": [(64, 36, 100), (128, 18, 50), (256, 9, 25), (512, 5, 13)],
        "mobilenet_v3_small": [(16, 36, 100), (24, 18, 50), (48, 9, 25), (576, 5, 13)],
        "vgg11": [(128, 36, 100), (256, 18, 50), (512, 9, 25), (512, 4, 12)],
        "densenet121": [(256, 36, 100), (512, 18, 50), (1024, 9, 25), (1024, 4, 12)],
    }
    for name, expected in shapes.items():
        with torch.inference_mode():
            maps = on_meta(name, (144, 400)).body(torch.empty(2, 3, 144, 400, device="meta"))
        found = [tuple(each.shape[1:]) for each in maps]
        if name in ("vgg11", "densenet121"):  # pooled rounding down, and other widths on the way
            assert [shape[1:] for shape in found[:3]] == [shape[1:] for shape in expected[:3]]
        else:
            assert found == expected


@pytest.mark.parametrize("name", ["vit_b_16", "vit_h_14", "swin_t", "maxvit_t", "regnet_y_8gf", "googlenet"])
def test_networks_whose_maps_cannot_be_read_are_refused_by_name_whatever_the_size(name):
    assert name not in lane_model_names()
    for size in ((144, 400), (224, 224)):
        with pytest.raises(ConfigError, match=f"'{name}' gives no maps to detect with"):
            built(name, size)


def test_unknown_names_and_sizes_are_refused():
    with pytest.raises(ConfigError, match="'small_rows'"):
        built("smal_rows", (32, 64))
    with pytest.raises(ConfigError, match="image_size"):
        built("small_rows", (0, 64))
    with pytest.raises(ConfigError, match="cannot take images of 8 x 8"):
        built("alexnet", (8, 8))
    with pytest.raises(ConfigError, match="no pretrained weights"):
        built("small_rows", (32, 64), weights="default")


@pytest.mark.parametrize("name", ["small_rows", "resnet18"])
def test_the_seed_alone_decides_the_initial_parameters(name, random_state_is_kept):
    first, again, other = (built(name, (32, 64), seed=seed).state_dict() for seed in (1, 1, 2))
    assert same(first, again)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("pair", [("tiny_rows", "mid_rows"), ("small_rows", "wide_rows")])
@pytest.mark.parametrize("size", [(32, 64), (75, 211), (144, 400), (288, 512), (512, 512)])
def test_our_own_networks_make_pairs_of_student_and_teacher(pair, size):
    lane_networks(size, **USUAL).check_pair(*pair)


@pytest.mark.parametrize("size", SIZES)
def test_the_default_teacher_has_four_times_the_parameters_whatever_the_size(size):
    student, teacher = (parameter_count(on_meta(name, size)) for name in default_lane_pair(size))
    assert teacher >= 4 * student


def test_a_teacher_that_is_too_small_is_refused():
    with pytest.raises(ConfigError, match="at least 4 times"):
        family((144, 400)).check_pair("wide_rows", "small_rows")


def test_the_layer_that_reads_the_whole_image_stays_bounded():
    for size in [(512, 512), (513, 512), (590, 1640), (2048, 2048)]:
        layer = on_meta("small_rows", size).context[0]
        assert layer.in_features <= 8 * MOST_CELLS
    assert on_meta("small_rows", (512, 512)).context[0].in_features == 8 * 32 * 32


def test_absent_competes_with_all_columns_together_however_many_they_are():
    """Before it has learnt anything a network is undecided whether there is a lane, not 64 to 1 sure of it."""
    for columns in (4, 64):
        model = lane_networks((32, 64), **{**SMALL, "columns": columns}).build("tiny_rows").eval()
        with torch.inference_mode():
            absent = model(torch.rand(4, 3, 32, 64)).rows.softmax(dim=-1)[..., -1]
        assert absent.mean() == pytest.approx(0.5, abs=0.05)


def test_memory_formats_of_images_change_nothing():
    model, images = built("tiny_rows", (33, 70)).eval(), torch.rand(3, 3, 33, 70)
    with torch.inference_mode():
        plain, other = model(images), model(images.contiguous(memory_format=torch.channels_last))
    assert torch.equal(plain.rows, other.rows)


def test_a_checkpoint_gives_the_same_predictions_bit_for_bit():
    task = LaneTask(("solid", "dashed"))
    images = torch.randint(0, 256, (9, 3, 33, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name in ("small_rows", "mobilenet_v3_small"):
        model = task.build(name, (33, 70), seed=3)
        data = save_checkpoint(model, TrioSpec(name, "wide_rows", (33, 70)).model_spec(task, "student"))
        loaded, spec = load_checkpoint(data)
        before, after = infer(task, model, images), infer(task, loaded, images)
        np.testing.assert_array_equal(after.predictions, before.predictions)
        np.testing.assert_array_equal(after.features, before.features)
        assert save_checkpoint(loaded, spec) == data


@pytest.mark.parametrize("cuts", [[0, 1, 4, 70], [0, 50, 70]])
def test_the_size_of_a_shard_does_not_change_any_bit_of_an_images_result(cuts):
    task = LaneTask(("lane",), slots=4)
    images = torch.randint(0, 256, (70, 3, 36, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = task.build("small_rows", (36, 100), seed=1)
    whole = infer(task, model, images, device="cpu")
    shards = [infer(task, model, images[start:stop], device="cpu") for start, stop in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate([shard.predictions for shard in shards]), whole.predictions)
    np.testing.assert_array_equal(np.concatenate([shard.features for shard in shards]), whole.features)


def test_weights_of_our_own_file_bring_all_that_fits(tmp_path):
    path = tmp_path / "own.safetensors"
    source = built("tiny_rows", (32, 64), seed=5)
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, path)
    assert same(built("tiny_rows", (32, 64), weights=str(path)).state_dict(), source.state_dict())
    other = lane_networks((40, 90), slots=6, rows=7, columns=8, classes=1).build("tiny_rows", str(path))
    assert torch.equal(other.body.stages[0][0][0].weight, source.body.stages[0][0][0].weight)
    assert other(torch.rand(2, 3, 40, 90)).rows.shape == (2, 6, 7, 9)


def test_weights_without_any_head_are_enough(tmp_path):
    source = built("tiny_rows", (32, 64), seed=5)
    body = {key: value.contiguous() for key, value in source.state_dict().items() if key.startswith("body.")}
    save_file(body, tmp_path / "body.safetensors")
    model = built("tiny_rows", (32, 64), weights=str(tmp_path / "body.safetensors"))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in body.items())
    fresh = built("tiny_rows", (32, 64))
    assert torch.equal(model.where.weight, fresh.where.weight)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_weights_of_torchvision_and_of_a_classifier_fill_the_body(name, tmp_path):
    theirs = torchvision.models.get_model(name, num_classes=5).state_dict()
    ours = build_model(name, 3, (64, 64), seed=4).state_dict()
    for source, prefix in ((theirs, ""), (ours, "body.")):
        save_file(dict(source), tmp_path / "weights.safetensors")
        found = built(name, (64, 64), weights=str(tmp_path / "weights.safetensors")).state_dict()
        body = {key: value for key, value in found.items() if key.startswith("body.")}
        assert len(body) > 50
        assert all(torch.equal(value, source[prefix + key.removeprefix("body.")]) for key, value in body.items())


def test_weights_of_another_network_are_refused(tmp_path):
    source = built("wide_rows", (32, 64)).state_dict()
    save_file({key: value.contiguous() for key, value in source.items()}, tmp_path / "wide.safetensors")
    with pytest.raises(ConfigError, match="does not fit 'tiny_rows'"):
        built("tiny_rows", (32, 64), weights=str(tmp_path / "wide.safetensors"))
