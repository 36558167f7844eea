import numpy as np
import pytest

from kdal.images.refs import ImageRef
from kdal.labelstudio.connection import SECRET_HEADER
from kdal.policy import Policy
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import Order, RoundStore
from kdal.storage.tables import now
from kdal.web.app import create_app
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.web.requests import UID, signed_in


@pytest.fixture
def app(resources):
    return signed_in(create_app(resources).test_client(), resources)


@pytest.fixture
def secret(resources):
    return {SECRET_HEADER: resources.settings.secret}


@pytest.fixture
def connected(app, resources):
    """A project that Label Studio has set up, and that its API has confirmed."""
    resources.storage.put_project(3, UID, DIGITS_CONFIG, {})
    resources.storage.add_event(3, "SETUP")
    return app


@pytest.fixture
def serving(connected, resources, trained):
    """The project with a published round 0 and a model, as `kdal worker` leaves them: tasks 5, 3, 9, 1 in order."""
    storage = resources.storage
    store = RoundStore(resources.assets, UID, 0)
    resources.assets.write(store.key("distilled.safetensors"), trained.checkpoint)
    Snapshot(UID, DIGITS_CONFIG, Policy(), (8, 8), [], [ImageRef(5, "x")], [], None).save(store)
    order = Order(tasks=[5, 3, 9, 1], budget=2, selected=4)
    store.save_order(order, np.array(order.tasks), np.zeros(4))
    storage.begin_round(3, 0, "connect")
    storage.update_round(3, 0, state="open", version="kdal-r0", opened_at=now(), budget=2, counted=1)
    storage.merge_round(3, 0, facts={"labels": 300}, seconds={"snapshot": 0.5, "select": 1.25})
    storage.update_project(3, serving_round=0, version="kdal-r0", policy={"suggest_above": 0.0})  # all is suggested
    return connected
