import pytest
import torch


@pytest.fixture
def random_state_is_kept():
    """The test fails when torch's process-wide random state is another one after it."""
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state())
