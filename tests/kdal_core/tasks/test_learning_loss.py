import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch.nn import functional as F

from kdal_core.errors import KdalError
from kdal_core.losses import kd_loss
from kdal_core.tasks import ClassificationTask, Lane, LaneTask
from kdal_core.tasks.learning_loss import LearningLossTask, ranking_losses
from kdal_core.training import TrainConfig, infer, train

INNER = ClassificationTask(tuple("0123456789"))
TASK = LearningLossTask(INNER)
QUICK = TrainConfig(min_steps=150, max_steps=150, device="cpu")


@pytest.fixture(scope="module")
def digits():
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels * 255 / 16).round().to(torch.uint8)
    return images.view(-1, 1, 8, 8).repeat(1, 3, 1, 1), labels.tolist()


@pytest.fixture(scope="module")
def model(digits):
    images, targets = digits
    model = TASK.build("small_cnn", (8, 8))
    train(TASK, model, images[:100], targets[:100], QUICK)
    return model


def test_the_predicted_loss_ranks_unseen_images_by_their_true_loss(model, digits):
    images, targets = digits
    predictions = infer(TASK, model, images[-500:]).predictions
    true = -np.log(np.maximum(predictions[np.arange(500), targets[-500:]], 1e-12))
    assert spearmanr(predictions[:, -1], true).statistic > 0.4
    assert TASK.score(predictions, targets[-500:]) > 0.7


def test_the_network_inside_learns_what_it_would_learn_alone(model, digits):
    images, targets = digits
    alone = INNER.build("small_cnn", (8, 8))
    train(INNER, alone, images[:100], targets[:100], QUICK)
    assert all(torch.equal(value, alone.state_dict()[key]) for key, value in model.inner.state_dict().items())


def test_a_student_with_a_loss_head_learns_from_a_teacher_without(digits):
    images, targets = digits
    student, teacher = TASK.build("small_cnn", (8, 8)), INNER.build("wide_cnn", (8, 8))
    config = TrainConfig(min_steps=5, max_steps=5, device="cpu")
    assert train(TASK, student, images[:40], targets[:40], config, teacher=teacher).steps == 5


def by_the_definition(predicted, actual, margin):
    """Equation 2 of the paper for each image and its partner, with the pair's order that of the batch."""
    size = len(predicted)
    losses = []
    for image in range(size):
        i, j = sorted((image, size - 1 - image))
        sign = 1 if actual[i] > actual[j] else -1
        losses.append(0.0 if i == j else max(0.0, -sign * (predicted[i] - predicted[j]) + margin))
    return losses


@given(
    st.lists(st.tuples(st.floats(-9, 9, width=32), st.integers(0, 3)), min_size=1, max_size=9),
    st.floats(0, 3, width=32),
)
def test_ranking_losses_follow_the_equation_pair_by_pair(rows, margin):
    predicted, actual = (torch.tensor(column, dtype=torch.float32) for column in zip(*rows, strict=True))
    expected = by_the_definition(predicted.tolist(), actual.tolist(), margin)
    np.testing.assert_allclose(ranking_losses(predicted, actual, margin), expected, atol=1e-5)


def test_pairs_in_the_right_order_by_the_margin_cost_nothing():
    assert ranking_losses(torch.tensor([5.0, 1.0]), torch.tensor([2.0, 0.5])).tolist() == [0, 0]
    assert ranking_losses(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 0.5])).tolist() == [5, 5]


def test_true_losses_are_constants():
    predicted, actual = torch.randn(6, requires_grad=True), torch.randn(6, requires_grad=True)
    ranking_losses(predicted, actual, margin=5.0).sum().backward()
    assert actual.grad is None
    assert predicted.grad.abs().sum() == 12  # each of 3 pairs, counted twice, pulls at 2 images
    assert predicted.grad.sum() == 0


