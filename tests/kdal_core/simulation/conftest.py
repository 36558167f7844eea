import pytest

from kdal_core.simulation import Campaign

SMALL = {
    "name": "small",
    "data": {"name": "digits", "pool": 300, "validation": 100, "test": 200},
    "budget": 10,
    "rounds": 3,
    "seeds": [0, 1],
    "models": {"student": "tiny_cnn", "teacher": "mid_cnn"},
    "training": {"epochs": 1, "min_steps": 20, "max_steps": 20, "device": "cpu"},
    "strategies": ["random", "kd_gap"],
}


@pytest.fixture
def small():
    """Makes a campaign of seconds, with changes."""
    return lambda **changes: Campaign.parse({**SMALL, **changes})
