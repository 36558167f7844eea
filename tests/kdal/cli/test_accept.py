"""`kdal accept`: what it asks for before it does anything."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --target"),
        (["--target", "0.9", "--undo"], "give --target"),
        (["--target", "1"], "--target must lie between 0 and 1"),
        (["--target", "0.9", "--alpha", "0.7"], "--alpha above 0 and at most 0.5"),
        (["--target", "0.9"], "no kdal has been started here"),
        (["--undo"], "no kdal has been started here"),
    ],
)
def test_what_cannot_be_meant_is_said_and_nothing_is_made(kdal, tmp_path, arguments, said):
    done = kdal("accept", "--project", "3", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []
