from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from kdal_core.acquisition import PoolScores, cold_start, cold_start_features, strategy, thumbnails_tell
from kdal_core.acquisition.cold_start import WIDTH
from kdal_core.errors import KdalError
from kdal_core.tasks import FirstLook

LOOKS = get_args(FirstLook)


def digit_images(count):
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels[:count] * 255 / 16).round().to(torch.uint8)
    return images.view(-1, 1, 8, 8).repeat(1, 3, 1, 1), labels[:count]


class Lazy:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_features_have_a_row_for_each_image_and_at_most_32_columns():
    images, _ = digit_images(100)
    features = cold_start_features(images)
    assert features.shape == (100, 32)
    assert features.dtype == np.float32


@pytest.mark.parametrize("look", LOOKS)
def test_features_do_not_depend_on_how_images_are_read(look):
    images, _ = digit_images(100)
    whole, parts = (
        cold_start_features(each, look=look, batch_size=size) for each, size in ((images, 256), (Lazy(images), 7))
    )
    np.testing.assert_allclose(parts, whole, atol=1e-4)
    assert np.array_equal(cold_start(parts).indices, cold_start(whole).indices)


@pytest.mark.parametrize("size", [(4, 4), (16, 16), (100, 37)])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("look", LOOKS)
def test_few_images_of_any_size_have_features_and_an_order(look, count, size):
    images = torch.randint(0, 255, (count, 3, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    order = cold_start(cold_start_features(images, look=look))
    assert sorted(order.indices.tolist()) == list(range(count))


@pytest.mark.parametrize("look", LOOKS)
def test_a_pool_of_one_blank_image_is_in_order_of_its_index(look):
    images = torch.zeros(20, 3, 8, 8, dtype=torch.uint8)
    assert sorted(cold_start(cold_start_features(images, look=look)).indices.tolist()) == list(range(20))


def test_the_first_fifty_digits_show_every_class():
    images, labels = digit_images(1000)
    first = cold_start(cold_start_features(images)).indices[:50]
    assert set(labels[first]) == set(range(10))


def test_light_can_be_left_out_of_account():
    images, _ = digit_images(60)
    dark = torch.cat([images, (images.float() * 0.4 + 30).round().to(torch.uint8)])
    for look, alike in (("even_thumbnails", True), ("thumbnails", False)):
        features = cold_start_features(dark, look=look)
        to_twin = np.linalg.norm(features[:60] - features[60:], axis=1)
        to_other = np.linalg.norm(features[:60] - np.roll(features[:60], 1, axis=0), axis=1)
        assert (to_twin.max() < 0.2 * to_other.mean()) == alike


def test_light_that_is_left_out_of_account_makes_no_noise_of_blank_images():
    blank = torch.full((20, 3, 16, 16), 90, dtype=torch.uint8)
    blank[::2, :, 0, 0] += 1
    images, _ = digit_images(20)
    shown = torch.nn.functional.interpolate(images.float(), size=(16, 16)).to(torch.uint8)
    features = cold_start_features(torch.cat([blank, shown]), look="even_thumbnails")
    assert np.ptp(features[:20], axis=0).max() < 0.1 * np.ptp(features[20:], axis=0).max()


def test_by_colours_pictures_are_alike_that_show_the_same_kinds_of_objects_wherever_these_lie():
    rng, y, x = np.random.default_rng(0), *np.mgrid[:96, :128]
    spotted, pictures = np.arange(60) % 2 == 0, []
    for spots in spotted:  # red discs in all of them, small violet spots in every other one
        picture = np.full((96, 128, 3), 225)
        for radius, colour in [(9, (200, 80, 80))] * int(rng.integers(3, 9)) + [(4, (110, 50, 170))] * (3 * spots):
            row, column = rng.integers(10, 86), rng.integers(10, 118)
            picture[np.hypot(y - row, x - column) < radius] = colour
        pictures.append(picture)
    images = torch.from_numpy(np.stack(pictures).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()

    def same_kinds(look):
        features = cold_start_features(images, look=look)
        apart = np.linalg.norm(features[:, None] - features, axis=2) + np.diag([np.inf] * len(features))
        return (spotted[apart.argmin(axis=1)] == spotted).mean()

    assert same_kinds("colours") > 0.95 > 0.7 > same_kinds("thumbnails")


def test_a_pool_without_images_is_refused():
    with pytest.raises(KdalError, match="no image"):
        cold_start_features(torch.zeros(0, 3, 8, 8, dtype=torch.uint8))


def test_features_with_nan_are_refused():
    with pytest.raises(KdalError, match="NaN"):
        cold_start([[np.nan], [1.0]])


def test_by_the_kernel_the_first_batch_is_that_of_maxherding():
    features = np.random.default_rng(0).normal(size=(200, 8))
    order = cold_start(features, mode="kernel", budget=30, seed=3)
    same = strategy("maxherding", width=WIDTH)(PoolScores(features=features, budget=30, seed=3))
    assert order.indices.tolist() == same.indices.tolist()
    assert order.scores.tolist() == pytest.approx(same.scores.tolist())
    for other in (10, None):
        assert (
            cold_start(features, mode="kernel", budget=other, seed=3).indices[:10].tolist()
            == order.indices[:10].tolist()
        )


def test_a_mode_that_does_not_exist_is_refused():
    with pytest.raises(KdalError, match="kernel, score"):
        cold_start(np.zeros((3, 2)), mode="best")


def test_thumbnails_of_grey_pictures_tell_what_they_show_and_those_of_photos_do_not():
    digits = torch.from_numpy(load_digits().images[:50].astype(np.uint8) * 15)[:, None].expand(-1, 3, -1, -1)
    photo = torch.from_numpy(load_sample_images().images[1].copy()).permute(2, 0, 1)
    crops = torch.stack([photo[:, 10 * i : 10 * i + 32, 100:132] for i in range(30)])
    assert thumbnails_tell(digits)
    assert not thumbnails_tell(crops)
    assert thumbnails_tell(digits[:1])
