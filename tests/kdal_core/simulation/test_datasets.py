import gzip

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from kdal_core.errors import ConfigError
from kdal_core.simulation.datasets import load_split


def keys(part):
    return {image.numpy().tobytes() for image in part.images}


def test_pool_validation_and_test_images_never_meet(small):
    test = keys(load_split(small(), 0).held_out)
    validation = keys(load_split(small(score_on="validation"), 0).held_out)
    pools = [keys(load_split(small(), seed).pool) for seed in range(5)]
    assert pools[0] != pools[1]
    for pool in pools:
        assert not pool & (test | validation)
    assert not test & validation


def test_a_split_is_a_function_of_the_seed(small):
    first, again = load_split(small(), 3), load_split(small(), 3)
    assert first.pool.images.equal(again.pool.images)
    assert np.array_equal(first.pool.labels, again.pool.labels)


def test_digits_are_those_of_scikit_learn_with_their_own_labels(small):
    pixels, labels = load_digits(return_X_y=True)
    true = {
        np.round(row * 255 / 16).astype(np.uint8).tobytes(): label for row, label in zip(pixels, labels, strict=True)
    }
    split = load_split(small(), 0)
    for image, label in zip(split.pool.images, split.pool.labels, strict=True):
        assert true[image[0].numpy().tobytes()] == label
    assert split.image_size == (8, 8)
    assert split.classes == tuple("0123456789")


def test_images_are_made_smaller_on_demand(small):
    split = load_split(small(data={"name": "digits", "pool": 300, "image_size": 4}), 0)
    assert split.pool.images.shape == (300, 3, 4, 4)
    large = load_split(small(data={"name": "digits", "pool": 300}), 0).pool.images
    assert split.pool.images.float().mean().item() == pytest.approx(large.float().mean().item(), rel=0.05)


def test_a_pool_that_is_too_small_for_the_campaign_or_the_data_is_refused(small):
    for pool in (20, 5000):
        with pytest.raises(ConfigError, match="pool"):
            load_split(small(data={"name": "digits", "pool": pool}), 0)


def test_an_unknown_data_set_is_refused_with_the_known_ones(small):
    with pytest.raises(ConfigError, match="fashion_mnist"):
        load_split(small(data={"name": "cifar"}), 0)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "folder"])
def test_data_that_is_not_there_is_named_with_the_folder(small, name, tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path / "nothing")):
        load_split(small(data={"name": name}), 0, tmp_path / "nothing")


def idx(path, array):
    """A file of MNIST's own format."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())
    (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(header + array.tobytes()))


def test_files_of_mnists_format_are_read(small, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 28, 28), dtype=np.uint8), rng.integers(0, 10, 60, dtype=np.uint8)
    for part, first, last in (("train", 0, 50), ("t10k", 50, 60)):
        idx(raw / f"{part}-images-idx3-ubyte", images[first:last])
        idx(raw / f"{part}-labels-idx1-ubyte", labels[first:last])
    split = load_split(small(data={"name": "mnist", "pool": 40}), 0, tmp_path)
    assert split.held_out.labels.tolist() == labels[50:].tolist()
    assert np.array_equal(split.held_out.images[:, 0].numpy(), images[50:])
    assert len(split.pool) == 40
    assert split.pool.images.shape == (40, 3, 28, 28)


def test_a_folder_of_ones_own_images_is_read_by_class(small, tmp_path):
    for place, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for number in range(40):
            Image.new("RGB", (30, 20), (100 * place, number, 0)).save(tmp_path / name / f"{number}.png")
    split = load_split(small(data={"name": "folder", "image_size": 32}), 0, tmp_path)
    assert split.classes == ("cat", "dog")
    assert len(split.pool) + len(split.held_out) == 80
    assert len(split.held_out) == 16
    red = split.pool.images[:, 0, 16, 16].numpy()
    assert np.array_equal(red > 50, split.pool.labels == 1)
