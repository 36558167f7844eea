"""Slow clients: they hold neither a thread for ever, nor what others ask for."""

import socket
import threading

import pytest

from kdal.web.app import create_app
from kdal.web.deadlines import Deadlines
from tests.kdal.web.requests import EVENT, SETUP, UID, error_of, signed_in


@pytest.fixture
def ends():
    """A client's end of a connection, and the server's."""
    client, server = socket.socketpair()
    with client, server:
        yield client, server


def test_a_connection_whose_request_does_not_come_is_shut_down(ends):
    client, server = ends
    with Deadlines(0.2).held(server):
        client.sendall(b"POST /predict HTTP/1.1\r\nContent-Le")
        assert server.recv(1000)
        assert server.recv(1000) == b""  # rather than for ever
    assert client.recv(1000) == b""


def test_the_time_of_an_answer_is_not_the_clients(ends):
    client, server = ends
    deadlines = Deadlines(0.2)
    with deadlines.held(server):
        deadlines.extend(None)
        threading.Event().wait(1.0)
        server.sendall(b"an answer")
        deadlines.extend(0.1)
        assert server.recv(10) == b""  # whoever does not take it is not waited for
    assert client.recv(1000) == b"an answer"


def test_a_connection_that_was_let_go_of_is_left_alone(ends):
    client, server = ends
    deadlines = Deadlines(0.1)
    with deadlines.held(server):
        pass
    threading.Event().wait(0.8)
    client.sendall(b"the next request")
    assert server.recv(1000) == b"the next request"


def test_requests_for_predictions_that_are_stuck_hold_up_no_others(resources, monkeypatch):
    monkeypatch.setattr("kdal.web.app.QUEUE", 0.1)
    app = create_app(resources, predictions=2)
    resources.storage.put_project(3, UID, SETUP["schema"], {})
    stuck, go_on = threading.Semaphore(0), threading.Event()

    def serving(_number):
        stuck.release()
        assert go_on.wait(60)
        return None, None

    monkeypatch.setattr(resources.storage, "serving", serving)
    client = signed_in(app.test_client(), resources)
    body = {"project": UID, "tasks": []}
    threads = [threading.Thread(target=client.post, args=("/predict",), kwargs={"json": body}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert stuck.acquire(timeout=60)
    assert client.get("/health").status_code == 200
    assert client.post("/webhook", json=EVENT).status_code == 200
    assert client.post("/setup", json=SETUP).status_code == 200
    assert "busy" in error_of(client.post("/predict", json=body), 429)
    go_on.set()
    for thread in threads:
        thread.join()
