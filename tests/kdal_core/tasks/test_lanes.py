from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from kdal_core.errors import ConfigError, KdalError
from kdal_core.losses import kd_loss
from kdal_core.metrics import lane_gap
from kdal_core.models.row_anchor import LaneOutputs
from kdal_core.tasks import Lane, LaneTask
from kdal_core.tasks.lane import lanes_of, row_anchors
from kdal_core.tasks.lane_rows import as_distributions, in_slots
from kdal_core.training import TrainConfig, infer, train

TASK = LaneTask(("solid", "dashed"))
LITTLE = LaneTask(("solid", "dashed"), slots=4, rows=6, columns=8)
LEFT = Lane(np.array([[0.45, 0.3], [0.2, 1.0]]))
RIGHT = Lane(np.array([[0.55, 0.3], [0.8, 1.0]]), 1)
seeds = st.integers(0, 10_000)


def random_outputs(seed, images=3, task=LITTLE, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(images, task.slots, task.rows, task.columns + 1, generator=generator)
    return LaneOutputs(scale * rows, torch.randn(images, task.slots, len(task.classes), generator=generator))


def random_lanes(rng, most=5):
    return tuple(
        Lane(np.array([[rng.uniform(0.3, 0.7), rng.uniform(0.1, 0.5)], [rng.uniform(-0.2, 1.2), 1.0]]), label)
        for label in rng.integers(0, 2, rng.integers(0, most))
    )


def perfect(task, targets):
    """Outputs of a network that is sure of what is labelled."""
    x, kinds = in_slots(*task.collate(targets).values(), task.slots, task.rows)
    rows = torch.log(as_distributions(x, task.columns) + 1e-9)
    return LaneOutputs(rows, 50.0 * F.one_hot(kinds.clamp(min=0), len(task.classes)).float())


def test_what_is_labelled_is_predicted_by_a_network_that_is_sure_of_it():
    targets = [(LEFT, RIGHT), (), (RIGHT,)]
    predictions = TASK.decode(perfect(TASK, targets))
    assert (predictions.shape, predictions.dtype) == ((3, 8, 38), np.float32)
    found = [lanes_of(prediction) for prediction in predictions]
    assert [[lane.label for lane, _ in lanes] for lanes in found] == [[0, 1], [], [1]]
    assert all(score == pytest.approx(1) for lanes in found for _, score in lanes)
    for lane, label in zip([lane for lanes in found for lane, _ in lanes], (LEFT, RIGHT, RIGHT), strict=True):
        x, y = lane.points.T
        np.testing.assert_allclose(y, [anchor for anchor in row_anchors(36) if anchor > 0.29], atol=1e-6)
        (x0, y0), (x1, y1) = label.points
        np.testing.assert_allclose(x, x0 + (y - y0) / (y1 - y0) * (x1 - x0), atol=0.01 / 1000)
    assert TASK.score(predictions, targets) == 1.0


def test_rows_have_a_lane_from_a_probability_of_one_half_and_lanes_two_rows():
    rows = torch.full((1, 4, 6, 9), -9.0)
    rows[..., -1] = 0.0  # absent
    rows[0, 0, :3, 2] = torch.logit(torch.tensor([0.6, 0.51, 0.49]))
    rows[0, 1, 4, 5] = 9.0  # one row alone
    kinds = torch.zeros(1, 4, 2)
    kinds[0, 0, 1] = 1.0
    predictions = LITTLE.decode(LaneOutputs(rows, kinds))[0]
    assert np.isfinite(predictions[0, :6]).tolist() == [True, True, False, False, False, False]
    np.testing.assert_allclose(predictions[0, :2], 2.5 / 8, atol=1e-3)
    assert predictions[0, 6] == pytest.approx((0.6 + 0.51) / 2, abs=2e-3)
    assert predictions[0, 7] == 1
    assert np.isnan(predictions[1:, :6]).all()
    assert (predictions[1:, 6] == 0).all()


def test_predictions_are_float32_whatever_the_outputs_are_computed_in():
    outputs = random_outputs(0)
    half = LaneOutputs(outputs.rows.bfloat16(), outputs.kinds.bfloat16())
    assert LITTLE.decode(half).dtype == np.float32


def test_the_loss_of_a_network_that_knows_nothing_is_that_of_chance():
    outputs = LaneOutputs(torch.zeros(2, 4, 6, 9), torch.zeros(2, 4, 2))
    losses = LITTLE.losses(outputs, LITTLE.collate([(LEFT, RIGHT), ()]))
    np.testing.assert_allclose(losses, [np.log(9) + np.log(2), np.log(9)], rtol=1e-6)


def test_the_loss_is_the_mean_over_rows_and_lanes_of_its_definition():
    targets = [(LEFT, RIGHT), (), (RIGHT,)]
    outputs = random_outputs(1)
    x, kinds = in_slots(*LITTLE.collate(targets).values(), 4, 6)
    for image, loss in enumerate(LITTLE.losses(outputs, LITTLE.collate(targets))):
        rows, what = [], []
        for slot in range(4):
            for row in range(6):
                logs = outputs.rows[image, slot, row].log_softmax(dim=0)
                place = x[image, slot, row].item() * 8 - 0.5
                if np.isnan(place):
                    rows.append(-logs[8])
                else:
                    place = min(max(place, 0), 7)
                    lower = min(int(place), 6)
                    rows.append(-(lower + 1 - place) * logs[lower] - (place - lower) * logs[lower + 1])
            if kinds[image, slot] >= 0:
                what.append(-outputs.kinds[image, slot].log_softmax(dim=0)[kinds[image, slot]])
        expected = sum(rows) / len(rows) + (sum(what) / len(what) if what else 0)
        assert loss.item() == pytest.approx(float(expected), rel=1e-5)


@given(seeds)
def test_losses_are_not_negative_and_an_images_own(seed):
    rng = np.random.default_rng(seed)
    targets, outputs = [random_lanes(rng) for _ in range(3)], random_outputs(seed)
    losses = LITTLE.losses(outputs, LITTLE.collate(targets))
    assert losses.shape == (3,)
    assert (losses >= 0).all()
    assert LITTLE.loss(outputs, LITTLE.collate(targets)).item() == pytest.approx(losses.mean().item(), rel=1e-6)
    for image in range(3):
        alone = LaneOutputs(outputs.rows[image : image + 1], outputs.kinds[image : image + 1])
        own = LITTLE.losses(alone, LITTLE.collate([targets[image]]))
        torch.testing.assert_close(own[0], losses[image])


@given(seeds)
def test_no_outputs_have_a_smaller_loss_than_the_labels_own_distributions(seed):
    targets = [random_lanes(np.random.default_rng(seed))]
    collated = LITTLE.collate(targets)
    best = LITTLE.loss(perfect(LITTLE, targets), collated)
    assert best <= LITTLE.loss(random_outputs(seed, images=1), collated) + 1e-5


def test_the_distillation_loss_is_that_of_each_row_and_each_class():
    student, teacher = random_outputs(1), random_outputs(2)
    rows = kd_loss(student.rows.reshape(-1, 9), teacher.rows.reshape(-1, 9), 4.0)
    kinds = kd_loss(student.kinds.reshape(-1, 2), teacher.kinds.reshape(-1, 2), 4.0)
    assert LITTLE.distillation_loss(student, teacher, 4.0).item() == pytest.approx((rows + kinds).item(), rel=1e-6)
    one = LaneTask(("lane",), slots=4, rows=6, columns=8)
    alike = LaneOutputs(student.rows, student.kinds[..., :1]), LaneOutputs(teacher.rows, teacher.kinds[..., :1])
    assert one.distillation_loss(*alike, 4.0).item() == pytest.approx(rows.item(), rel=1e-6)
    assert LITTLE.distillation_loss(student, student, 4.0).item() == pytest.approx(0, abs=1e-6)


def without_holes(predictions):
    """Predictions (N, S, R + 2) of which each slot keeps the longest run of rows, if it has two."""
    kept = predictions.copy()
    for slot in kept.reshape(-1, kept.shape[-1]):
        there = np.isfinite(slot[:-2])
        edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(int), [0]])))
        runs = edges.reshape(-1, 2)
        first, last = max(runs, key=lambda run: run[1] - run[0], default=(0, 0))
        slot[:-2][: first if last - first > 1 else len(there)] = np.nan
        slot[:-2][last:] = np.nan
    return kept


