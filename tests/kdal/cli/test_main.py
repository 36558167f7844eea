"""What holds for every command: settings from `.env`, and errors in one sentence."""

from importlib.metadata import version

import pytest

from kdal.processes.child import free_port
from tests.kdal.conftest import TOKEN


def test_the_version_is_told(kdal):
    done = kdal("--version")
    assert (done.returncode, done.stdout) == (0, f"kdal {version('kdal')}\n")


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfKDAL_HOME=%s\r\n",
        b'KDAL_HOME="%s"\n',
        b"export KDAL_HOME='%s' # where it is\n",
    ],
)
def test_a_file_of_settings_may_come_from_any_editor(kdal, tmp_path, text):
    """A byte-order mark, quotes and line ends as Windows and shells have them."""
    (tmp_path / ".env").write_bytes(text % str(tmp_path / "elsewhere").encode())
    assert f"KDAL_HOME is {tmp_path}/elsewhere," in kdal("status").stderr


def test_a_file_of_settings_that_cannot_be_read_is_one_sentence(kdal, tmp_path):
    (tmp_path / ".env").write_bytes(b"KDAL_HOME=/srv/\xe9t\xe9\n")
    done = kdal("status")
    assert done.returncode == 1
    assert done.stderr.startswith("kdal: settings: the file .env cannot be read: ")
    assert done.stderr.endswith("it must be a text file in UTF-8\n")


@pytest.mark.parametrize("value", ['"http://127.0.0.1:8080"', "'http://127.0.0.1:8080'", "“http://127.0.0.1:8080”"])
def test_quotation_marks_that_became_part_of_an_address_are_named(kdal, value):
    """As `docker --env-file` leaves them."""
    done = kdal("status", LABEL_STUDIO_URL=value)
    assert "LABEL_STUDIO_URL: must start with http:// or https://, without quotation marks around it" in done.stderr


@pytest.mark.parametrize("command", ["up", "serve", "worker"])
def test_a_home_that_cannot_be_made_is_named(kdal, tmp_path, command):
    (tmp_path / "file").write_text("")
    arguments = [] if command == "worker" else ["--port", str(free_port())]
    done = kdal(command, *arguments, KDAL_HOME=str(tmp_path / "file" / "kdal"), LABEL_STUDIO_API_KEY=TOKEN)
    assert done.returncode == 1
    assert done.stderr == f"kdal: KDAL_HOME: the folder {tmp_path}/file/kdal cannot be made (Not a directory)\n"


@pytest.mark.parametrize(
    "arguments", [["connect"], ["connect", "--project", "0"], ["up", "--port", "80000"], ["nothing"]]
)
def test_wrong_arguments_are_explained_with_status_2(kdal, arguments):
    done = kdal(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr
