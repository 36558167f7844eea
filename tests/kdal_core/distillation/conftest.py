from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from kdal_core.models import build_model


@dataclass(frozen=True)
class Digits:
    images: torch.Tensor
    labels: np.ndarray


@pytest.fixture(scope="session")
def digits():
    """1,797 real digits, 8 x 8, uint8."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels * 255 / 16).round().to(torch.uint8)
    return Digits(images.view(-1, 1, 8, 8).repeat(1, 3, 1, 1), labels)


@pytest.fixture(scope="session")
def student(digits):
    """A small network that has learnt a little from 300 digits."""
    model = build_model("tiny_cnn", 10, (8, 8))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    targets = torch.from_numpy(digits.labels[:300])
    for _ in range(60):
        rows = torch.randint(0, 300, (64,), generator=generator)
        loss = torch.nn.functional.cross_entropy(model(digits.images[rows].float() / 255), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