@given(seeds)
def test_the_gap_is_the_lane_gap_at_the_networks_own_rows(seed):
    """For lanes without holes, which `lane_gap` would bridge, and with a row of the network a step of `lane_gap`."""
    a, b = (without_holes(LITTLE.decode(random_outputs(2 * seed + i))) for i in range(2))

    def drawn(predictions):
        """x in pixels of 1,000; the anchors (r + 0.5) / 6 at r."""
        lanes = [[lane.points for lane, _ in lanes_of(prediction)] for prediction in predictions]
        return [[np.stack([1000 * p[:, 0], np.round(6 * p[:, 1] - 0.5)], axis=1) for p in image] for image in lanes]

    expected = lane_gap(drawn(a), drawn(b), (600, 800), step=1)  # the diagonal: 1,000
    np.testing.assert_allclose(LITTLE.gap(a, b), expected, atol=1e-3)
    assert LITTLE.gap(a, a).tolist() == [0, 0, 0]


def test_the_gap_looks_at_places_only():
    predictions = LITTLE.decode(random_outputs(4))
    other = predictions.copy()
    other[..., -2:] = 0
    assert LITTLE.gap(predictions, other).tolist() == [0, 0, 0]


def test_objects_are_the_scores_of_each_class_summed():
    predictions = LITTLE.decode(random_outputs(3, images=5))
    expected = np.zeros((5, 2))
    for image, prediction in enumerate(predictions):
        for lane, score in lanes_of(prediction):
            expected[image, lane.label] += score
    np.testing.assert_allclose(LITTLE.objects(predictions), expected, atol=1e-6)
    assert 0 < (expected > 0).sum() < expected.size


