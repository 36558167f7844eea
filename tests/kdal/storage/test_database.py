import subprocess
import sys
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, StatementError

from kdal.storage.database import Storage
from kdal.storage.tables import Base, now
from kdal_core.errors import ConfigError
from tests.paths import PYTHONPATH

CONFIG, UID = "<View/>", "3.1795301030"


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/kdal.sqlite"


@pytest.fixture
def storage(url):
    opened = Storage(url)
    yield opened
    opened.close()


@pytest.fixture
def project(storage):
    storage.put_project(3, UID, CONFIG, {})
    return 3


def at_once(*calls):
    """The results of calls that start together, each in a thread of its own."""
    barrier = threading.Barrier(len(calls))
    results = [None] * len(calls)

    def run(i):
        barrier.wait()
        try:
            results[i] = calls[i]()
        except Exception as error:  # the test compares it with what it expected
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def processes_at_once(tmp_path, count, prepare, act):
    """What `count` Python processes print that prepare, wait for each other, and act in the same moment."""
    program = f"import pathlib\nfrom kdal.storage.database import Storage\n{prepare}\nprint('ready', flush=True)\n"
    program += f"while not pathlib.Path('go').exists(): pass\n{act}\n"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": PYTHONPATH},
        )
        for _ in range(count)
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n", child.communicate()[1]
    (tmp_path / "go").touch()
    answers = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0] * count, answers
    return [out.strip() for out, _ in answers]


# ---------------------------------------------------------------------- projects


def test_a_project_is_new_until_it_is_connected_and_then_only_when_it_changes(storage):
    assert storage.put_project(3, UID, CONFIG, {})
    assert storage.put_project(3, UID, CONFIG, {})
    storage.update_project(3, connected_at=now())
    assert not storage.put_project(3, UID, CONFIG, {})
    assert storage.put_project(3, UID, CONFIG, {"budget": 5})
    assert storage.put_project(3, UID, "<View></View>", {"budget": 5})
    assert not storage.put_project(3, UID, "<View></View>", {"budget": 5})
    assert storage.project(3).policy == {"budget": 5}


def test_a_set_up_that_is_new_and_the_hint_that_it_is_come_together_or_not_at_all(storage):
    storage.put_project(3, UID, CONFIG, {})
    storage.update_project(3, connected_at=now())
    with pytest.raises(StatementError):  # as if killed before the hint was on disk
        storage.put_project(3, UID, CONFIG, {"budget": 5}, event=Unwritable())
    assert storage.put_project(3, UID, CONFIG, {"budget": 5}, event="SETUP")
    assert not storage.put_project(3, UID, CONFIG, {"budget": 5}, event="SETUP")
    assert [event.action for event in storage.waiting_events()] == ["SETUP"]


class Unwritable(str):
    """Text that cannot be written."""

    def encode(self, *_, **__):
        raise OverflowError


def test_an_unknown_project_is_none(storage):
    assert storage.project(99) is None
    assert storage.projects() == []


def test_a_claim_to_a_projects_number_that_label_studio_denies_changes_nothing(storage, project):
    storage.begin_round(3, 0, "connect")
    storage.put_project(3, "3.1900000000", CONFIG, {"budget": 5})
    storage.accept_project(3, "3.1795301030")
    kept = storage.project(3)
    assert (kept.uid, kept.policy, kept.claim, len(storage.rounds(3))) == ("3.1795301030", {}, None, 1)


def test_a_later_project_of_the_same_number_starts_from_nothing(storage, project):
    storage.put_project(4, "4.1", CONFIG, {})
    for number in (3, 4):
        storage.begin_round(number, 0, "connect")
        storage.add_event(number, "SETUP")
        storage.note_unusable(number, 0, {1: "damaged"})
    storage.update_project(3, serving_round=0, connected_at=now(), problem="old")

    assert storage.put_project(3, "3.1900000000", CONFIG, {"budget": 5})
    assert (storage.project(3).uid, len(storage.rounds(3))) == ("3.1795301030", 1)  # anybody may say so

    storage.accept_project(3, "3.1900000000")

    fresh = storage.project(3)
    assert (fresh.uid, fresh.policy) == ("3.1900000000", {"budget": 5})
    assert (fresh.serving_round, fresh.connected_at, fresh.problem) == (None, None, None)
    assert (storage.rounds(3), storage.unusable_tasks(3)) == ([], [])
    assert len(storage.events(3)) == 1  # hints are kept: the one that led here has to be seen to
    assert len(storage.rounds(4)) == len(storage.events(4)) == len(storage.unusable_tasks(4)) == 1


