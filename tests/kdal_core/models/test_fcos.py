import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from kdal_core.errors import ConfigError, KdalError
from kdal_core.models import DropoutNet, LossHeadNet, parameter_count
from kdal_core.models.fcos import BOX_SHAPES, FCOS, grid_levels, place_grid
from kdal_core.models.registry import box_model_names, box_networks, default_box_pair
from kdal_core.tasks import BoxTask
from kdal_core.training import TrioSpec, infer, load_checkpoint, save_checkpoint

SIZES = [(32, 64), (33, 70), (240, 320), (512, 40), (333, 500)]


def built(name, size, classes=3, **options):
    return box_networks(size, classes=classes).build(name, **options)


@pytest.mark.parametrize("name", [*BOX_SHAPES, "resnet18", "mobilenet_v3_small", "squeezenet1_1", "vgg11"])
@pytest.mark.parametrize("size", SIZES[:2])
def test_all_networks_for_images_of_one_size_share_one_grid(name, size):
    model = built(name, size).eval()
    with torch.inference_mode():
        outputs, features = model.forward_with_features(torch.rand(2, 3, *size))
    places = sum(rows * columns for rows, columns in grid_levels(size))
    assert outputs.logits.shape == (2, places, 3)
    assert outputs.reach.shape == (2, places, 4)
    assert outputs.centre.shape == (2, places)
    assert torch.equal(outputs.grid, place_grid(size, grid_levels(size)))
    assert features.shape == (2, features.shape[1])
    assert (outputs.reach >= 0).all()


def test_torchvisions_detector_has_the_same_grid_and_its_own_weights_fit(tmp_path):
    size = (64, 600)
    own = torchvision.models.detection.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    names = {"backbone": "body", "head": "detector"}
    state = {f"{names[key.split('.')[0]]}.{key.split('.', 1)[1]}": value for key, value in own.state_dict().items()}
    path = tmp_path / "fcos.safetensors"
    save_file(state, path)
    model = built(FCOS, size, weights=str(path)).eval()
    images = torch.rand(1, 3, *size)
    with torch.inference_mode():
        outputs = model(images)
        head = own.eval().head(list(own.backbone(model.normalize(images)).values())[: len(grid_levels(size))])
    assert len(grid_levels(size)) == 4  # of torchvision's five: no box of this image is for the fifth
    assert len(outputs.grid) == outputs.logits.shape[1]
    torch.testing.assert_close(outputs.logits, head["cls_logits"])
    torch.testing.assert_close(outputs.reach, head["bbox_regression"])
    torch.testing.assert_close(outputs.centre, head["bbox_ctrness"][..., 0])


@pytest.mark.parametrize("size", SIZES)
def test_the_grid_covers_the_image_and_places_lie_in_the_middle_of_their_cells(size):
    levels = grid_levels(size)
    grid = place_grid(size, levels).numpy() * [size[1], size[0], size[1], size[0]]  # pixels
    start = 0
    for number, (rows, columns) in enumerate(levels):
        stride = 8 * 2**number
        x, y, wide, high = grid[start : start + rows * columns].reshape(rows, columns, 4).transpose(2, 0, 1)
        np.testing.assert_allclose((wide, high), stride, rtol=1e-5)
        np.testing.assert_allclose(x, np.tile((np.arange(columns) + 0.5) * stride, (rows, 1)), rtol=1e-5)
        np.testing.assert_allclose(y, np.tile((np.arange(rows) + 0.5)[:, None] * stride, (1, columns)), rtol=1e-5)
        assert (columns - 1) * stride < size[1] <= columns * stride
        start += rows * columns
    assert start == len(grid)
    assert 8 * 8 * 2 ** (len(levels) - 1) >= max(size) / 2 or len(levels) == 5


def test_before_anything_is_learnt_hardly_any_place_is_believed_to_hold_an_object():
    with torch.inference_mode():
        outputs = built("small_boxes", (64, 96)).eval()(torch.rand(2, 3, 64, 96))
    assert 0.005 < outputs.logits.sigmoid().mean() < 0.02
    assert 1 < outputs.reach.mean() < 4


@pytest.mark.parametrize(
    ("student", "teacher"), [("tiny_boxes", "small_boxes"), ("tiny_boxes", "mid_boxes"), ("small_boxes", "wide_boxes")]
)
def test_the_named_pairs_are_pairs(student, teacher):
    family = box_networks((240, 320), classes=3)
    family.check_pair(student, teacher)
    with pytest.raises(ConfigError, match="4 times as many"):
        family.check_pair(teacher, teacher)


@pytest.mark.parametrize("size", [(240, 320), (480, 640)])
def test_the_default_pair_fits(size):
    BoxTask(("a",)).check_pair(*default_box_pair(size), size)


@pytest.mark.parametrize("name", ["swin_t", "vit_b_16"])
def test_networks_whose_maps_cannot_be_read_are_refused(name):
    assert name not in box_model_names()
    with pytest.raises(ConfigError, match="gives no maps to detect with"):
        built(name, (64, 64))


def test_an_unknown_name_is_refused_with_what_is_near():
    with pytest.raises(ConfigError, match="Did you mean 'tiny_boxes'"):
        built("tiny_box", (64, 64))


def test_the_same_seed_gives_the_same_network(random_state_is_kept):
    first, again, other = (built("tiny_boxes", (32, 48), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["classify.weight"], other["classify.weight"])


def test_a_checkpoint_brings_back_the_same_network():
    task = BoxTask(("a", "b"), boxes=7)
    spec = TrioSpec("tiny_boxes", "mid_boxes", (40, 56)).model_spec(task, "student")
    model = task.build("tiny_boxes", (40, 56), seed=3)
    back, found = load_checkpoint(save_checkpoint(model, spec))
    assert found == spec
    assert found.options == {"boxes": 7}
    images = torch.randint(0, 256, (3, 3, 40, 56), dtype=torch.uint8)
    first, second = infer(task, model, images), infer(task, back, images)
    assert np.array_equal(first.predictions, second.predictions, equal_nan=True)
    assert np.array_equal(first.features, second.features)


def test_a_detector_takes_a_loss_head_and_no_dropout():
    model = LossHeadNet(built("tiny_boxes", (64, 96)), (64, 96), width=4).eval()
    with torch.inference_mode():
        (outputs, predicted), features = model.forward_with_features(torch.rand(2, 3, 64, 96))
    assert outputs.logits.shape[0] == len(predicted) == len(features) == 2
    with pytest.raises(KdalError, match="no"):
        DropoutNet(built("tiny_boxes", (64, 96)))


def test_parameters_do_not_grow_with_the_image():
    counts = {size: parameter_count(built("tiny_boxes", size)) for size in ((240, 320), (260, 330))}
    assert len(set(counts.values())) == 1