def test_the_score_is_the_f1_of_lanes_whatever_their_class():
    predictions = TASK.decode(perfect(TASK, [(LEFT, RIGHT), (LEFT,), ()]))
    assert TASK.score(predictions, [(replace(LEFT, label=1), RIGHT), (LEFT,), ()]) == 1.0
    assert TASK.score(predictions, [(LEFT,), (LEFT, RIGHT), ()]) == pytest.approx(2 / 3)  # tp 2, fp 1, fn 1
    assert TASK.score(predictions[2:], [()]) == 1.0
    assert TASK.score(predictions[2:], [(LEFT,)]) == 0.0


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([], "No image is labelled"),
        ([(), ()], "None of the 2 labelled images shows a lane"),
        ([(), (LEFT,)], None),
        ([[LEFT]], None),
    ],
)
def test_labels_that_cannot_train_a_model_say_why(targets, reason):
    answer = TASK.trainable(targets)
    assert answer is None if reason is None else reason in answer


@pytest.mark.parametrize("targets", [[0], [None], [LEFT], [(LEFT, [[0, 0], [1, 1]])], ["lane"]])
def test_targets_that_are_no_lanes_are_refused(targets):
    for use in (TASK.collate, TASK.trainable, lambda lanes: TASK.score(np.zeros((1, 8, 38)), lanes)):
        with pytest.raises(KdalError, match="must be a tuple of lanes"):
            use(targets)


def test_classes_that_the_task_does_not_have_are_refused():
    with pytest.raises(KdalError, match="class number below 2, not 2"):
        TASK.collate([(replace(LEFT, label=2),)])


