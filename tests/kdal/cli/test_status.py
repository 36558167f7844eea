"""`kdal status`: what it prints, what it leaves alone, and what it does not load."""

import json
import sqlite3
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from kdal.storage.database import Storage
from kdal.storage.schema import known_revisions

BOXES = """<View><Image name="i" value="$i"/>
<RectangleLabels name="b" toName="i"><Label value="cell"/></RectangleLabels><TextArea name="t" toName="i"/></View>"""


def fill(home):
    """A database as a running kdal leaves it, with one project."""
    storage = Storage(f"sqlite:///{home / 'kdal.sqlite'}")
    storage.put_project(3, "3.1795301030", BOXES, {"budget": 5})
    storage.begin_round(3, 0, "connect")
    storage.close()


def files_of(folder):
    found = sorted(Path(folder).rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in found}


def test_the_status_is_shown_without_loading_what_training_needs(loaded_by, tmp_path):
    fill(tmp_path / ".kdal")
    shown, loaded = loaded_by("status")
    assert "Project 3" in shown
    assert loaded == []


def test_the_status_of_a_home_is_shown_from_any_folder(kdal, tmp_path):
    fill(tmp_path / "home")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    done = kdal("status", "--json", cwd=elsewhere, KDAL_HOME="../home")
    assert [project["id"] for project in json.loads(done.stdout)["projects"]] == [3]
    assert files_of(elsewhere) == {}


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"]])
def test_where_no_kdal_was_started_the_status_says_where_it_looked_and_makes_nothing(kdal, tmp_path, arguments):
    done = kdal(*arguments)
    assert done.returncode == 1
    assert f"KDAL_HOME is {tmp_path}/.kdal" in done.stderr
    assert "there is no database" in done.stderr
    assert "kdal up" in done.stderr
    assert done.stdout == ""
    assert files_of(tmp_path) == {}


def test_a_database_that_is_not_there_is_not_made(kdal, tmp_path):
    done = kdal("status", KDAL_DATABASE_URL=f"sqlite:///{tmp_path}/deep/tables.sqlite")
    assert done.returncode == 1
    assert f"there is no database {tmp_path}/deep/tables.sqlite" in done.stderr
    assert files_of(tmp_path) == {}


def test_an_empty_database_gets_no_tables(kdal, tmp_path):
    (tmp_path / "empty.sqlite").touch()
    before = files_of(tmp_path)
    done = kdal("status", KDAL_DATABASE_URL=f"sqlite:///{tmp_path}/empty.sqlite")
    assert done.returncode == 1
    assert "holds no tables of kdal yet: `kdal up`" in done.stderr
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(("revision", "message"), [("0001", "made by an older kdal"), ("9999", "by a newer kdal")])
def test_the_tables_of_another_kdal_are_not_touched(kdal, tmp_path, revision, message):
    fill(tmp_path / ".kdal")
    with sqlite3.connect(tmp_path / ".kdal" / "kdal.sqlite") as tables:
        tables.execute("UPDATE alembic_version SET version_num = ?", [revision])
    tables.close()
    before = files_of(tmp_path)
    done = kdal("status")
    assert done.returncode == 1
    assert message in done.stderr
    assert files_of(tmp_path) == before


def test_the_file_names_of_the_migrations_tell_their_order():
    config = Config()
    config.set_main_option("script_location", "kdal.storage:migrations")
    scripts = ScriptDirectory.from_config(config)
    assert known_revisions() == [script.revision for script in scripts.walk_revisions()][::-1]


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({"backbones": "mobilenet_v2, from the hub"}, "mobilenet_v2, from the hub"),
        ({"why_no_backbones": "the hub is not asked"}, "trained from nothing: the hub is not asked"),
        ({"fine_tuning": "under way on the CPU, about 10 minutes in all"}, "about 10 minutes in all"),
    ],
)
def test_it_says_which_pretrained_weights_a_round_has_or_why_none_and_how_they_are_trained(
    kdal, tmp_path, facts, shown
):
    fill(tmp_path / ".kdal")
    storage = Storage(f"sqlite:///{tmp_path / '.kdal' / 'kdal.sqlite'}")
    storage.merge_round(3, 0, facts=facts)
    storage.close()
    assert shown in " ".join(kdal("status").stdout.split())
