"""A client of a server whose answers the tests give."""

import pytest

from kdal.labelstudio.client import LabelStudioClient
from tests.kdal.conftest import TOKEN


@pytest.fixture
def client(web):
    return LabelStudioClient(web.url, TOKEN)