def test_predictions_of_another_shape_are_refused():
    good, bad = np.zeros((2, 8, 38)), np.zeros((2, 8, 37))
    for call in (lambda: TASK.gap(bad, good), lambda: TASK.gap(good, bad), lambda: TASK.score(bad, [(), ()])):
        with pytest.raises(KdalError, match=r"must be \(N, S, 38\)"):
            call()


@pytest.mark.parametrize("classes", [(), ("a", "a")])
def test_classes_must_be_distinct_and_at_least_one(classes):
    with pytest.raises(ConfigError, match="classes"):
        LaneTask(classes)


HEIGHT, WIDTH = 90, 200  # the middle of each third row of pixels is one of 30 row anchors


def painted(lanes):
    """(3, H, W): each lane a bright ridge in the rows that it covers, and drawn on beyond its ends."""
    y, x = np.arange(HEIGHT) + 0.5, np.arange(WIDTH) + 0.5
    picture = np.zeros((HEIGHT, WIDTH))
    for lane in lanes:
        x0, y0, x1, y1 = lane.points[[0, -1]].ravel()
        middle = WIDTH * (x0 + (y / HEIGHT - y0) / (y1 - y0) * (x1 - x0))
        picture = np.maximum(picture, np.exp(-((x - middle[:, None]) ** 2) / (2 * 2.0**2)))
    return torch.from_numpy(0.5 * picture).float().expand(3, -1, -1)


def test_lanes_stay_where_random_views_show_them():
    """A painted lane is found again, in each row of each view, in the column where the moved label has it."""
    lanes = (
        Lane(np.array([[0.45, 0.2], [0.1, 0.95]])),
        Lane(np.array([[0.5, 0.2], [0.62, 0.9]])),
    )
    task = LaneTask(("lane",), rows=30)
    generator = torch.Generator().manual_seed(0)
    images = torch.stack([painted(lanes[:1]), painted(lanes[1:])]).repeat(20, 1, 1, 1)
    collated = task.collate([lanes[:1], lanes[1:]] * 20)
    views, targets = task.augment(images, collated, generator)
    assert torch.equal(targets["labels"], collated["labels"])
    assert (views.shape, float(views.min()) >= 0, float(views.max()) <= 1) == (images.shape, True, True)
    x, kinds = in_slots(targets["points"], targets["labels"], 8, 30)
    mirrored, compared = 0, 0
    for number in range(40):
        slot = int((kinds[number] >= 0).nonzero()[0])
        points = targets["points"][number, 0]
        ends = points[0, 1].item(), points[-1, 1].item()
        mirrored += (points[0, 0] > points[-1, 0]).item() == (number % 2)
        for row, anchor in enumerate(row_anchors(30)):
            if not ends[0] < anchor < ends[1] or not 0.02 < x[number, slot, row] < 0.98:
                continue
            line = views[number, 1, int(anchor * HEIGHT)].numpy()
            nearby = np.arange(WIDTH)[line > 0.5 * line.max()] + 0.5
            centre = np.average(nearby, weights=line[line > 0.5 * line.max()])
            assert x[number, slot, row] * WIDTH == pytest.approx(centre, abs=0.5)
            compared += 1
    assert 10 < mirrored < 30
    assert compared > 500


def test_views_are_a_function_of_the_generator_and_mirrored_lanes_change_sides(random_state_is_kept):
    images, targets = torch.zeros(16, 3, 12, 20), TASK.collate([(LEFT,)] * 16)
    first, again, other = (TASK.augment(images, targets, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1]["points"], again[1]["points"])
    assert not torch.equal(first[1]["points"], other[1]["points"])
    slots = in_slots(first[1]["points"], first[1]["labels"], 8, 36)[1].argmax(dim=1).tolist()
    assert set(slots) == {3, 4}


