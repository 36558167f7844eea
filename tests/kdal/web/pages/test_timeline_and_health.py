"""The panels of earlier rounds and of the machinery."""

from datetime import timedelta

from kdal.storage.tables import WorkerBeat, now
from kdal.web.pages.panels.timeline import SHOWN


def test_the_newest_round_comes_first_with_its_outcome(site, add_round, resources):
    add_round(0, state="closed", facts={"labels": 0, "why_untrained": "no labels yet"})
    add_round(1, state="closed", facts={"labels": 50, "promoted": True, "held_out_score": 0.5, "metric": "accuracy"})
    add_round(2, facts={"labels": 100, "promoted": False, "verdict": "kdal-r1 goes on serving."}, seconds={"score": 75})
    resources.storage.update_project(3, serving_round=1)
    text = site.get("/projects/3/panels/timeline").text
    assert "2 just now the batch was full 100 1 min 15 s – not promoted kdal-r1 goes on serving." in text
    assert "1 just now the batch was full 50 0 s 50.0% serves" in text
    assert "0 just now the project was connected 0 0 s – no model No labels yet." in text
    assert text.index("goes on serving") < text.index("50.0%")


def test_a_long_history_is_cut(site, add_round):
    for number in range(SHOWN + 3):
        add_round(number, state="closed")
    page = site.get("/projects/3/panels/timeline")
    assert len(page.of("tr")) == SHOWN + 1
    assert "3 earlier rounds" in page.text


def test_no_worker_is_a_problem(site, project):
    assert "No worker is running" in site.get("/projects/3/panels/health").text


def test_workers_are_alive_or_were_last_seen(site, project, resources):
    resources.storage.beat("quick")
    with resources.storage.session() as session:
        session.add(WorkerBeat(name="gone", beats=1, beat_at=now() - timedelta(minutes=30)))
    text = site.get("/projects/3/panels/health").text
    assert "quick, alive" in text
    assert "gone, last seen 30 min ago" in text
    assert "No worker is running" not in text


def test_events_that_wait_are_counted_and_their_age_told(site, project, resources):
    assert "none waiting" in site.get("/projects/3/panels/health").text
    resources.storage.add_event(3, "ANNOTATION_CREATED")
    resources.storage.add_event(9, "ANNOTATION_CREATED")
    assert "1 event waiting, the oldest for less than a minute" in site.get("/projects/3/panels/health").text


def test_a_label_studio_that_does_not_answer_is_said_once_that_is_known(site, project):
    for _ in range(200):
        if "does not answer" in site.get("/projects/3/panels/health").text:
            return
        site.client.get("/projects")
    raise AssertionError(site.get("/projects/3/panels/health").text)
