"""`kdal serve` and `kdal up` as a person starts them: what they print, and what they refuse before they start."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import requests
from psutil import Process

from kdal.processes.child import free_port
from tests.kdal.conftest import TOKEN

READY = "Ctrl-C stops kdal."


@contextmanager
def started(folder, *arguments, **variables):
    """A running command, which is gone at the end whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kdal", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "LABEL_STUDIO_API_KEY": TOKEN, **variables},
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()


def until_ready(process):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if READY in line:
            return "".join(lines)
    pytest.fail("".join(lines))


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_server_says_its_addresses_and_the_command_that_connects_a_project(env, tmp_path, command):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with started(tmp_path, command, "--port", str(port), LABEL_STUDIO_URL="http://ls.example:8081") as process:
        text = until_ready(process)
        assert f"{url} (KDAL_URL" in text
        assert "http://ls.example:8081" in text
        assert f"{tmp_path}/.kdal" in text
        assert f"\n  KDAL_URL={url} kdal connect --project N\n" in text
        assert (f"KDAL_URL={url} kdal worker" in text) == (command == "serve")
        assert requests.get(f"{url}/health", timeout=60).status_code == 200


def test_an_address_that_is_set_is_kept_and_told(env, tmp_path):
    port = str(free_port())
    variables = {"KDAL_URL": "http://127.0.0.1:9", "LABEL_STUDIO_URL": "http://ls"}
    with started(tmp_path, "serve", "--port", port, "--host", "0.0.0.0", **variables) as process:
        text = until_ready(process)
    assert "Server:       http://127.0.0.1:9 " in text
    assert f"listens on port {port}" in text
    assert "set KDAL_URL to an address of this one" in text


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_port_that_is_taken_is_told_before_anything_starts(kdal, tmp_path, command):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = kdal(command, "--port", str(port), LABEL_STUDIO_API_KEY=TOKEN)
    assert done.returncode == 1
    assert done.stderr == f"kdal: port {port} is taken at 127.0.0.1: stop the other program or choose another port\n"
    assert not (tmp_path / ".kdal").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "no such host"], "there is no host 'no such host'"),
        (["--host", "192.0.2.1"], "192.0.2.1 is no address of this machine"),
    ],
)
def test_a_host_that_cannot_be_listened_on_is_one_sentence(kdal, arguments, message):
    done = kdal("up", *arguments, LABEL_STUDIO_API_KEY=TOKEN)
    assert done.returncode == 1
    assert done.stderr.startswith(f"kdal: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "up", "worker"])
def test_without_a_key_a_process_says_what_to_set(kdal, command):
    done = kdal(command)
    assert done.returncode == 1
    assert re.fullmatch(r"kdal: LABEL_STUDIO_API_KEY is not set: .*\n", done.stderr)


def test_ctrl_c_before_everything_runs_stops_what_has_been_started(env, tmp_path):
    with started(tmp_path, "up", "--port", str(free_port())) as process:
        deadline = time.monotonic() + 60
        while len(Process(process.pid).children(recursive=True)) < 4:  # a guard and a process, twice
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        text = process.stdout.read()
        assert process.wait(60) == 130
    assert "Traceback" not in text
    assert text.endswith("Stopped.\n")
    assert [child for child in children if child.is_running()] == []