def test_images_without_lanes_can_be_learnt_from(random_state_is_kept):
    targets = TASK.collate([(), ()])
    _, targets = TASK.augment(torch.zeros(2, 3, 12, 20), targets, torch.Generator().manual_seed(0))
    outputs = LaneOutputs(torch.zeros(2, 8, 36, 65, requires_grad=True), torch.zeros(2, 8, 2, requires_grad=True))
    loss = TASK.loss(outputs, targets)
    loss.backward()
    assert loss.item() == pytest.approx(np.log(65))
    assert outputs.kinds.grad.abs().sum() == 0


ROAD = LaneTask(("white", "red"), slots=4, rows=12, columns=16)


def roads(count, seed):
    """(N, 3, 32, 64) uint8 dark images with one to three bright lines, some of them red, and the lines as labels."""
    rng = np.random.default_rng(seed)
    y, x = (np.arange(32) + 0.5) / 32, (np.arange(64) + 0.5) / 64
    images, targets = rng.integers(0, 40, (count, 32, 64, 3)), []
    for image in images:
        feet = rng.permutation([0.15, 0.4, 0.65, 0.9])[: rng.integers(1, 4)] + rng.uniform(-0.06, 0.06)
        lanes = []
        for foot in feet:
            lane = Lane(np.array([[0.5 + 0.2 * (foot - 0.5), 0.25], [foot, 1.0]]), int(rng.integers(0, 2)))
            middle = np.interp(y, lane.points[:, 1], lane.points[:, 0])
            on = (np.abs(x - middle[:, None]) < 0.02) & (y[:, None] > 0.25)
            image[on] = (230, 40, 40) if lane.label else (230, 230, 230)
            lanes.append(lane)
        targets.append(tuple(lanes))
    return torch.from_numpy(images.astype(np.uint8)).permute(0, 3, 1, 2).contiguous(), targets


@pytest.fixture(scope="module")
def learnt():
    """A network after some dozen steps."""
    model = ROAD.build("tiny_rows", (32, 64))
    config = TrainConfig(min_steps=120, max_steps=120, batch_size=24, lr=5e-3, device="cpu")
    train(ROAD, model, *roads(200, seed=0), config)
    return model


def test_some_dozen_steps_on_bright_lines_teach_to_find_them(learnt):
    images, targets = roads(60, seed=1)
    before = ROAD.score(infer(ROAD, ROAD.build("tiny_rows", (32, 64)), images).predictions, targets)
    after = ROAD.score(infer(ROAD, learnt, images).predictions, targets)
    assert before < 0.1
    assert after > 0.5


def test_the_kinds_of_lanes_are_told_apart(learnt):
    images, targets = roads(60, seed=2)
    predictions = infer(ROAD, learnt, images).predictions
    _, kinds = in_slots(*ROAD.collate(targets).values(), 4, 12)
    there = kinds.numpy() >= 0
    assert (predictions[..., -1] == kinds.numpy())[there].mean() > 0.85


def test_lanes_are_graded_by_those_that_people_labelled_and_only_their_scores_change():
    task = LaneTask(("lane",), rows=4)
    predictions = np.full((2, 8, 6), np.nan, dtype=np.float32)
    predictions[:, :, 4:] = 0
    predictions[0, 1] = [0.3, 0.3, 0.3, 0.3, 0.75, 0]
    predictions[0, 6] = [0.8, 0.8, 0.8, 0.8, 0.625, 0]
    predictions[1, 2] = [0.3, 0.3, 0.3, 0.3, 0.875, 0]
    scores, right = task.graded(predictions, [(Lane([[0.8, 0.0], [0.8, 1.0]]),), ()])
    assert scores.tolist() == [0.75, 0.625, 0.875]
    assert right.tolist() == [False, True, False]

    class Halved:
        def scores(self, values):
            return values / 2

    changed = task.rescored(predictions, Halved())
    assert changed[0, [1, 6], -2].tolist() == [0.375, 0.3125]
    assert changed[0, 0, -2] == 0
    np.testing.assert_array_equal(np.delete(changed, -2, axis=2), np.delete(predictions, -2, axis=2))
