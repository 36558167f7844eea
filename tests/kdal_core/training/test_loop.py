from dataclasses import replace

import numpy as np
import pytest
import torch

from kdal_core.errors import ConfigError, KdalError
from kdal_core.models import Network
from kdal_core.training import infer, train
from kdal_core.training.data import endless_batches


class Lazy:
    """Images as a project has them: decoded one at a time."""

    def __init__(self, images):
        self.images, self.reads = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads += 1
        return self.images[index]


def trained(task, digits, config, seed=0, images=None, teacher=None):
    model = task.build("small_cnn", (8, 8), seed=seed)
    train(task, model, digits.images[:60] if images is None else images, digits.targets[:60], config, teacher=teacher)
    return model.state_dict()


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_the_same_seed_gives_the_same_model(task, digits, quick):
    first = trained(task, digits, quick)
    torch.rand(3)  # whatever else draws random numbers in this process
    state = torch.random.get_rng_state()
    again = trained(task, digits, quick)
    assert same(first, again)
    assert torch.equal(state, torch.random.get_rng_state())


def test_another_seed_gives_another_model(task, digits, quick):
    assert not same(trained(task, digits, quick), trained(task, digits, replace(quick, seed=1)))


def test_images_that_are_loaded_lazily_give_the_same_model_and_are_read_once(task, digits, quick):
    lazy = Lazy(digits.images[:60])
    assert same(trained(task, digits, quick), trained(task, digits, quick, images=lazy))
    assert lazy.reads <= 61


def test_images_too_many_for_memory_are_read_as_they_are_needed(task, digits, quick, monkeypatch):
    monkeypatch.setattr("kdal_core.training.data.KEEP_IN_MEMORY", 100)
    lazy = Lazy(digits.images[:60])
    assert same(trained(task, digits, quick), trained(task, digits, quick, images=lazy))
    assert lazy.reads > 61


def test_a_teacher_changes_the_student_and_is_not_changed(task, digits, quick):
    teacher = task.build("wide_cnn", (8, 8), seed=9)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    teacher.train()
    assert not same(trained(task, digits, quick), trained(task, digits, quick, teacher=teacher))
    assert same(before, teacher.state_dict())
    assert teacher.training


def test_a_teacher_without_weight_changes_nothing(task, digits, quick):
    teacher = task.build("wide_cnn", (8, 8), seed=9)
    config = replace(quick, kd_weight=0.0)
    assert same(trained(task, digits, config), trained(task, digits, config, teacher=teacher))


def test_training_takes_the_steps_it_says_and_reports_its_way(task, digits, quick):
    shares = []
    model = task.build("small_cnn", (8, 8))
    result = train(task, model, digits.images[:60], digits.targets[:60], quick, progress=shares.append)
    assert (result.steps, result.images, len(result.losses)) == (12, 60, 10)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert not model.training


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11])
def test_any_number_of_steps_can_be_trained(task, digits, quick, steps):
    config = replace(quick, min_steps=steps, max_steps=steps)
    model = task.build("small_cnn", (8, 8))
    assert train(task, model, digits.images[:60], digits.targets[:60], config).steps == steps


def test_rows_say_what_is_seen_how_often(task, digits, quick):
    """What stands in no row teaches nothing, and each once is what no rows are."""
    images, targets = digits.images[:60], digits.targets[:60]

    def weights(images, targets, rows):
        model = task.build("small_cnn", (8, 8), seed=0)
        train(task, model, images, targets, quick, rows=rows)
        return model.state_dict()

    plain = trained(task, digits, quick)
    assert same(plain, weights(images, targets, range(60)))
    wrong = [(target + 1) % 10 for target in targets]
    assert same(plain, weights(torch.cat([images, images]), [*targets, *wrong], range(60)))
    assert not same(plain, weights(images, targets, [0, *range(60)]))


def test_two_labels_are_enough_to_train(task, digits, quick):
    model = task.build("small_cnn", (8, 8))
    assert train(task, model, digits.images[:2], digits.targets[:2], quick).images == 2


