from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits

from kdal_core.tasks import ClassificationTask
from kdal_core.training import TrainConfig


@dataclass(frozen=True)
class Digits:
    images: torch.Tensor
    targets: list[int]


@pytest.fixture(scope="session")
def digits():
    """1,797 real digits: the first 300 are enough to learn from, the last 500 are for scoring."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels * 255 / 16).round().to(torch.uint8)
    return Digits(images.view(-1, 1, 8, 8).repeat(1, 3, 1, 1), labels.tolist())


@pytest.fixture(scope="session")
def task():
    return ClassificationTask(tuple("0123456789"))


@pytest.fixture(scope="session")
def quick():
    return TrainConfig(epochs=1, min_steps=12, max_steps=12, batch_size=16, device="cpu")
