import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.tasks.augmentation import moved, random_affine, random_colours, random_matrices, warped

HEIGHT, WIDTH = 60, 100
OPTIONS = {"degrees": 8.0, "shift": 0.1, "zoom": 0.2}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def spots(places, width=3.0):
    """(B, 3, H, W): a bright spot at each place (B, 2), given as shares of width and height."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    at = places * torch.tensor([WIDTH, HEIGHT])
    distance = (x - at[:, 0, None, None]) ** 2 + (y - at[:, 1, None, None]) ** 2  # (B, H, W)
    return torch.exp(-distance / (2 * width**2))[:, None].expand(-1, 3, -1, -1)


def brightest(images):
    """(B, 2) x and y of the brightest pixel's middle, in pixels."""
    flat = images[:, 0].flatten(1).argmax(dim=1)
    return torch.stack([flat % WIDTH + 0.5, flat // WIDTH + 0.5], dim=1)


@given(st.integers(0, 10_000), st.booleans())
def test_points_are_moved_to_where_the_view_shows_them(seed, mirrored):
    places = 0.3 + 0.4 * torch.rand(4, 2, generator=generator(seed))
    images = spots(places)
    matrices = random_matrices(images, generator(seed), **OPTIONS, mirrored=mirrored)
    expected = moved(places, matrices) * torch.tensor([WIDTH, HEIGHT])
    assert (brightest(warped(images, matrices)) - expected).abs().max() < 1.0


@given(st.integers(0, 10_000))
def test_views_are_those_that_torchs_own_grid_gives(seed):
    images = torch.rand(3, 3, HEIGHT, WIDTH, generator=generator(seed))
    matrices = random_matrices(images, generator(seed), **OPTIONS)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    expected = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    assert torch.allclose(warped(images, matrices), expected, atol=1e-4)


def test_about_half_of_the_views_are_mirrored_and_only_where_asked_for():
    images = torch.zeros(400, 3, 4, 6)
    for mirrored, low, high in ((False, 0, 0), (True, 160, 240)):
        matrices = random_matrices(images, generator(0), degrees=5, shift=0.1, zoom=0.1, mirrored=mirrored)
        assert low <= (torch.linalg.det(matrices[:, :, :2]) < 0).sum() <= high


def test_a_mirrored_view_without_any_other_change_is_the_mirror_image():
    images = torch.rand(40, 3, 6, 9, generator=generator(1))
    matrices = random_matrices(images, generator(1), degrees=0, shift=0, zoom=0, mirrored=True)
    views, points = warped(images, matrices), moved(torch.tensor([[0.2, 0.7]]).expand(40, 1, 2), matrices)
    flipped = matrices[:, 0, 0] < 0
    assert flipped.any()
    assert not flipped.all()
    torch.testing.assert_close(views[flipped], images[flipped].flip(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(views[~flipped], images[~flipped], atol=1e-5, rtol=0)
    torch.testing.assert_close(points[flipped], torch.tensor([0.8, 0.7]).expand(int(flipped.sum()), 1, 2))


def test_points_that_are_none_stay_none_and_shapes_are_kept():
    points = torch.rand(3, 2, 5, 2)
    points[1, 0] = torch.nan
    matrices = random_matrices(torch.zeros(3, 3, 8, 8), generator(2), **OPTIONS, mirrored=True)
    assert moved(points, matrices).shape == points.shape
    assert torch.equal(torch.isnan(moved(points, matrices)), torch.isnan(points))


def test_views_of_classified_images_are_what_they_have_always_been():
    images = torch.arange(2 * 3 * 6 * 10).reshape(2, 3, 6, 10) / 360
    found = random_affine(images, generator(5))[:, 1, ::2, 3]
    # what kdal computed before lanes came: campaigns that were run then can be run again
    expected = [[0.17736745, 0.23456080, 0.29351720], [0.67430985, 0.72774506, 0.78638881]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_other_light_changes_every_pixel_of_a_channel_by_the_same_factor():
    images = 0.1 + 0.5 * torch.rand(50, 3, 4, 5, generator=generator(3))  # too dark to be cut off at 1
    ratio = random_colours(images, generator(3)) / images
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    gains = ratio[:, :, 0, 0]
    assert gains.min() >= 0.75 * 0.9 - 1e-6
    assert gains.max() <= 1.25 * 1.1 + 1e-6
    brightness = gains.mean(dim=1)
    assert brightness.std() > gains.std(dim=1).mean() > 0.01  # mostly the image as a whole, its channels a little


def test_light_stays_in_range_and_is_a_function_of_the_generator(random_state_is_kept):
    images = torch.ones(8, 3, 2, 2)
    first, again, other = (random_colours(images, generator(seed)) for seed in (1, 1, 2))
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(random_colours(images, generator(1), brightness=0, tint=0), images)


@pytest.mark.parametrize("mirrored", [False, True])
def test_matrices_are_a_function_of_the_generator(mirrored, random_state_is_kept):
    images = torch.zeros(8, 3, 4, 6)
    first, again, other = (random_matrices(images, generator(seed), **OPTIONS, mirrored=mirrored) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
