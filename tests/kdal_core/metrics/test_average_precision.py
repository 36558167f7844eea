import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from kdal_core.errors import KdalError
from kdal_core.metrics import mean_average_precision


def table(*rows):
    """Boxes x1, y1, x2, y2, label, score."""
    array = np.array(rows, dtype=float).reshape(-1, 6)
    return {"boxes": array[:, :4], "labels": array[:, 4].astype(int), "scores": array[:, 5]}


def brute_force(pred, gt, iou):
    """Average precision by its definition: matches best first, precision made monotone, read at 101 recalls."""
    found = []
    for label in sorted({int(n) for image in gt for n in image["labels"]}):
        hits, total = [], sum(int((image["labels"] == label).sum()) for image in gt)
        for own, other in zip(pred, gt, strict=True):
            mine, theirs = own["labels"] == label, other["labels"] == label
            boxes, scores, wanted = own["boxes"][mine], own["scores"][mine], other["boxes"][theirs]
            taken = np.zeros(len(wanted), dtype=bool)
            for number in np.argsort(-scores, kind="stable"):
                overlap = box_iou(torch.tensor(boxes[[number]]), torch.tensor(wanted))[0].numpy().copy()
                overlap[taken] = -1
                hit = len(overlap) > 0 and overlap.max() >= iou
                if hit:
                    taken[overlap.argmax()] = True
                hits.append((scores[number], hit))
        ranked = np.array([hit for _, hit in sorted(hits, key=lambda pair: -pair[0])], dtype=float)
        tp = np.cumsum(ranked)
        recall, precision = tp / total, tp / np.arange(1, len(tp) + 1)
        at = [precision[recall >= step].max(initial=0.0) for step in np.linspace(0, 1, 101)]
        found.append(np.mean(at))
    return np.mean(found)


def random_images(rng, count=3):
    images = []
    for _ in range(count):
        corners = rng.uniform(0, 0.6, (rng.integers(1, 5), 2))
        boxes = np.concatenate([corners, corners + rng.uniform(0.1, 0.4, corners.shape)], axis=1)
        scores = rng.permutation(np.arange(1, 101))[: len(boxes)] / 100
        images.append({"boxes": boxes, "labels": rng.integers(0, 2, len(boxes)), "scores": scores})
    return images


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.75]))
@example(2964, 0.3)
@settings(max_examples=25)
def test_it_is_that_of_its_definition(seed, iou):
    rng = np.random.default_rng(seed)
    gt = random_images(rng)
    pred = [
        {**image, "boxes": image["boxes"] + rng.normal(0, 0.02, image["boxes"].shape) * [1, 1, 0, 0]} for image in gt
    ]
    pred[0] = random_images(rng, 1)[0]
    for number, image in enumerate(pred):  # no two scores alike: ties have no order
        image["scores"] = image["scores"] + number * 1e-4
    # recalls that equal one of the 101 but for their last bit may count to either side: a 101st in all, in float32
    assert mean_average_precision(pred, gt, iou) == pytest.approx(brute_force(pred, gt, iou), abs=1 / 101 + 1e-6)


def test_known_answers():
    right, wrong = (0, 0, 4, 4, 0, 0.9), (8, 8, 9, 9, 0, 0.8)
    assert mean_average_precision([table(right)], [table(right)]) == pytest.approx(1)
    assert mean_average_precision([table()], [table(right)]) == 0
    assert mean_average_precision([table(right)], [table(right, wrong)], 0.5) == pytest.approx(51 / 101)
    # the wrong one comes first: precision is a half at every recall
    assert mean_average_precision([table(right, (8, 8, 9, 9, 0, 0.95))], [table(right)], 0.5) == pytest.approx(0.5)
    # a class that is nowhere labelled does not count
    assert mean_average_precision([table(right, (0, 0, 4, 4, 7, 0.9))], [table(right)], 0.5) == pytest.approx(1)


def test_shares_of_the_image_do_as_well_as_pixels():
    pixels = [table((0, 0, 640, 480, 0, 0.9), (10, 10, 50, 30, 1, 0.8))]
    labels = [table((0, 0, 600, 480, 0, 1), (12, 10, 50, 33, 1, 1))]
    shares = [
        [{**image, "boxes": image["boxes"] / [640, 480, 640, 480]} for image in images] for images in (pixels, labels)
    ]
    assert mean_average_precision(*shares) == pytest.approx(mean_average_precision(pixels, labels))


def test_more_boxes_than_cocos_hundred_count_where_they_are_asked_for():
    many = table(*[(i, 0, i + 1, 1, 0, 1 - i / 1000) for i in range(150)])
    assert mean_average_precision([many], [many], 0.5) == pytest.approx(67 / 101)  # recalls 0 to .66
    assert mean_average_precision([many], [many], 0.5, most=150) == pytest.approx(1)


@pytest.mark.parametrize(
    ("pred", "gt", "reason"),
    [
        ([table()], [], "1 images and gt 0"),
        ([table()], [table()], "holds no box"),
        ([{"boxes": [[0, 0, 1]], "labels": [0], "scores": [1]}], [table((0, 0, 1, 1, 0, 1))], r"pred\[0\]\['boxes'\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(pred, gt, reason):
    with pytest.raises(KdalError, match=reason):
        mean_average_precision(pred, gt)


def test_the_iou_is_a_share():
    with pytest.raises(KdalError, match="iou must lie between 0 and 1"):
        mean_average_precision([table()], [table((0, 0, 1, 1, 0, 1))], 50)
