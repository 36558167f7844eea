"""torch's default generators for a while, so that what a network draws is a function of a seed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_random_state = threading.RLock()  # torch's default generator belongs to the whole process


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's default generators for a block and put them back after it; one block at a time."""
    cuda = [device] if device is not None and device.type == "cuda" else []
    with _random_state, torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield
