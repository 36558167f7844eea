from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.errors import KdalError
from kdal_core.metrics import tusimple
from kdal_core.metrics.lane_f1 import lane_f1, lane_matches

ROWS = 20
NEAR = 20 / 1280  # share of the width, for an upright lane
ABSENT = np.full(ROWS, np.nan)
NONE = np.empty((0, ROWS))
seeds = st.integers(0, 10_000)


def upright(*xs, rows=slice(None)):
    """(n, ROWS): lanes that stand at these x in these rows."""
    lanes = np.full((len(xs), ROWS), np.nan)
    lanes[:, rows] = np.array(xs)[:, None]
    return lanes


def random_lanes(rng, most=4):
    """Lanes at three feet, so that some match, leaning, covering any rows from two on."""
    lanes = np.full((rng.integers(0, most), ROWS), np.nan)
    for lane in lanes:
        first, last = sorted(rng.choice(ROWS + 1, 2, replace=False))
        last = max(last, min(first + 2, ROWS))
        x = 0.2 + 0.2 * rng.integers(0, 3) + rng.normal(0, NEAR / 2) + np.arange(ROWS) * rng.normal(0, 0.01)
        lane[first:last] = x[first:last]
    return lanes


def by_the_definition(pred, gt, aspect=9 / 16):
    """True positives: the most pairs of matching lanes, over all ways to pair them."""
    covered = [row for lane in [*pred, *gt] for row in range(ROWS) if np.isfinite(lane[row])]
    matching = np.zeros((len(gt), len(pred)), dtype=bool)
    for i, label in enumerate(gt):
        own = np.flatnonzero(np.isfinite(label))
        y = (own + 0.5) / ROWS * aspect * 1280
        slope = np.polyfit(y, 1280 * label[own], 1)[0] if len(own) > 1 else 0.0
        limit = 20 / np.cos(np.arctan(slope))
        for j, found in enumerate(pred):
            both = [row for row in own if np.isfinite(found[row]) and 1280 * abs(label[row] - found[row]) < limit]
            rows = range(min(covered), ROWS)
            neither = [row for row in rows if np.isnan(label[row]) and np.isnan(found[row])]
            matching[i, j] = len(both) + len(neither) >= 0.85 * len(rows) and 2 * len(both) > len(own)
    size = max(matching.shape)
    padded = np.zeros((size, size), dtype=bool)
    padded[: len(gt), : len(pred)] = matching
    return max((int(padded[range(size), list(order)].sum()) for order in permutations(range(size))), default=0)


@given(seeds)
def test_lanes_are_matched_by_the_definition_in_the_best_of_all_pairings(seed):
    rng = np.random.default_rng(seed)
    pred, gt = random_lanes(rng), random_lanes(rng)
    tp, fp, fn = lane_matches(pred, gt)
    assert tp == by_the_definition(pred, gt)
    assert (tp + fp, tp + fn) == (len(pred), len(gt))


@given(seeds)
def test_the_order_of_lanes_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    pred, gt = random_lanes(rng, 6), random_lanes(rng, 6)
    assert lane_matches(rng.permutation(pred), rng.permutation(gt)) == lane_matches(pred, gt)


@given(seeds)
def test_lanes_that_are_predicted_as_they_are_labelled_are_found(seed):
    lanes = random_lanes(np.random.default_rng(seed))
    assert lane_matches(lanes, lanes) == (len(lanes), 0, 0)


@given(seeds, st.floats(0.9, 1.1), st.floats(-0.03, 0.03), st.floats(-0.01, 0.01))
def test_a_pair_over_all_rows_matches_when_tusimple_says_so(seed, stretch, shift, lean):
    y = (np.arange(ROWS) + 0.5) / ROWS
    label = 0.5 + np.random.default_rng(seed).uniform(-0.3, 0.3) * (y - 0.5)
    found = label * stretch + shift + lean * y
    _, fp, fn = tusimple([1280 * found], [1280 * label], y * 720, 10.0)
    assert lane_matches(found[None], label[None]) == (1 - fn, fp, fn)


@pytest.mark.parametrize(("offset", "found"), [(0.0, 1), (0.99 * NEAR, 1), (1.01 * NEAR, 0), (-0.99 * NEAR, 1)])
def test_an_upright_lane_is_found_within_20_pixels_of_1280(offset, found):
    assert lane_matches(upright(0.5 + offset), upright(0.5)) == (found, 1 - found, 1 - found)


