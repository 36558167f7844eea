import numpy as np
import pytest
import torch

from kdal_core.errors import ConfigError, KdalError
from kdal_core.tasks import ClassificationTask, LaneTask, get_task, task_kinds
from kdal_core.tasks.augmentation import random_affine

TASK = ClassificationTask(("cat", "dog", "owl"))


def test_a_kind_is_found_by_its_name():
    assert task_kinds() == ["classification", "lanes", "boxes"]
    assert get_task("classification", ["cat", "dog", "owl"]) == TASK


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="known kinds: classification"):
        get_task("segmentation", ["a"])


def test_a_task_is_given_again_by_its_kind_classes_and_options():
    for task in (TASK, LaneTask(("solid", "dashed"), slots=4, rows=20, columns=50)):
        assert get_task(task.kind, task.classes, **task.options) == task


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("classification", {"rows": 20}, "'classification' has no option 'rows'; known: gap_kind"),
        ("lanes", {"raws": 20}, "'lanes' has no option 'raws'; known: slots, rows, columns"),
        ("lanes", {"slots": 3}, "slots must be even"),
        ("lanes", {"slots": 0}, "slots must lie from 2"),
        ("lanes", {"rows": 1}, "rows must lie from 2"),
        ("lanes", {"columns": 10**9}, "columns must lie from 2 to"),
        ("lanes", {"rows": "20"}, "rows must be a whole number"),
    ],
)
def test_options_that_a_task_cannot_have_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        get_task(kind, ["a", "b"], **options)


@pytest.mark.parametrize("classes", [(), ("a", "a")])
def test_classes_must_be_distinct_and_at_least_one(classes):
    with pytest.raises(ConfigError, match="classes"):
        get_task("classification", classes)


@pytest.mark.parametrize(
    ("classes", "targets", "reason"),
    [
        (("cat", "dog"), [], "No image is labelled"),
        (("cat", "dog"), [1, 1], "All 2 labels say 'dog'"),
        (("cat",), [0, 0], "one class only"),
        (("cat", "dog"), [0, 1], None),
    ],
)
def test_labels_that_cannot_train_a_model_say_why(classes, targets, reason):
    answer = ClassificationTask(classes).trainable(targets)
    assert answer is None if reason is None else reason in answer


def test_each_image_has_its_own_loss_and_the_loss_is_their_mean():
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, np.log(2.0), 0.0]])  # probabilities 1/3 each; 1/4, 1/2, 1/4
    losses = TASK.losses(logits, torch.tensor([2, 1]))
    np.testing.assert_allclose(losses, np.log([3, 2]), rtol=1e-6)
    assert TASK.loss(logits, torch.tensor([2, 1])).item() == pytest.approx(np.log(6) / 2)


def test_predictions_are_probabilities_in_float32():
    predictions = TASK.decode(torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0]], dtype=torch.bfloat16))
    assert predictions.dtype == np.float32
    np.testing.assert_allclose(predictions, [[1 / 3] * 3, [1, 0, 0]], atol=1e-6)


def test_the_score_is_the_share_of_right_answers():
    predictions = np.eye(3, dtype=np.float32)
    assert TASK.score(predictions, [0, 1, 0]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("targets", [[3], [-1], [0.5], ["cat"], [True], [None]])
def test_targets_that_are_no_class_numbers_are_refused(targets):
    with pytest.raises(KdalError, match="class number"):
        TASK.collate(targets)


def test_numpy_integers_are_class_numbers():
    assert TASK.collate(np.array([2, 0])).tolist() == [2, 0]


def test_views_stay_in_range_and_leave_targets_alone():
    images, targets = torch.rand(8, 3, 8, 8), torch.arange(8)
    views, same = TASK.augment(images, targets, torch.Generator().manual_seed(0))
    assert views.shape == images.shape
    assert views.min() >= 0
    assert views.max() <= 1
    assert not torch.equal(views, images)
    assert torch.equal(same, targets)


def test_views_are_a_function_of_the_generator(random_state_is_kept):
    images = torch.arange(8 * 3 * 64).reshape(8, 3, 8, 8) / 2000
    first, again, other = (random_affine(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("size", [(8, 8), (20, 60), (60, 20)])
def test_a_view_without_any_change_is_the_image(size):
    images = torch.rand(2, 3, *size)
    views = random_affine(images, torch.Generator(), degrees=0, shift=0, zoom=0)
    torch.testing.assert_close(views, images, atol=1e-5, rtol=0)


def test_a_rotation_of_a_wide_image_keeps_circles_round():
    height, width = 40, 80
    y, x = torch.meshgrid(torch.arange(height) - 19.5, torch.arange(width) - 39.5, indexing="ij")
    disc = ((x**2 + y**2) < 12**2).float().expand(1, 3, height, width)
    view = random_affine(disc, torch.Generator().manual_seed(3), degrees=45, shift=0, zoom=0)
    assert (view - disc).abs().mean() < 0.01


def test_views_are_never_mirrored():
    left = torch.zeros(64, 3, 16, 16)
    left[..., :4] = 1
    views = random_affine(left, torch.Generator().manual_seed(0))
    assert (views[..., :8].mean(dim=(1, 2, 3)) > views[..., 8:].mean(dim=(1, 2, 3))).all()
