"""Every call of the client, and a server that gives the same answer to all."""

import json
from datetime import UTC, datetime

import pytest

from kdal.labelstudio.client import LabelStudioError
from tests.kdal.conftest import TOKEN
from tests.kdal.servers import Answer

HTML = Answer(b"<!doctype html><title>Log in</title>", headers={"Content-Type": "text/html"})


def answer(value, status=200):
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


CALLS = {
    "project": lambda c: c.project(3),
    "update_project": lambda c: c.update_project(3, title="x"),
    "create_project": lambda c: c.create_project("x", "<View/>"),
    "tasks": lambda c: list(c.tasks(3)),
    "labelled_ids": lambda c: c.labelled_ids(3),
    "skipped_ids": lambda c: c.skipped_ids(3),
    "open_count": lambda c: c.open_count(3),
    "labelled_count": lambda c: c.labelled_count(3),
    "skipped_count": lambda c: c.skipped_count(3),
    "labelled_after": lambda c: c.labelled_after(3, datetime(2026, 1, 2, tzinfo=UTC)),
    "version": lambda c: c.version(),
    "user": lambda c: c.user(),
    "import_predictions": lambda c: c.import_predictions(3, [{"task": 1}]),
    "import_tasks": lambda c: c.import_tasks(3, [{"data": {}}]),
    "upload_files": lambda c: c.upload_files(3, [("a.jpg", b"x")]),
    "annotate_from_predictions": lambda c: c.annotate_from_predictions(3, [1], "v"),
    "prediction_counts": lambda c: c.prediction_counts(3),
    "webhooks": lambda c: c.webhooks(3),
    "backends": lambda c: c.backends(3),
    "create_webhook": lambda c: c.create_webhook(url="x"),
    "create_backend": lambda c: c.create_backend(url="x"),
}
COUNTS = ["open_count", "labelled_count", "skipped_count", "labelled_after", "version"]
READS = [
    "project",
    "user",
    "tasks",
    "labelled_ids",
    "skipped_ids",
    *COUNTS,
    "prediction_counts",
    "webhooks",
    "backends",
]


class Everywhere(dict):
    """The same answer under every path."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def get(self, path, default=None):
        return self.found


def failure(call, web, found, client):
    """The error of a call to a Label Studio that answers everything so; it never holds the token."""
    web.answers = Everywhere(found)
    with pytest.raises(LabelStudioError) as caught:
        CALLS[call](client)
    assert TOKEN not in str(caught.value)
    return caught.value
