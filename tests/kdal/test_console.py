"""What commands print while they work, on a terminal and without one."""

import io
import re
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from kdal import console
from kdal.console import SPINNER, progress


class Pipe(io.StringIO):
    """Output that counts when it was handed on."""

    flushed = ""

    def flush(self):
        self.flushed = self.getvalue()


@pytest.fixture
def pipe():
    return Console(file=Pipe(), width=40)


@pytest.fixture
def often(monkeypatch):
    """A line for each report."""
    monkeypatch.setattr(console, "EVERY", 0.0)


def lines(pipe):
    """What was printed, as if it had taken no time."""
    return re.sub(r"\b\d+ s\b", "0 s", pipe.file.getvalue()).splitlines()


def test_without_a_terminal_work_has_a_first_and_a_last_line_with_its_duration(pipe):
    with progress(pipe, "Importing") as report:
        assert pipe.file.flushed == "Importing ...\n"
        for done in range(1, 1201):
            report(done, 1200)
    assert lines(pipe) == ["Importing ...", "Importing: 1,200 of 1,200, done in 0 s"]


def test_in_between_lines_say_how_far_it_is(pipe, often):
    with progress(pipe, "A piece of work with a long name") as report:
        report(3, None)
        report(3, 7, "reading a.png")
        assert pipe.file.flushed == pipe.file.getvalue()
    assert lines(pipe)[1:] == [
        "A piece of work with a long name: 3, 0 s so far",
        "A piece of work with a long name: 3 of 7, reading a.png, 0 s so far",
        "A piece of work with a long name: 3 of 7, done in 0 s",
    ]


def test_a_share_is_told_in_per_cent(pipe, often):
    with progress(pipe, "Round 1", SPINNER) as report:
        report(0.25, 1.0, "train S and T")
    assert lines(pipe)[1:] == ["Round 1: 25%, train S and T, 0 s so far", "Round 1: done in 0 s"]


def test_names_are_no_markup(pipe, often):
    with progress(pipe, "[red]") as report:
        report(1, 2, "[/data/upload]")
    assert lines(pipe)[1] == "[red]: 1 of 2, [/data/upload], 0 s so far"


def test_work_that_fails_is_not_said_to_be_done(pipe):
    with pytest.raises(OSError, match="gone"), progress(pipe, "Importing"):
        raise OSError("gone")
    assert lines(pipe) == ["Importing ..."]


@pytest.mark.parametrize("columns", [console.BAR, SPINNER])
def test_on_a_terminal_a_bar_shows_it_and_is_gone_afterwards(columns):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress(terminal, "Importing", columns) as report:
        report(3, 7, "a.png")
    text = terminal.file.getvalue()
    assert "Importing" in text
    assert "a.png" in text
    assert "done in" not in text


INTERRUPTED = """
import time
from kdal.console import interruptible
with interruptible("Stopped."):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("how", "status", "said"), [("SIGINT", 130, "Stopped.\n"), ("SIGTERM", 143, "")])
def test_an_interrupted_command_says_so_without_a_traceback(how, status, said):
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, how))
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (status, said)


STUCK = """
import time
from kdal import console
console.CLEANING_UP = 1.0
with console.interruptible("Stopped."):
    try:
        print("ready", flush=True)
        time.sleep(600)
    finally:
        time.sleep(600)
"""


@pytest.mark.parametrize(("how", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_command_ends_even_if_what_it_has_to_close_does_not(how, status):
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, how))
        assert process.wait(60) == status
