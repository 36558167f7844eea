from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score
from torch import nn

from kdal_core.errors import KdalError
from kdal_core.models import DropoutNet, Network, build_model
from kdal_core.tasks import ClassificationTask
from kdal_core.training import infer, train
from kdal_core.training.stochastic import dropout_samples


class MeanColour(Network):
    """Three features, so that all 8 masks can be listed."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.head.weight.data = torch.tensor([[3.0, -2.0, 1.0], [0.5, 1.5, -4.0]])

    def forward_with_features(self, images):
        features = images.mean(dim=(2, 3))
        return self.head(features), features


def test_samples_are_those_of_all_thinned_networks_as_often_as_their_masks(digits):
    inner, p, passes = MeanColour().eval(), 0.3, 20_000
    images = (torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    samples = dropout_samples(ClassificationTask(("a", "b")), DropoutNet(inner, p), images, passes=passes, device="cpu")
    features = inner.features(images / 255)
    for kept in product([0, 1], repeat=3):
        thinned = inner.head(features * torch.tensor(kept) / (1 - p)).softmax(dim=1).detach().numpy()
        share = np.isclose(samples, thinned, atol=1e-6).all(axis=(1, 2)).mean()  # both images, the same mask
        assert share == pytest.approx(p ** (3 - sum(kept)) * (1 - p) ** sum(kept), abs=0.015)


def test_without_dropout_every_pass_is_the_plain_prediction(task, digits):
    model = DropoutNet(task.build("small_cnn", (8, 8)), p=0.0)
    samples = dropout_samples(task, model, digits.images[:20], passes=3, device="cpu")
    assert samples.shape == (3, 20, 10)
    assert samples.dtype == np.float32
    for each in samples:
        np.testing.assert_allclose(each, infer(task, model, digits.images[:20]).predictions, atol=1e-6)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_shards_and_batches_of_any_size_give_the_same_bits(task, digits, size):
    model = DropoutNet(task.build("wide_cnn", (8, 8), seed=1))
    images = digits.images[:150]
    whole = dropout_samples(task, model, images, passes=4, device="cpu")
    shards = [
        dropout_samples(task, model, images[start : start + size], passes=4, device="cpu")
        for start in range(0, 150, size)
    ]
    assert np.array_equal(np.concatenate(shards, axis=1), whole)


def test_the_seed_alone_decides_and_more_passes_only_add(task, digits, random_state_is_kept):
    model = DropoutNet(task.build("small_cnn", (8, 8)))
    few, more, other = (
        dropout_samples(task, model, digits.images[:9], passes=passes, seed=seed, device="cpu")
        for passes, seed in ((3, 5), (6, 5), (3, 6))
    )
    assert np.array_equal(few, more[:3])
    assert not np.array_equal(few, other)
    assert not np.array_equal(more[0], more[1])


def test_sampling_changes_nothing_in_the_model(task, digits):
    model = DropoutNet(task.build("small_cnn", (8, 8))).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    dropout_samples(task, model, digits.images[:9], passes=2, device="cpu")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.training


def test_samples_of_a_trained_model_disagree_more_where_it_is_wrong(task, digits, quick):
    model = DropoutNet(build_model("small_cnn", 10, (8, 8)))
    config = replace(quick, min_steps=300, max_steps=300, batch_size=32)  # fewer steps: no better than chance
    train(task, model, digits.images[:100], digits.targets[:100], config)
    samples = dropout_samples(task, model, digits.images[-500:], passes=100, device="cpu")
    wrong = samples.mean(axis=0).argmax(axis=1) != np.array(digits.targets[-500:])
    information = entropy(samples.mean(axis=0), axis=1) - entropy(samples, axis=2).mean(axis=0)  # BALD's
    assert 0 < wrong.mean() < 0.4
    assert information.min() > -1e-6
    assert roc_auc_score(wrong, information) > 0.65


def test_no_pass_and_no_image_are_refused(task, digits):
    model = DropoutNet(task.build("small_cnn", (8, 8)))
    with pytest.raises(KdalError, match="passes must"):
        dropout_samples(task, model, digits.images[:2], passes=0)
    with pytest.raises(KdalError, match="no image"):
        dropout_samples(task, model, digits.images[:0])
