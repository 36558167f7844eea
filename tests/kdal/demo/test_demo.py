"""What the demo keeps between starts, and what it refuses before it starts anything."""

import json
import os
import socket

import pytest

from kdal.demo import State
from kdal.processes.embedded import find_label_studio
from kdal_core.errors import ConfigError


@pytest.fixture
def state_file(tmp_path):
    return tmp_path / "demo.json"


def test_a_second_start_knows_what_the_first_made_up(state_file):
    first = State.load(state_file)
    first.projects["digits"] = 7
    first.save(state_file)
    assert State.load(state_file) == first
    assert state_file.stat().st_mode & 0o077 == 0


def test_the_state_of_a_time_when_there_were_only_digits_is_read(state_file):
    state_file.write_text(json.dumps({"password": "p", "token": "t", "project": 4}))
    assert State.load(state_file).projects == {"digits": 4}


def test_ports_that_others_have_taken_meanwhile_are_replaced(state_file):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        state_file.write_text(json.dumps({"password": "p", "token": "t", "kdal_port": taken}))
        assert State.load(state_file).kdal_port != taken


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"password": "p"}', '{"password": "p", "token": "t", "more": 1}']
)
def test_a_damaged_state_is_one_sentence_that_says_what_to_delete(state_file, text):
    state_file.write_text(text)
    with pytest.raises(ConfigError, match=rf"{state_file} is damaged: delete the folder {state_file.parent}"):
        State.load(state_file)


def test_a_folder_that_cannot_be_used_is_refused_before_anything_starts(kdal, tmp_path):
    (tmp_path / "file").write_text("")
    done = kdal("demo", "--folder", "file/demo", LABEL_STUDIO_EXECUTABLE=str(find_label_studio()))
    assert done.returncode == 1
    assert (
        done.stderr == f"kdal: the demo keeps its data in {tmp_path}/file/demo, which cannot be used: Not a directory\n"
    )


def test_a_label_studio_that_is_on_the_path_is_named_by_the_variable_first(env, tmp_path):
    program = tmp_path / "label-studio"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    env.setenv("LABEL_STUDIO_EXECUTABLE", str(program))
    assert find_label_studio() == program
    for wrong in (tmp_path, tmp_path / "missing", os.devnull):
        env.setenv("LABEL_STUDIO_EXECUTABLE", str(wrong))
        with pytest.raises(ConfigError, match="not a program that can be run"):
            find_label_studio()