def test_labels_of_one_class_are_refused_with_the_reason(task, digits, quick):
    model = task.build("small_cnn", (8, 8))
    with pytest.raises(ConfigError, match="All 3 labels say '0'"):
        train(task, model, digits.images[:3], [0, 0, 0], quick)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(3, 3, 8, 8), torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)],
)
def test_images_of_another_form_or_number_are_refused(task, quick, images):
    with pytest.raises(KdalError, match="images"):
        train(task, task.build("small_cnn", (8, 8)), images, [0, 1, 2], quick)


def test_channels_last_images_train_like_any_other(task, digits, quick):
    images = digits.images[:60].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert same(trained(task, digits, quick), trained(task, digits, quick, images=images))


def test_a_loss_that_is_not_a_number_stops_the_training(task, digits, quick):
    model = task.build("small_cnn", (8, 8))
    model.head.weight.data.fill_(float("nan"))
    with pytest.raises(ConfigError, match="NaN at step 1"):
        train(task, model, digits.images[:60], digits.targets[:60], quick)


def test_every_image_is_seen_once_before_any_is_seen_twice():
    batches = list(endless_batches(10, 4, 5, torch.Generator().manual_seed(0)))
    stream = [index for batch in batches for index in batch]
    assert all(len(batch) == 4 for batch in batches)
    assert sorted(stream[:10]) == sorted(stream[10:20]) == list(range(10))


def test_inference_gives_a_row_for_each_image_in_order(task, digits):
    model = task.build("small_cnn", (8, 8)).train()
    shares = []
    whole = infer(task, model, digits.images[:50], progress=shares.append)
    parts = infer(task, model, Lazy(digits.images[:50]))
    assert whole.predictions.shape == (50, 10)
    assert whole.predictions.dtype == whole.features.dtype == np.float32
    np.testing.assert_allclose(parts.predictions, whole.predictions, atol=1e-5)
    np.testing.assert_allclose(parts.features, whole.features, atol=1e-4)
    assert shares[-1] == 1.0
    assert not model.training


@pytest.mark.parametrize("size", [1, 3, 17, 40])
def test_the_size_of_a_shard_does_not_change_any_bit_of_an_images_result(task, digits, size):
    model, images = task.build("wide_cnn", (8, 8), seed=1), digits.images[:130]
    whole = infer(task, model, images, device="cpu")
    shards = [infer(task, model, images[start : start + size], device="cpu") for start in range(0, 130, size)]
    assert np.array_equal(np.concatenate([shard.predictions for shard in shards]), whole.predictions)
    assert np.array_equal(np.concatenate([shard.features for shard in shards]), whole.features)


def test_the_network_sees_blocks_of_one_size_only(task, digits):
    sizes = []

    class Counting(Network):
        def forward_with_features(self, images):
            sizes.append(len(images))
            return torch.zeros(len(images), 10), images.mean(dim=(2, 3))

    for count in (1, 63, 64, 65, 200):
        found = infer(task, Counting(), digits.images[:count], device="cpu")
        assert (len(found.predictions), len(found.features)) == (count, count)
    assert sizes == [64] * (1 + 1 + 1 + 2 + 4)


def test_inference_on_no_image_is_refused(task, digits):
    with pytest.raises(KdalError, match="no image"):
        infer(task, task.build("small_cnn", (8, 8)), digits.images[:0])


@pytest.mark.gpu
def test_training_on_cuda_learns_and_comes_back_to_the_cpu(task, digits, quick):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    model = task.build("small_cnn", (8, 8))
    config = replace(quick, device="cuda", min_steps=200, max_steps=200)
    train(task, model, digits.images[:300], digits.targets[:300], config)
    assert next(model.parameters()).device.type == "cpu"
    score = task.score(infer(task, model, digits.images[-500:]).predictions, digits.targets[-500:])
    assert score > 0.85
