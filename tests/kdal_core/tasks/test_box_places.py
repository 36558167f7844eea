import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdal_core.models.fcos import BoxOutputs, grid_levels, place_grid
from kdal_core.tasks import Box
from kdal_core.tasks.box_places import class_weights, match, probability_maps
from tests.kdal_core.tasks.box_samples import GRID, LEVELS, SIZE, TASK, random_boxes

seeds = st.integers(0, 10_000)


@given(seeds)
@settings(max_examples=30)
def test_each_place_learns_the_smallest_box_that_it_may_learn(seed):
    """Against the rule, place by place and box by box."""
    targets = [random_boxes(np.random.default_rng(seed), most=6)]
    collated = TASK.collate(targets)
    found = match(collated["corners"], GRID, LEVELS)
    chosen = dict(zip(found.place.tolist(), found.box.tolist(), strict=True))
    place, height, width = 0, *SIZE
    for number, (rows, columns) in enumerate(LEVELS):
        stride = 8 * 2**number
        for row in range(rows):
            for column in range(columns):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                may = []
                for index, box in enumerate(targets[0]):
                    left, top, right, bottom = np.array(box.corners) * [width, height, width, height]
                    across, down = max((right - left) / 2, stride / 2), max((bottom - top) / 2, stride / 2)
                    beside = abs(x - (left + right) / 2), abs(y - (top + bottom) / 2)
                    far = max(beside[0] + (right - left) / 2, beside[1] + (bottom - top) / 2) / stride
                    margins = [across - beside[0], down - beside[1], 1.5 * stride - max(beside), far - 4, 8 - far]
                    if min(abs(margin) for margin in margins) < 1e-3:
                        may = None  # on the border of the rule: either is right
                        break
                    level = (far > 4 or number == 0) and (far <= 8 or number == len(LEVELS) - 1)
                    if min(margins[:3]) > 0 and level:
                        may.append(((right - left) * (bottom - top), index))
                if may is not None:
                    assert chosen.get(place) == (min(may)[1] if may else None)
                place += 1


@given(seeds)
@settings(max_examples=30)
def test_however_small_a_box_is_some_place_learns_it_where_no_other_box_is(seed):
    rng = np.random.default_rng(seed)
    left, top = rng.uniform(0.02, 0.97, 2)
    box = Box(left, top, left + 0.002, top + 0.002)
    assert match(TASK.collate([(box,)])["corners"], GRID, LEVELS).counts.tolist()[0] >= 1


def test_thousands_of_boxes_are_matched_as_if_their_image_were_alone():
    rng = np.random.default_rng(0)
    near = rng.uniform(0, 0.9, (3000, 2))
    boxes = tuple(Box(x, y, x + 0.05, y + 0.08) for x, y in near)
    both = match(TASK.collate([boxes[:10], boxes])["corners"], GRID, LEVELS)
    alone = match(TASK.collate([boxes])["corners"], GRID, LEVELS)
    assert both.counts.tolist() == [(both.image == 0).sum(), len(alone.box)]
    assert torch.equal(both.box[both.image == 1], alone.box)
    assert torch.equal(both.place[both.image == 1], alone.place)


def test_rare_classes_weigh_more_in_their_own_image_and_no_place_at_all_is_no_nan():
    wanted = torch.zeros(3, 12, 2)
    wanted[0, :9, 0] = wanted[0, 9:10, 1] = 1
    wanted[1, :4, 0] = 1
    weights = class_weights(wanted)
    torch.testing.assert_close(weights[0], torch.tensor([5 / 9, 5.0]).sqrt())
    assert weights[1, 0] == 1
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(class_weights(wanted[:1])[0], weights[0])


def test_large_maps_are_joined_so_that_the_likeliest_cell_counts():
    levels = grid_levels((400, 800))
    grid = place_grid((400, 800), levels)
    logits = torch.full((1, len(grid), 1), -30.0)
    logits[0, 57, 0] = 2.0
    maps = probability_maps(BoxOutputs(logits, torch.ones(1, len(grid), 4), logits[..., 0], grid, levels))
    assert maps.shape == (1, 1, 17, 34)
    assert maps[0, 0, 0, 19].item() == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert (maps > 0.5).sum() == 1