@pytest.mark.parametrize(("offset", "found"), [(0.99, 1), (1.01, 0)])
@pytest.mark.parametrize("aspect", [9 / 16, 0.36])
def test_a_lane_that_leans_may_be_missed_by_more_sideways(offset, found, aspect):
    y = (np.arange(ROWS) + 0.5) / ROWS
    lane = (0.1 + 0.75 * aspect * y)[None]  # three pixels right for each four down: 1 / cos(a) = 1.25
    assert lane_matches(lane + offset * 1.25 * NEAR, lane, aspect)[0] == found


def test_a_lane_is_found_from_17_rows_of_20_on():
    for wrong, found in ((3, 1), (4, 0)):
        guess = upright(0.5)
        guess[0, :wrong] = 0.8
        assert lane_matches(guess, upright(0.5))[0] == found
        guess[0, :wrong] = np.nan
        assert lane_matches(guess, upright(0.5))[0] == found


def test_rows_above_all_lanes_of_the_image_do_not_count():
    label, guess = upright(0.5, rows=slice(10, None)), upright(0.5, rows=slice(12, None))
    assert lane_matches(guess, label)[0] == 0  # 8 rows of 10
    far = upright(0.9)  # a lane over all rows
    assert lane_matches(np.concatenate([guess, far]), np.concatenate([label, far]))[0] == 2  # 18 of 20


def test_one_predicted_lane_finds_one_labelled_lane_and_the_other_way_round():
    one, two = upright(0.5), upright(0.5, 0.5 + NEAR / 2)
    assert lane_matches(one, two) == (1, 0, 1)
    assert lane_matches(two, one) == (1, 1, 0)
    assert lane_matches(two, two) == (2, 0, 0)


def test_lanes_are_paired_so_that_the_most_are_found():
    step = 0.8 * NEAR
    labels, guesses = upright(0.5, 0.5 + step), upright(0.5 + step, 0.5 + 2 * step)
    for order in ([0, 1], [1, 0]):  # the lane in the middle is near both labels, the other near one
        assert lane_matches(guesses[order], labels) == (2, 0, 0)


@given(seeds, st.floats(1.01, 20), st.booleans())
def test_a_lane_of_any_length_that_is_moved_beyond_the_threshold_is_not_found(seed, distance, left):
    rng = np.random.default_rng(seed)
    first, last = sorted(rng.choice(ROWS + 1, 2, replace=False))
    label = upright(0.4, rows=slice(first, last))
    away = label + distance * NEAR * (-1 if left else 1)
    beside = upright(0.9)  # a lane over all rows, that makes the rows without the short one count
    assert lane_matches(away, label) == (0, 1, 1)
    assert lane_matches(np.concatenate([away, beside]), np.concatenate([label, beside])) == (1, 1, 1)


def test_a_lane_without_any_row_is_never_found():
    assert lane_matches(ABSENT[None], ABSENT[None]) == (0, 1, 1)
    assert lane_matches(upright(0.2, rows=slice(0, 2)), ABSENT[None]) == (0, 1, 1)


def test_images_without_lanes():
    two = upright(0.3, 0.6)
    assert lane_matches(NONE, NONE) == (0, 0, 0)
    assert lane_matches(two, NONE) == (0, 2, 0)
    assert lane_matches(NONE, two) == (0, 0, 2)


def test_f1_is_that_of_all_lanes_of_all_images():
    two, one = upright(0.3, 0.6), upright(0.3)
    assert lane_f1([two, one, NONE], [one, two, NONE]) == pytest.approx(2 / 3)  # tp 2, fp 1, fn 1
    assert lane_f1([two, NONE], [two, one]) == pytest.approx(0.8)  # tp 2, fn 1
    assert lane_f1([one], [upright(0.9)]) == 0.0


def test_f1_is_one_where_nothing_is_labelled_and_nothing_predicted():
    assert lane_f1([NONE], [NONE]) == lane_f1([], []) == 1.0
    assert lane_f1([NONE], [upright(0.5)]) == lane_f1([upright(0.5)], [NONE]) == 0.0


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(KdalError, match="pred"):
        lane_matches(np.zeros((1, 4)), np.zeros((1, 5)))
    with pytest.raises(KdalError, match="pred"):
        lane_matches(np.zeros(4), np.zeros((1, 4)))
    with pytest.raises(KdalError, match="pred has 1 images and gt 2"):
        lane_f1([NONE], [NONE, NONE])
