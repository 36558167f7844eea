import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from kdal_core.errors import ConfigError, KdalError
from kdal_core.losses import binary_kd_losses
from kdal_core.metrics import box_gap
from kdal_core.models.fcos import BoxOutputs
from kdal_core.tasks import Box, BoxTask
from kdal_core.tasks.box import boxes_of
from kdal_core.tasks.box_places import centreness, match, reach_of
from kdal_core.tasks.boxes import LEAST, OVERLAP, SURE
from kdal_core.training import TrainConfig, infer, train
from tests.kdal_core.tasks.box_samples import GRID, LEVELS, SIZE, SMALL, TASK, WIDE, random_boxes, random_outputs

seeds = st.integers(0, 10_000)


def perfect(targets, sure=9.0):
    """Outputs of a network that is sure of what is labelled."""
    collated = TASK.collate(targets)
    found = match(collated["corners"], GRID, LEVELS)
    logits = torch.full((len(targets), len(GRID), 2), -sure)
    logits[found.image, found.place, collated["labels"][found.image, found.box]] = sure
    reach = torch.ones(len(targets), len(GRID), 4)
    wanted = reach_of(collated["corners"][found.image, found.box], GRID[found.place])
    reach[found.image, found.place] = wanted
    centre = torch.full((len(targets), len(GRID)), -sure)
    centre[found.image, found.place] = torch.logit(centreness(wanted), eps=1e-4)
    return BoxOutputs(logits, reach, centre, GRID, LEVELS)


def part(outputs, image):
    return BoxOutputs(*(values[image : image + 1] for values in outputs[:3]), outputs.grid, outputs.levels)


def test_what_is_labelled_is_predicted_by_a_network_that_is_sure_of_it():
    targets = [(SMALL, WIDE), (), (WIDE,)]
    predictions = TASK.decode(perfect(targets))
    assert (predictions.shape, predictions.dtype) == ((3, 100, 6), np.float32)
    found = [boxes_of(prediction, least=0.5) for prediction in predictions]
    assert [sorted(box.label for box, _ in boxes) for boxes in found] == [[0, 1], [], [1]]
    for label in (SMALL, WIDE):
        (box,) = [box for box, _ in found[0] if box.label == label.label]
        np.testing.assert_allclose(box.corners, label.corners, atol=1e-5)
    assert TASK.score(predictions, targets) == pytest.approx(1)


def test_the_loss_is_the_sum_of_its_definition():
    targets, outputs = [(SMALL, WIDE), (), (WIDE,)], random_outputs(1)
    collated = TASK.collate(targets)
    for image, loss in enumerate(TASK.losses(outputs, collated)):
        found = match(collated["corners"][image : image + 1], GRID, LEVELS)
        wanted, rest = torch.zeros(len(GRID), 2), 0.0
        for place, box in zip(found.place.tolist(), found.box.tolist(), strict=True):
            label = targets[image][box]
            wanted[place, label.label] = 1
            middle, stride = GRID[place, :2].repeat(2), GRID[place, 2:].repeat(2)
            reach = (torch.tensor(label.corners) - middle) / stride * torch.tensor([-1, -1, 1, 1])
            predicted = middle + outputs.reach[image, place] * torch.tensor([-1, -1, 1, 1]) * stride
            giou = generalized_box_iou(predicted[None], torch.tensor([label.corners]))[0, 0]
            ratios = [min(reach[i], reach[i + 2]).clamp(0) / max(reach[i], reach[i + 2]) for i in (0, 1)]
            share, logit = (ratios[0] * ratios[1]).sqrt(), outputs.centre[image, place]
            entropy = -share * torch.log(logit.sigmoid()) - (1 - share) * torch.log(1 - logit.sigmoid())
            rest += 1 - giou + entropy
        kinds = [targets[image][box].label for box in found.box.tolist()]
        even = {kind: math.sqrt(len(kinds) / len(set(kinds)) / kinds.count(kind)) for kind in kinds}
        weights = torch.tensor([[even.get(k, 1.0) if wanted[p, k] else 1.0 for k in (0, 1)] for p in range(len(GRID))])
        focal = (weights * sigmoid_focal_loss(outputs.logits[image], wanted)).sum()
        assert loss.item() == pytest.approx(float((focal + rest) / max(1, len(found.place))), rel=1e-4)