def test_the_same_new_project_noted_by_many_requests_at_once_is_one_project(storage):
    for number in range(10):
        results = at_once(*[lambda n=number: storage.put_project(n, f"{n}.1", CONFIG, {})] * 6)
        assert results == [True] * 6
    assert [row.id for row in storage.projects()] == list(range(10))


def test_text_that_no_database_holds_is_stored_all_the_same(storage, project):
    """Messages quote addresses and choices, which come from outside as any JSON text."""
    storage.update_project(3, problem="half a character \ud800, a NUL \0, Grüße, 数字")
    assert storage.project(3).problem == "half a character ?, a NUL ?, Grüße, 数字"


# ---------------------------------------------------------------------- inbox


def test_events_wait_in_the_order_in_which_they_came_until_they_are_done(storage):
    for action in "ABC":
        storage.add_event(3, action)
    storage.add_event(4, "D")
    waiting = storage.waiting_events()
    assert [(event.project_id, event.action) for event in waiting] == [(3, "A"), (3, "B"), (3, "C"), (4, "D")]
    storage.finish_events([waiting[1].id, waiting[3].id])
    assert [event.action for event in storage.waiting_events()] == ["A", "C"]
    assert [(event.action, event.done_at is not None) for event in storage.events(3)] == [
        ("A", False),
        ("B", True),
        ("C", False),
    ]


def test_the_same_event_twice_is_two_rows(storage):
    storage.add_event(3, "ANNOTATION_CREATED")
    storage.add_event(3, "ANNOTATION_CREATED")
    assert len(storage.waiting_events()) == 2


def test_no_event_is_lost_when_many_come_at_once(storage):
    calls = [lambda i=i: [storage.add_event(i, "X") for _ in range(10)] for i in range(8)]
    assert [result for result in at_once(*calls) if isinstance(result, Exception)] == []
    assert len(storage.waiting_events()) == 80


def test_finishing_no_events_finishes_none(storage):
    storage.add_event(3, "A")
    storage.finish_events([])
    assert len(storage.waiting_events()) == 1


def test_an_event_is_on_disk_when_it_is_acknowledged(storage, url):
    storage.add_event(3, "A")
    other = Storage(url)
    assert [event.action for event in other.waiting_events()] == ["A"]
    other.close()


# ---------------------------------------------------------------------- rounds


def test_beginning_a_round_closes_the_one_before(storage, project):
    assert storage.begin_round(3, 0, "connect")
    storage.update_round(3, 0, state="open", opened_at=now())
    assert storage.begin_round(3, 1, "budget")
    assert [(row.number, row.state, row.trigger) for row in storage.rounds(3)] == [
        (0, "closed", "connect"),
        (1, "computing", "budget"),
    ]
    assert storage.last_round(3).number == 1
    assert storage.published_round(3).number == 0


def test_a_round_that_exists_is_not_begun_again(storage, project):
    storage.begin_round(3, 0, "connect")
    storage.begin_round(3, 1, "budget")
    storage.update_round(3, 1, state="open")
    assert not storage.begin_round(3, 1, "button")
    assert (storage.round(3, 1).state, storage.round(3, 1).trigger) == ("open", "budget")


def test_of_threads_that_begin_a_round_at_once_one_does(storage, project):
    for number in range(20):
        results = at_once(*[lambda n=number: storage.begin_round(3, n, "budget")] * 4)
        assert sorted(results) == [False, False, False, True]
    assert [row.state for row in storage.rounds(3)] == ["closed"] * 19 + ["computing"]


def test_of_processes_that_begin_a_round_at_once_one_does(storage, project, url, tmp_path):
    printed = processes_at_once(
        tmp_path,
        3,
        prepare=f"storage = Storage({url!r})",
        act="print([storage.begin_round(3, number, 'budget') for number in range(30)])",
    )
    begun = [eval(text) for text in printed]
    assert [sum(column) for column in zip(*begun, strict=True)] == [1] * 30
    assert len(storage.rounds(3)) == 30


def test_a_round_of_a_project_that_is_gone_is_an_error_and_leaves_nothing(storage):
    with pytest.raises(IntegrityError):
        storage.begin_round(99, 0, "connect")
    assert storage.rounds(99) == []


