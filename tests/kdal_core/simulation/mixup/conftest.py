import pytest

from kdal_core.simulation.mixup.grid import parse_grid

SMALL = {
    "kind": "mixup_grid",
    "name": "small",
    "data": {"name": "digits", "test": 100},
    "student": "tiny_cnn",
    "teacher": {"model": "tiny_cnn", "training": {"epochs": 1, "min_steps": 60, "max_steps": 60, "device": "cpu"}},
    "training": {"epochs": 1, "batch_size": 16, "min_steps": 6, "max_steps": 6, "device": "cpu"},
    "real": [12, 24],
    "mixes": [0, 10, 30],
    "seeds": [0, 1],
    "candidates": 50,
    "lambdas": [0.3, 0.5, 0.7],
}


@pytest.fixture
def small():
    """Makes a grid of seconds, with changes."""
    return lambda **changes: parse_grid({**SMALL, **changes})