@given(seeds)
@settings(max_examples=20)
def test_losses_are_not_negative_an_images_own_and_hardly_any_for_what_is_right(seed):
    rng = np.random.default_rng(seed)
    targets, outputs = [random_boxes(rng) for _ in range(3)], random_outputs(seed)
    losses = TASK.losses(outputs, TASK.collate(targets))
    assert losses.shape == (3,)
    assert (losses >= 0).all()
    assert TASK.loss(outputs, TASK.collate(targets)).item() == pytest.approx(losses.mean().item(), rel=1e-5)
    for image in range(3):
        own = TASK.losses(part(outputs, image), TASK.collate([targets[image]]))
        torch.testing.assert_close(own[0], losses[image])
    assert (TASK.losses(perfect(targets), TASK.collate(targets)) <= losses).all()


def test_the_distillation_loss_is_that_of_its_definition():
    student, teacher = random_outputs(1, images=2), random_outputs(2, images=2)
    belief = teacher.logits.sigmoid().amax(dim=2)
    either = torch.maximum(belief, student.logits.sigmoid().amax(dim=2))
    total = (either[..., None] * binary_kd_losses(student.logits, teacher.logits, 2.0)).sum()
    for image, place in (belief >= 0.3).nonzero().tolist():
        towards = torch.tensor([-1.0, -1, 1, 1])
        giou = generalized_box_iou(
            student.reach[image, place][None] * towards, teacher.reach[image, place][None] * towards
        )
        share, logit = teacher.centre[image, place].sigmoid(), student.centre[image, place]
        entropy = -share * torch.log(logit.sigmoid()) - (1 - share) * torch.log(1 - logit.sigmoid())
        total += belief[image, place] * (1 - giou[0, 0] + entropy)
    assert TASK.distillation_loss(student, teacher, 2.0).item() == pytest.approx(
        (total / belief.sum()).item(), rel=1e-4
    )


def test_a_teacher_that_sees_nothing_teaches_no_boxes():
    student, empty = random_outputs(1), random_outputs(2)._replace(logits=torch.full((3, len(GRID), 2), -30.0))
    with_other_boxes = student._replace(reach=student.reach + 1, centre=student.centre + 1)
    loss = TASK.distillation_loss(student, empty, 1.0)
    assert torch.isfinite(loss)
    assert loss == TASK.distillation_loss(with_other_boxes, empty, 1.0)


def test_gradients_of_both_losses_are_finite_in_half_precision_too():
    outputs = random_outputs(3)
    half = BoxOutputs(*(v.bfloat16().requires_grad_() for v in outputs[:3]), GRID, LEVELS)
    loss = TASK.loss(half, TASK.collate([(SMALL,), (), (WIDE,)])) + TASK.distillation_loss(half, random_outputs(4), 4.0)
    loss.backward()
    assert all(torch.isfinite(values.grad).all() for values in half[:3])
    assert (
        TASK.decode(
            half._replace(**{name: getattr(half, name).detach() for name in ("logits", "reach", "centre")})
        ).dtype
        == np.float32
    )


@given(seeds)
@settings(max_examples=20)
def test_predictions_are_best_first_inside_the_image_and_apart(seed):
    task = BoxTask(("a", "b"), boxes=12)
    for image in task.decode(random_outputs(seed)):
        rows = image[np.isfinite(image).all(axis=1)].astype(float)
        assert np.isnan(image[len(rows) :]).all()
        assert len(rows) <= 12
        assert (np.diff(rows[:, 4]) <= 0).all()
        assert ((rows[:, :4] >= 0) & (rows[:, :4] <= 1)).all()
        assert ((rows[:, 4] >= LEAST) & (rows[:, 4] <= 1)).all()
        for i, first in enumerate(rows):
            for second in rows[:i]:
                if first[5] == second[5]:
                    near, far = np.maximum(first[:2], second[:2]), np.minimum(first[2:4], second[2:4])
                    common = np.clip(far - near, 0, None).prod()
                    areas = (first[2:4] - first[:2]).prod() + (second[2:4] - second[:2]).prod()
                    assert common <= (OVERLAP + 1e-5) * (areas - common) + 1e-9