def test_updating_a_round_sets_its_columns_and_no_others(storage, project):
    storage.begin_round(3, 0, "connect")
    storage.begin_round(3, 1, "budget")
    storage.update_round(3, 0, counted=7, version="kdal-r0")
    assert (storage.round(3, 0).counted, storage.round(3, 0).version) == (7, "kdal-r0")
    assert (storage.round(3, 1).counted, storage.round(3, 1).version) == (0, None)


def test_merging_adds_to_what_is_known_and_replaces_what_it_names(storage, project):
    storage.begin_round(3, 0, "connect")
    storage.merge_round(3, 0, facts={"labels": 5, "pool": 9}, seconds={"snapshot": 0.5})
    storage.merge_round(3, 0, facts={"pool": 8, "promoted": True})
    storage.merge_round(3, 0, seconds={"select": 1.5})
    row = storage.round(3, 0)
    assert row.facts == {"labels": 5, "pool": 8, "promoted": True}
    assert row.seconds == {"snapshot": 0.5, "select": 1.5}


def test_workers_that_merge_at_once_lose_nothing_of_each_other(storage, project):
    """Shards of a round are scored by several workers, and each notes its facts and seconds."""
    storage.begin_round(3, 0, "connect")

    def merge(worker):
        for i in range(20):
            storage.merge_round(3, 0, facts={f"{worker}-{i}": i})

    assert at_once(*[lambda w=worker: merge(w) for worker in range(4)]) == [None] * 4
    assert len(storage.round(3, 0).facts) == 80


# ---------------------------------------------------------------------- tasks set aside


def test_a_task_is_set_aside_once_with_its_last_reason(storage, project):
    storage.begin_round(3, 0, "connect")
    storage.note_unusable(3, 0, {1: "missing", 2: "damaged"})
    storage.note_unusable(3, 0, {1: "too large"})
    assert [(row.task_id, row.reason) for row in storage.unusable_tasks(3)] == [(1, "too large"), (2, "damaged")]


def test_tasks_set_aside_are_those_of_the_newest_round(storage, project):
    storage.begin_round(3, 0, "connect")
    storage.note_unusable(3, 0, {1: "missing", 2: "damaged"})
    storage.begin_round(3, 1, "budget")
    storage.note_unusable(3, 1, {2: "damaged"})
    assert [row.task_id for row in storage.unusable_tasks(3)] == [2]


# ---------------------------------------------------------------------- opening


def test_processes_that_create_the_tables_at_once_all_get_them(tmp_path, url):
    printed = processes_at_once(
        tmp_path,
        4,
        prepare="",
        act=f"storage = Storage({url!r})\nstorage.add_event(1, 'A')\nprint(len(storage.waiting_events()) > 0)",
    )
    assert printed == ["True"] * 4
    storage = Storage(url)
    assert len(storage.waiting_events()) == 4
    storage.close()


def test_the_folder_of_a_sqlite_file_is_made(tmp_path):
    Storage(f"sqlite:///{tmp_path}/deep/down/kdal.sqlite").close()
    assert (tmp_path / "deep" / "down" / "kdal.sqlite").is_file()


def test_a_block_that_fails_leaves_nothing_behind(storage):
    def fail_half_way():
        with storage.session() as session:
            session.connection().exec_driver_sql("INSERT INTO inbox (project_id, action, received_at) VALUES (1,'A',0)")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert storage.waiting_events() == []


@pytest.mark.parametrize(
    "wrong",
    [
        "nosuchdatabase://host/kdal",
        "sqlite:////proc/no/such/folder/kdal.sqlite",
        "postgresql+psycopg://kdal:hunter2@127.0.0.1:1/kdal?connect_timeout=2",
        "postgresql+nosuchdriver://kdal:hunter2@127.0.0.1/kdal",
        "hunter2",
    ],
)
def test_a_database_that_cannot_be_opened_is_a_config_error_without_its_password(wrong):
    with pytest.raises(ConfigError, match="KDAL_DATABASE_URL") as caught:
        Storage(wrong)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_database_is_a_config_error(tmp_path):
    (tmp_path / "kdal.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        Storage(f"sqlite:///{tmp_path}/kdal.sqlite")


# ---------------------------------------------------------------------- the tables themselves


def test_the_migrations_lead_to_the_tables_that_the_code_describes(storage):
    with storage.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_of_a_newer_kdal_is_refused_in_words(tmp_path):
    url = f"sqlite:///{tmp_path / 'kdal.sqlite'}"
    with Storage(url).session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="newer kdal"):
        Storage(url)
