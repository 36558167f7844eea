"""Children that are healthy before they are used and gone when they should be."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

import kdal
from kdal.processes.child import KDAL, Child, ProcessError, Supervisor, free_port, port_is_free
from tests.paths import PYTHONPATH

# A server like gunicorn: a forked worker listens, and ignores polite requests when it is told to.
FORKING_SERVER = """
import http.server, os, signal, sys
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
if os.fork() == 0:
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server.serve_forever()
signal.pause()
"""


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def gone(pids: list[int]) -> bool:
    def dead(pid: int) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return True

    return all(dead(pid) for pid in pids)


def tree(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def start_server(tmp_path: Path, *arguments: str, grace: float = 5.0) -> tuple[Child, int]:
    port = free_port()
    command = [sys.executable, "-c", FORKING_SERVER, str(port), *arguments]
    child = Child("server", command, cwd=tmp_path, log=tmp_path / "server.log", grace=grace)
    try:
        child.wait_until_healthy(f"http://127.0.0.1:{port}/", timeout=30)
    except BaseException:
        child.stop()
        raise
    return child, port


def test_a_stopped_child_leaves_no_process_and_no_port(tmp_path: Path) -> None:
    child, port = start_server(tmp_path)
    pids = tree(child.pid)
    assert len(pids) == 3, "the guard, the server, its forked worker"
    assert not port_is_free(port)
    child.stop()
    assert gone(pids)
    assert port_is_free(port)


def test_a_grandchild_that_ignores_sigterm_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    child, _ = start_server(tmp_path, "stubborn", grace=0.5)
    pids = tree(child.pid)
    child.stop()
    assert gone(pids)


def test_a_child_that_is_killed_takes_its_own_children_along(tmp_path: Path) -> None:
    child, _ = start_server(tmp_path)
    pids = tree(child.pid)
    os.kill(pids[1], signal.SIGKILL)
    assert child.wait(timeout=10) == 128 + signal.SIGKILL
    assert gone(pids)
    child.stop()


def test_sigkill_of_the_parent_leaves_no_grandchild(tmp_path: Path) -> None:
    port = free_port()
    program = f"""
import sys, time
from pathlib import Path
from kdal.processes.child import Supervisor
with Supervisor() as supervisor:
    command = [sys.executable, "-c", {FORKING_SERVER!r}, "{port}", "stubborn"]
    child = supervisor.start("server", command, log=Path("server.log"), grace=0.5)
    child.wait_until_healthy("http://127.0.0.1:{port}/")
    print(child.pid, flush=True)
    time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=tmp_path, env=environment, text=True
    ) as parent:
        assert parent.stdout is not None
        try:
            pids = tree(int(parent.stdout.readline()))
            assert len(pids) == 3
        finally:
            parent.kill()
    assert wait_for(lambda: gone(pids))
    assert port_is_free(port)


def test_the_command_dies_with_a_guard_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Child("server", command, log=tmp_path / "server.log") as child:
        assert wait_for(lambda: len(tree(child.pid)) == 2)
        pids = tree(child.pid)
        os.kill(child.pid, signal.SIGKILL)
        assert wait_for(lambda: gone(pids))


def test_a_child_that_ends_before_it_is_healthy_is_reported_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the database is locked')"]
    with Child("doomed", command, log=tmp_path / "doomed.log") as child:
        with pytest.raises(ProcessError, match="doomed ended with status 1") as error:
            child.wait_until_healthy(f"http://127.0.0.1:{free_port()}/", timeout=30)
        assert "the database is locked" in str(error.value)
        assert "doomed.log" in str(error.value)