def test_boxes_of_different_classes_may_overlap():
    outputs = perfect([(WIDE,)])
    outputs.logits[..., 0] = outputs.logits[..., 1] - 1
    labels = [box.label for box, _ in boxes_of(TASK.decode(outputs)[0], least=0.5)]
    assert sorted(labels) == [0, 1]


@given(seeds)
@settings(max_examples=10)
def test_the_gap_is_the_box_gap_of_the_sure_boxes_to_any_that_the_other_predicts(seed):
    a, b = TASK.decode(random_outputs(seed)), TASK.decode(random_outputs(seed + 1))

    def found(predictions):
        images = [boxes_of(image) for image in predictions]
        return [
            {
                "boxes": np.array([box.corners for box, _ in image]).reshape(-1, 4),
                "labels": [box.label for box, _ in image],
                "scores": [score for _, score in image],
            }
            for image in images
        ]

    np.testing.assert_allclose(TASK.gap(a, b), box_gap(found(a), found(b), score=SURE, least=0.0), atol=1e-6)
    assert TASK.gap(a, a).tolist() == [0, 0, 0]


@given(seeds)
@settings(max_examples=10)
def test_objects_are_the_scores_of_each_class_summed(seed):
    predictions = TASK.decode(random_outputs(seed))
    objects = TASK.objects(predictions)
    assert objects.shape == (3, 2)
    for image, prediction in enumerate(predictions):
        for label in (0, 1):
            scores = [score for box, score in boxes_of(prediction) if box.label == label]
            assert objects[image, label] == pytest.approx(sum(scores))
    assert TASK.objects(np.full((2, 100, 6), np.nan, dtype=np.float32)).tolist() == [[0, 0], [0, 0]]
    assert TASK.objects(predictions[:0]).shape == (0, 2)


def test_each_class_has_a_probability_at_each_cell_and_coarse_places_speak_for_fine_ones():
    outputs = random_outputs(5)
    maps = TASK.distributions(outputs)
    assert maps.shape == (3, 2, *LEVELS[0], 2)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(maps.shape[:-1]))
    fine, coarse = outputs.logits.sigmoid().split([12 * 20, 6 * 10], dim=1)
    for row, column in ((0, 0), (5, 7), (11, 19)):
        here, above = fine[1, row * 20 + column], coarse[1, row // 2 * 10 + column // 2]
        torch.testing.assert_close(maps[1, :, row, column, 0], 1 - (1 - here) * (1 - above))


def test_the_score_is_the_map_and_says_something_of_images_without_boxes():
    predictions = TASK.decode(perfect([(SMALL, WIDE), (SMALL,), ()]))
    assert TASK.score(predictions, [(SMALL,), (SMALL,), ()]) == pytest.approx(1)
    assert TASK.score(predictions, [(SMALL, WIDE), (SMALL, WIDE), ()]) == pytest.approx((1 + 51 / 101) / 2)
    assert TASK.score(predictions[1:], [(), ()]) == 0.5


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([], "No image is labelled"),
        ([(), ()], "None of the 2 labelled images shows a box"),
        ([(), (SMALL,)], None),
        ([[SMALL]], None),
    ],
)
def test_labels_that_cannot_train_a_model_say_why(targets, reason):
    answer = TASK.trainable(targets)
    assert answer is None if reason is None else reason in answer


@pytest.mark.parametrize("targets", [[0], [None], [SMALL], [(SMALL, (0, 0, 1, 1))], ["box"]])
def test_targets_that_are_no_boxes_are_refused(targets):
    for use in (TASK.collate, TASK.trainable, lambda boxes: TASK.score(np.zeros((1, 100, 6)), boxes)):
        with pytest.raises(KdalError, match="must be a tuple of boxes"):
            use(targets)


