import pytest
import torch
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no bug
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny networks are fastest on one thread, and a test run should not fight its neighbours for cores."""
    torch.set_num_threads(1)


@pytest.fixture
def random_state_is_kept():
    """The test fails when torch's process-wide random state is another one after it."""
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state())
