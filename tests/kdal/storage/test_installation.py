"""Several kdals on one database: Label Studio is told one user, one password and one secret."""

import threading

import pytest

from kdal.resources import Resources
from kdal_core.errors import ConfigError

SET = {"auth_user": "me", "auth_password": "a password", "webhook_secret": "a-secret"}


@pytest.fixture
def machine(open_resources, tmp_path):
    """`machine(name, **settings)`: a kdal with a KDAL_HOME of its own, on the database of all."""

    def start(name, **settings):
        url = f"sqlite:///{tmp_path}/shared.sqlite"
        return open_resources(home=tmp_path / name, database_url=url, assets=str(tmp_path / "assets"), **settings)

    return start


def test_a_second_machine_that_would_make_a_password_of_its_own_is_told_what_to_set(machine):
    machine("one")
    machine("one")
    with pytest.raises(ConfigError, match=r"KDAL_AUTH_USER, KDAL_AUTH_PASSWORD and KDAL_WEBHOOK_SECRET"):
        machine("two")


@pytest.mark.parametrize("left_out", [["webhook_secret"], ["auth_user", "auth_password"]])
def test_all_of_it_must_be_set(machine, left_out):
    machine("one", **SET)
    with pytest.raises(ConfigError, match="KDAL_HOME"):
        machine("two", **{name: value for name, value in SET.items() if name not in left_out})


def test_machines_that_are_told_the_same_share_a_database_and_the_password_may_be_changed(machine):
    machine("one", **SET)
    machine("two", **SET)
    machine("one", **SET | {"auth_password": "another"})
    machine("two", **SET | {"auth_password": "another"})


def test_a_password_that_is_made_again_is_taken_where_all_lies_in_one_folder(open_resources, tmp_path):
    first = open_resources()
    (tmp_path / "kdal" / "credentials").unlink()
    assert open_resources().settings.auth_password != first.settings.auth_password


def test_server_and_worker_that_start_together_agree(make_settings):
    found, settings = [], [make_settings() for _ in range(4)]

    def start(each):
        resources = Resources.open(each)
        found.append((resources.settings.auth_password, resources.settings.secret))
        resources.storage.close()

    threads = [threading.Thread(target=start, args=(each,)) for each in settings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (4, 1)