def test_classes_that_the_task_does_not_have_and_far_too_many_boxes_are_refused():
    with pytest.raises(KdalError, match="class number below 2, not 2"):
        TASK.collate([(Box(0, 0, 1, 1, 2),)])
    with pytest.raises(KdalError, match="10,001 boxes, more than 10,000"):
        TASK.collate([(SMALL,) * 10_001])


def test_predictions_of_another_shape_are_refused():
    good, bad = np.zeros((2, 100, 6)), np.zeros((2, 100, 5))
    for call in (lambda: TASK.gap(bad, good), lambda: TASK.gap(good, bad), lambda: TASK.score(bad, [(), ()])):
        with pytest.raises(KdalError, match=r"must be \(N, K, 6\)"):
            call()
    with pytest.raises(KdalError, match="2 predictions but 1 targets"):
        TASK.score(good, [(SMALL,)])


@pytest.mark.parametrize("settings", [{"classes": ()}, {"classes": ("a", "a")}, {"classes": ("a",), "boxes": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=r"classes|boxes"):
        BoxTask(**settings)


def test_boxes_stay_where_random_views_show_them():
    """A painted box is found again in each view, where the moved label has it, as far as the view shows it."""
    box = Box(0.3, 0.35, 0.6, 0.75)
    image = torch.zeros(3, 60, 100)
    image[:, 21:45, 30:60] = 0.5
    views, targets = TASK.augment(
        image.expand(60, 3, 60, 100).contiguous(), TASK.collate([(box,)] * 60), torch.Generator().manual_seed(0)
    )
    assert (float(views.min()) >= 0, float(views.max()) <= 1) == (True, True)
    compared, middles = 0, []
    for view, corners in zip(views, targets["corners"][:, 0].numpy(), strict=True):
        if not np.isfinite(corners).all():
            continue
        bright = (view[1] > view[1].max() / 2).numpy()
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(corners * [100, 60, 100, 60], seen, atol=1.01)
        compared += 1
        middles.append((corners[0] + corners[2]) / 2)
    assert compared > 55
    assert min(middles) < 0.45 < 0.55 < max(middles)


def test_views_keep_the_colours_that_tell_objects_apart():
    image = torch.full((3, 12, 20), 0.5) * torch.tensor([0.6, 0.8, 1.0])[:, None, None]
    views, _ = TASK.augment(image.expand(16, 3, 12, 20).contiguous(), TASK.collate([(SMALL,)] * 16), torch.Generator())
    bright = views[:, :, 6, 10]
    torch.testing.assert_close(bright / bright[:, 2:], torch.tensor([[0.6, 0.8, 1.0]]).expand(16, 3))
    assert bright[:, 2].std() > 0.02


def test_a_box_that_has_all_but_left_the_view_is_none_and_its_loss_no_nan():
    """Boxes in the corner leave many views."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(40, 3, *SIZE)
    _, targets = TASK.augment(images, TASK.collate([(Box(0, 0, 0.06, 0.06),)] * 40), generator)
    gone = torch.isnan(targets["corners"]).all(dim=(1, 2))
    assert 0 < gone.sum() < 40
    assert torch.isfinite(TASK.losses(random_outputs(0, images=40), targets)).all()


def test_views_are_a_function_of_the_generator(random_state_is_kept):
    images, targets = torch.zeros(16, 3, 12, 20), TASK.collate([(SMALL,)] * 16)
    first, again, other = (TASK.augment(images, targets, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[1]["corners"].nan_to_num(-1), again[1]["corners"].nan_to_num(-1))
    assert not torch.equal(first[1]["corners"].nan_to_num(-1), other[1]["corners"].nan_to_num(-1))


PLATE = BoxTask(("white", "red"))


def plates(count, seed):
    """(N, 3, 48, 64) uint8 dark images with up to three bright rectangles, some of them red, and their boxes."""
    rng = np.random.default_rng(seed)
    images, targets = rng.integers(0, 40, (count, 48, 64, 3)), []
    for image in images:
        boxes = []
        for column in rng.permutation(3)[: rng.integers(0, 4)]:
            x, y = 21 * column + rng.integers(0, 6), rng.integers(0, 30)
            wide, high = rng.integers(8, 15), rng.integers(8, 17)
            label = int(rng.integers(0, 2))
            image[y : y + high, x : x + wide] = (230, 40, 40) if label else (230, 230, 230)
            boxes.append(Box(x / 64, y / 48, (x + wide) / 64, (y + high) / 48, label))
        targets.append(tuple(boxes))
    return torch.from_numpy(images.astype(np.uint8)).permute(0, 3, 1, 2).contiguous(), targets


@pytest.fixture(scope="module")
def learnt():
    """A network after some dozen steps."""
    model = PLATE.build("tiny_boxes", (48, 64))
    config = TrainConfig(min_steps=150, max_steps=150, batch_size=16, lr=5e-3, device="cpu")
    train(PLATE, model, *plates(200, seed=0), config)
    return model


def test_some_dozen_steps_on_bright_rectangles_teach_to_find_them_and_their_colour(learnt):
    images, targets = plates(60, seed=1)
    before = PLATE.score(infer(PLATE, PLATE.build("tiny_boxes", (48, 64)), images).predictions, targets)
    after = PLATE.score(infer(PLATE, learnt, images).predictions, targets)
    assert before < 0.1
    assert after > 0.6


def test_probabilities_are_higher_where_a_box_is(learnt):
    images, targets = plates(30, seed=2)
    maps = infer(PLATE, learnt, images, distributions=True).distributions[..., 0].max(axis=1)  # (N, 6, 8)
    inside, outside = [], []
    y, x = np.meshgrid((np.arange(6) + 0.5) / 6, (np.arange(8) + 0.5) / 8, indexing="ij")
    for image, boxes in zip(maps, targets, strict=True):
        near = np.zeros((6, 8), dtype=bool)
        for box in boxes:
            near |= (box.left - 0.1 < x) & (x < box.right + 0.1) & (box.top - 0.1 < y) & (y < box.bottom + 0.1)
            middle = (abs(x - (box.left + box.right) / 2) < 1 / 16) & (abs(y - (box.top + box.bottom) / 2) < 1 / 12)
            inside += image[middle].tolist()
        outside += image[~near].tolist()
    assert np.mean(inside) > np.mean(outside) + 0.2


def test_the_features_of_a_box_are_those_of_the_place_that_found_it():
    outputs = random_outputs(4)
    marks = torch.arange(len(GRID), dtype=torch.float32).expand(len(outputs.logits), -1)[..., None] + 1
    found = TASK.object_features(outputs._replace(places=marks))[..., 0].numpy()
    boxes = TASK.decode(outputs)
    assert ((found > 0) == np.isfinite(boxes[..., 0])).all()
    for image, rows in enumerate(boxes):
        for place, row in zip(found[image], rows, strict=True):
            if place > 0:
                number = int(place) - 1
                logit, centre = outputs.logits[image, number, int(row[5])], outputs.centre[image, number]
                assert row[4] == pytest.approx(float((logit.sigmoid() * centre.sigmoid()).sqrt()), abs=1e-5)


def test_a_class_is_difficult_as_far_as_its_boxes_are_not_found():
    labelled = [(Box(0.0, 0.0, 0.5, 0.5), Box(0.6, 0.6, 1.0, 1.0)), ()]
    nothing = np.full((2, 3, 6), np.nan, dtype=np.float32)
    assert TASK.class_difficulty(nothing, labelled).tolist() == [1.0, 1.0]
    found = nothing.copy()
    found[0, 0] = [0.0, 0.0, 0.5, 0.25, 0.8, 0]  # half of the first box
    found[0, 1] = [0.6, 0.6, 1.0, 1.0, 0.9, 1]  # of the other class
    expected = (1 - 0.8**0.6 * 0.5**0.4 + 1.0) / 2
    assert TASK.class_difficulty(found, labelled) == pytest.approx([expected, 1.0], abs=1e-6)