def test_a_child_that_never_answers_is_reported_after_the_deadline(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-c", "import time; print('still thinking'); time.sleep(600)"]
    with Child("slow", command, log=tmp_path / "slow.log") as child:
        with pytest.raises(ProcessError, match=r"slow was not healthy at .* after 2 s") as error:
            child.wait_until_healthy(f"http://127.0.0.1:{free_port()}/", timeout=2)
        assert "still thinking" in str(error.value)


def test_an_answer_other_than_200_is_not_healthy(tmp_path: Path) -> None:
    child, port = start_server(tmp_path)
    with child, pytest.raises(ProcessError, match="status 404"):
        child.wait_until_healthy(f"http://127.0.0.1:{port}/missing", timeout=1)


def test_a_program_that_does_not_exist_is_named() -> None:
    with Child("ghost", ["/no/such/program"]) as child:
        with pytest.raises(ProcessError, match="ghost ended with status 127"):
            child.wait_until_healthy(f"http://127.0.0.1:{free_port()}/", timeout=30)
        child.stop()
        assert "cannot run /no/such/program: No such file or directory" in child.tail()


def test_output_without_a_log_goes_to_the_terminal_with_the_childs_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Child("worker", [sys.executable, "-c", "print('round 1'); print('round 2')"]) as child:
        assert child.wait(timeout=30) == 0
    written = capsys.readouterr().err.splitlines()
    assert written == ["      worker | round 1", "      worker | round 2"]
    assert child.tail() == "round 1\nround 2"


def test_a_childs_environment_is_ours_plus_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDAL_TEST_OURS", "ours")
    program = "import os; print(os.environ['KDAL_TEST_OURS'], os.environ['KDAL_TEST_GIVEN'])"
    with Child("env", [sys.executable, "-c", program], env={"KDAL_TEST_GIVEN": "given"}) as child:
        assert child.wait(timeout=30) == 0
    assert child.tail() == "ours given"


def test_the_supervisor_names_the_child_that_ended_and_stops_the_others(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Supervisor() as supervisor:
        steady = supervisor.start("steady", sleep, log=tmp_path / "steady.log")
        brief = supervisor.start("brief", [sys.executable, "-c", ""], log=tmp_path / "brief.log")
        assert supervisor.wait(timeout=30) is brief
        assert steady.poll() is None
    assert steady.poll() is not None


def test_sigterm_to_the_supervising_process_ends_its_wait_so_that_children_stop_in_order(
    tmp_path: Path,
) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    before = signal.getsignal(signal.SIGTERM)
    with Supervisor() as supervisor:
        child = supervisor.start("steady", sleep, log=tmp_path / "steady.log")
        program = f"import os, time; time.sleep(0.5); os.kill({os.getpid()}, {int(signal.SIGTERM)})"
        with subprocess.Popen([sys.executable, "-c", program]):
            assert supervisor.wait(timeout=30) is None
        assert child.poll() is None
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_that_is_listened_on_is_not_free(tmp_path: Path) -> None:
    child, port = start_server(tmp_path)
    with child:
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=5).ok
        assert not port_is_free(port)
    assert port_is_free(port)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems say elsewhere which ports connections are given")
def test_a_free_port_is_none_that_an_outgoing_connection_may_be_given_before_the_server_is_up() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not set(range(first, last + 1)) & {free_port() for _ in range(20)}


# Ends well only if the other is told to stop, too, while it is ending.
SLOW_TO_END = """
import pathlib, signal, sys, time
own, other = map(pathlib.Path, sys.argv[1:])
def end(*_):
    own.write_text("told")
    while not other.exists():
        time.sleep(0.05)
    own.write_text("ended")
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""


def test_children_are_stopped_together_so_that_one_which_is_slow_does_not_delay_the_others(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    with Supervisor() as supervisor:
        for own, other in (files, reversed(files)):
            child = supervisor.start(own.name, [sys.executable, "-c", SLOW_TO_END, own, other], grace=5)
            assert wait_for(lambda child=child: "ready" in child.tail())
    assert [file.read_text() for file in files] == ["ended", "ended"]


def test_a_folder_named_kdal_where_it_is_started_is_not_taken_for_the_package(tmp_path):
    (tmp_path / "kdal").mkdir()
    program = "import flask, kdal; flask.Flask('kdal'); print(kdal.__file__)"
    done = subprocess.run([*KDAL[:-2], "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == kdal.__file__
