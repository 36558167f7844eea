import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.distillation import PairPool, mix_images, mixup_pairs, pool_of_images
from kdal_core.errors import KdalError

MODES = st.sampled_from(["all", "code"])


def test_all_pairs_are_those_of_itertools_in_their_order():
    for n in range(2, 12):
        assert mixup_pairs(n).tolist() == [list(pair) for pair in itertools.combinations(range(n), 2)]
        assert mixup_pairs(n).dtype == np.int64


@pytest.mark.parametrize("n", [2, 3, 4, 7, 10, 11])
def test_the_pairs_of_the_public_code_are_all_but_half_an_even_number_of_images(n):
    found = {tuple(pair) for pair in mixup_pairs(n, mode="code").tolist()}
    missing = {(i, i + n // 2) for i in range(n // 2)} if n % 2 == 0 else set()
    assert found == set(itertools.combinations(range(n), 2)) - missing
    assert len(mixup_pairs(n, mode="code")) == len(found)


@given(st.integers(2, 60), MODES)
def test_any_stretch_of_pairs_can_be_had_alone_and_numbered_again(n, mode):
    pool, whole = PairPool(n, mode), mixup_pairs(n, mode)
    assert len(pool) == len(whole)
    positions = np.arange(len(whole))[::3]
    assert np.array_equal(pool.pairs(positions), whole[::3])
    assert np.array_equal(pool.positions(whole), np.arange(len(whole)))
    assert np.array_equal(pool.positions(whole[:, ::-1]), np.arange(len(whole)))


def test_the_pairs_of_a_hundred_thousand_images_are_numbered_without_being_listed():
    pool = PairPool(100_000)
    last = np.array([0, len(pool) - 1])
    assert pool.pairs(last).tolist() == [[0, 1], [99_998, 99_999]]
    some = np.array([[0, 99_999], [50_000, 50_001], [31_415, 92_653]])
    assert np.array_equal(pool.pairs(pool.positions(some)), some)


def test_a_pair_that_the_public_code_misses_has_no_number():
    assert PairPool(6, "code").positions(np.array([[0, 3], [0, 2]])).tolist() == [-1, 6]


@pytest.mark.parametrize("n", [-1, 0, 1, 2.0, True])
def test_fewer_than_two_images_have_no_pairs(n):
    with pytest.raises(KdalError, match=r"two images|whole number"):
        mixup_pairs(n)


def test_an_unknown_pool_is_refused():
    with pytest.raises(KdalError, match="mode"):
        mixup_pairs(4, mode="rotations")


@given(st.integers(0, 255), st.integers(0, 255), st.floats(0, 1))
def test_a_mix_is_the_rounded_mean_that_lambda_weighs_by_the_first_image(a, b, weight):
    images = torch.tensor([a, b], dtype=torch.uint8).view(2, 1, 1, 1)
    exact = weight * a + (1 - weight) * b
    assert abs(mix_images(images, [[0, 1]], [weight]).item() - exact) <= 0.5 + 1e-3


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.3, 1 / 3, 0.5, 0.7, 0.9, 1.0])
def test_white_mixed_with_white_is_white_to_the_teacher(weight):
    """The paper's code turns 255 into 0 where it writes 8 bits."""
    white = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    assert mix_images(white, [[0, 1]], [weight]).eq(255).all()


def test_any_grey_mixed_with_itself_stays():
    greys = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 1, 1, 1)
    for weight in np.linspace(0, 1, 51):
        assert torch.equal(mix_images(greys, [[0, 1]], [weight])[0], greys[0])


@pytest.mark.parametrize(
    ("pairs", "lambdas"),
    [([[0, 2]], [0.5]), ([[0, 0]], [0.5]), ([[0, 1]], [1.5]), ([[0, 1]], [0.5, 0.5]), ([[0.0, 1.0]], [0.5])],
)
def test_mixes_that_there_are_none_of_are_refused(pairs, lambdas):
    with pytest.raises(KdalError):
        mix_images(torch.zeros(2, 3, 2, 2, dtype=torch.uint8), pairs, lambdas)


def grey(count, height=4, width=4):
    return torch.randint(0, 256, (count, 1, height, width), dtype=torch.uint8)


def test_grey_images_become_three_equal_channels():
    images = grey(3)
    pool = pool_of_images(images)
    assert pool.shape == (3, 3, 4, 4)
    assert all(torch.equal(pool[:, channel], images[:, 0]) for channel in range(3))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (grey(1), "two images, not 1"),
        ([], "two images, not 0"),
        ([grey(1)[0], grey(1, 5, 4)[0]], "4 x 4 pixels, image 1 .* 5 x 4"),
        ([grey(1)[0], grey(1)[0].repeat(3, 1, 1)], "grey and colour"),
        (torch.rand(3, 3, 4, 4), "uint8"),
        (grey(2).repeat(1, 4, 1, 1), "uint8"),
    ],
)
def test_images_that_cannot_be_mixed_are_refused_in_words(images, words):
    with pytest.raises(KdalError, match=words):
        pool_of_images(images)


def test_grey_and_colour_in_three_channels_each_are_refused_unless_asked_for():
    images = grey(4).repeat(1, 3, 1, 1)
    images[2, 0] = 255 - images[2, 0]
    with pytest.raises(KdalError, match=r"3 images are grey and 1 have colours \(image 2"):
        pool_of_images(images)
    assert torch.equal(pool_of_images(images, mixed_colours=True), images)
