"""`kdal doctor`, as an operator reads it."""

import json

from typer.testing import CliRunner

from kdal.cli.main import app
from kdal.processes.child import free_port


def test_what_is_wrong_is_told_with_what_mends_it_and_a_status_that_programs_see(env):
    nobody = f"http://127.0.0.1:{free_port()}"
    env.setenv("LABEL_STUDIO_URL", nobody)
    env.setenv("KDAL_URL", nobody)
    env.setenv("KDAL_DEVICE", "cpu")
    told = CliRunner().invoke(app, ["doctor"])
    assert told.exit_code == 1
    lines = told.stdout.splitlines()
    assert any(line.startswith("ok    device: cpu") for line in lines)
    wrong = [i for i, line in enumerate(lines) if line.startswith("WRONG Label Studio: nothing answers at")]
    assert len(wrong) == 1
    assert lines[wrong[0] + 1].startswith("      what to do: start Label Studio")
    assert lines[-1] == "4 things are wrong."
    for_programs = CliRunner().invoke(app, ["doctor", "--json"])
    assert for_programs.exit_code == 1
    found = json.loads(for_programs.stdout)
    assert sum(not one["ok"] for one in found) == 4
    assert {"part", "ok", "said", "fix"} == set(found[0])
