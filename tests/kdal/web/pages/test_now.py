"""The panel "Round now": what is going on, what comes next, and when."""

from datetime import timedelta

import pytest

from kdal.storage.tables import now

SECONDS = {"snapshot": 2, "features": 20, "train heads": 10, "promote": 1, "score": 4, "select": 1, "publish": 2}


def told(site):
    return site.get("/projects/3/panels/now").text


def test_a_project_that_no_worker_has_seen_says_what_it_waits_for(site, project):
    assert "Waiting for a worker" in told(site)


def test_an_open_round_says_how_many_labels_are_missing_and_when_it_will_be_full(site, add_round):
    add_round(0, state="closed", seconds=SECONDS)
    add_round(1, counted=20, opened_at=now() - timedelta(hours=2), seconds={"snapshot": 31})
    text = told(site)
    assert "20 of 50 labels in round 1" in text
    assert "30 more labels, and kdal retrains, which took 31 s the last time." in text
    assert "10 labels an hour" in text
    assert "in about 3 h." in text


def test_the_first_labels_tell_no_pace(site, add_round):
    add_round(0, counted=2, opened_at=now() - timedelta(hours=2))
    assert "the first labels have to show" in told(site)


def test_objects_are_counted_where_the_policy_counts_them(site, add_round, resources):
    add_round(0, counted=7)
    resources.storage.update_project(3, policy={"budget_unit": "objects"})
    assert "7 of 50 objects in round 0" in told(site)


def test_it_says_who_made_the_labels(site, add_round):
    add_round(0, counted=12, facts={"labelled_by": {"4": 2, "7": 10}})
    assert "Labelled by user 7 10 user 4 2" in told(site)


def test_many_people_are_added_up(site, add_round):
    add_round(0, counted=30, facts={"labelled_by": {str(number): 1 for number in range(30)}})
    assert "others 22" in told(site)


def test_a_round_that_is_computed_says_its_step_and_the_time_left(site, add_round):
    add_round(0, state="closed", seconds=SECONDS, facts={"trains": True})
    add_round(
        1,
        state="computing",
        step="train heads",
        progress=0.4,
        seconds={"snapshot": 2, "features": 1},
        facts={"trains": True},
    )
    page = site.get("/projects/3/panels/now")
    assert "Round 1 is being computed" in page.text
    # 10 s · 0.6 of this step, and 1 + 4 + 1 + 2 of those to come
    assert "Training, 40%. About 14 s left" in page.text
    assert "Annotators go on in the order of round 0" in page.text
    states = [a["class"] for a in page.of("li")]
    assert states == ["done", "done", "now", "ahead", "ahead", "ahead", "ahead"]


def test_the_first_round_can_tell_no_time(site, add_round):
    add_round(0, state="computing", step="features", progress=0.1)
    text = told(site)
    assert "Looking at the images, 10%." in text
    assert "the first round of its kind has to show" in text


def test_a_failed_round_says_why_and_when_it_is_tried_again(site, add_round):
    add_round(0, state="failed", step="publish", error="Label Studio refuses the token", retry_at=now())
    text = told(site)
    assert "Round 0 has failed" in text
    assert "While sending the order to Label Studio: Label Studio refuses the token." in text
    assert "It is tried again at" in text


@pytest.mark.parametrize("state", ["computing", "failed"])
def test_the_button_cancels_the_round_and_says_what_follows(site, add_round, resources, state):
    add_round(0, state=state)
    (form,) = [a for a in site.get("/projects/3").of("form") if "cancel" in a["action"]]
    response = site.post(form["action"])
    assert response.headers["Location"] == "/projects/3?said=cancelled"
    assert "The round is cancelled" in site.get(response.headers["Location"]).text
    assert resources.storage.round(3, 0).state == "cancelled"
    assert [event.action for event in resources.storage.events(3)] == ["ROUND_CANCELLED"]
    again = site.post(form["action"])
    assert "nothing to cancel" in site.get(again.headers["Location"]).text
    assert [event.action for event in resources.storage.events(3)] == ["ROUND_CANCELLED"]


def test_an_open_round_has_nothing_to_cancel(site, add_round):
    add_round(0)
    assert "cancel" not in site.get("/projects/3/panels/now").html.lower()


def test_after_a_cancelled_round_labels_count_for_the_next(site, add_round):
    add_round(0, state="closed", counted=50)
    add_round(1, state="cancelled", counted=4)
    assert "4 of 50 labels in the batch after round 1, which was cancelled" in told(site)


def test_everything_labelled_is_said(site, add_round):
    add_round(0, budget=0)
    assert "Everything is labelled" in told(site)


def test_a_disconnected_project_says_so(site, add_round, resources):
    add_round(0)
    resources.storage.disconnect_project(3)
    assert "kdal was taken out of this project" in told(site)


def test_missing_pretrained_weights_are_said(site, add_round):
    add_round(0, facts={"why_no_backbones": "no hub can be reached", "why_untrained": "no labels yet"})
    text = told(site)
    assert "No pretrained weights" in text
    assert "No hub can be reached." in text
    assert "No model serves yet: No labels yet." in text