@pytest.mark.parametrize("size", [4, 5])
def test_the_loss_is_that_of_the_paper_and_the_mean_of_each_images_own(size):
    generator = torch.Generator().manual_seed(size)
    logits, predicted = torch.randn(size, 10, generator=generator), torch.randn(size, generator=generator)
    targets = torch.arange(size)
    task = LearningLossTask(INNER, weight=0.5, margin=2.0)
    actual = F.cross_entropy(logits, targets, reduction="none")
    pairs = by_the_definition(predicted.tolist(), actual.tolist(), 2.0)[: size // 2]
    expected = actual.mean().item() + 0.5 * 2 / size * sum(pairs)
    assert task.loss((logits, predicted), targets).item() == pytest.approx(expected, rel=1e-5)
    assert task.losses((logits, predicted), targets).shape == (size,)
    assert task.losses((logits, predicted), targets).mean().item() == pytest.approx(expected, rel=1e-5)


def test_everything_but_the_predicted_loss_is_the_inner_tasks():
    logits, taught, predicted = torch.randn(3, 10), torch.randn(3, 10), torch.tensor([0.5, -1.0, 2.0])
    predictions = TASK.decode((logits, predicted))
    assert predictions.dtype == np.float32
    assert np.array_equal(predictions[:, :-1], INNER.decode(logits))
    assert predictions[:, -1].tolist() == TASK.predicted_losses(predictions).tolist() == [0.5, -1.0, 2.0]
    other = TASK.decode((taught, predicted * 9))
    assert np.array_equal(TASK.objects(predictions), INNER.objects(INNER.decode(logits)))
    assert np.array_equal(TASK.gap(predictions, other), INNER.gap(INNER.decode(logits), INNER.decode(taught)))
    assert torch.equal(TASK.distillation_loss((logits, predicted), taught, 4.0), kd_loss(logits, taught, 4.0))
    assert (TASK.classes, TASK.metric_name) == (INNER.classes, "accuracy")
    assert TASK.kind == "classification+loss"
    assert TASK.trainable([1]) == INNER.trainable([1])


LANES = LaneTask(("solid", "dashed"), slots=4, rows=6, columns=8)
LANES_TOO = LearningLossTask(LANES)


@pytest.fixture(scope="module")
def lane_outputs():
    """Of five images by a student with a loss head, and by a teacher without."""
    images = torch.rand(5, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    student, teacher = LANES_TOO.build("tiny_rows", (32, 64)).eval(), LANES.build("mid_rows", (32, 64)).eval()
    with torch.inference_mode():
        return student(images), teacher(images)


def test_predictions_of_any_shape_carry_the_predicted_loss_in_a_column_more(lane_outputs):
    (inner, predicted), taught = lane_outputs
    predictions = LANES_TOO.decode((inner, predicted))
    assert (predictions.shape, predictions.dtype) == ((5, 4, 6 + 3), np.float32)
    np.testing.assert_array_equal(predictions[..., :-1], LANES.decode(inner))
    assert LANES_TOO.predicted_losses(predictions).tolist() == predicted.tolist()
    other = LANES_TOO.decode((taught, -predicted))
    assert np.array_equal(LANES_TOO.objects(predictions), LANES.objects(LANES.decode(inner)))
    assert np.array_equal(LANES_TOO.gap(predictions, other), LANES.gap(LANES.decode(inner), LANES.decode(taught)))
    targets = [(), *[(Lane(np.array([[0.4, 0.1], [0.2, 1.0]])),)] * 4]
    assert LANES_TOO.score(predictions, targets) == LANES.score(LANES.decode(inner), targets)
    assert LANES_TOO.options == LANES.options


def test_a_lane_detector_with_a_loss_head_learns_lanes_losses_and_from_a_teacher(lane_outputs):
    (inner, predicted), taught = lane_outputs
    targets = LANES.collate([(), *[(Lane(np.array([[0.4, 0.1], [0.2, 1.0]]), 1),)] * 4])
    actual = LANES.losses(inner, targets)
    expected = actual + ranking_losses(predicted, actual)
    assert torch.equal(LANES_TOO.losses((inner, predicted), targets), expected)
    assert torch.equal(
        LANES_TOO.distillation_loss((inner, predicted), taught, 4.0), LANES.distillation_loss(inner, taught, 4.0)
    )
    images = torch.randint(0, 256, (6, 3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    student, lane = LANES_TOO.build("tiny_rows", (32, 64)), Lane(np.array([[0.4, 0.1], [0.2, 1.0]]))
    config = TrainConfig(min_steps=2, max_steps=2, batch_size=4, device="cpu")
    train(LANES_TOO, student, images, [(lane,)] * 6, config, teacher=LANES.build("mid_rows", (32, 64)))
    assert infer(LANES_TOO, student, images).predictions.shape == (6, 4, 9)


@pytest.mark.parametrize("options", [{"weight": -1}, {"margin": float("nan")}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(KdalError, match=next(iter(options))):
        LearningLossTask(INNER, **options)


def test_losses_of_other_shapes_are_refused():
    with pytest.raises(KdalError, match="predicted"):
        ranking_losses(torch.zeros(3), torch.zeros(4))
    with pytest.raises(KdalError, match="predicted"):
        ranking_losses(torch.zeros(3, 1), torch.zeros(3, 1))
