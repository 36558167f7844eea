"""The wheel: models put in each other's place, the policy changed, rounds begun; what cannot be done is explained."""

import pytest

from kdal.labelstudio.connection import connect_backend
from kdal.rounds.store import RoundStore
from kdal.storage.tables import TeacherAccount, account_of
from kdal.web.app import create_app
from kdal.web.pages.policy_form import fields, problems, read, stamp
from kdal.web.pages.policy_store import KEPT, PolicyStore
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.label_studio import StandInLabelStudio
from tests.kdal.web.pages.site import PASSWORD, USER, Page, Site, form_token
from tests.kdal.web.requests import UID


@pytest.fixture
def models(add_round, resources, trained):
    """Rounds 1 and 2 have models; that of round 2 serves."""
    add_round(0, state="closed", facts={"why_untrained": "no labels yet"})
    for number in (1, 2):
        score = {"held_out_score": 0.5 + number / 10, "metric": "accuracy", "held_out": 30}
        facts = {"promoted": True, "labels": 50 * number, "trained_on": 45 * number, "student": "small_cnn"} | score
        add_round(number, state="open" if number == 2 else "closed", facts=facts)
        key = RoundStore(resources.assets, UID, number).key("distilled.safetensors")
        resources.assets.write(key, trained.checkpoint)
    resources.storage.update_project(3, serving_round=2)


def forms(site, path, word):
    return [a for a in site.get(path).of("form") if word in a["action"]]


def test_models_are_listed_newest_first_with_what_they_scored(site, models):
    text = site.get("/projects/3/panels/models").text
    assert "kdal-r2 serves." in text
    assert "kdal-r2 just now 90 labels 70.0% accuracy, 30 small_cnn kdal-r1 serves" in text
    assert "kdal-r1 just now 45 labels 60.0% accuracy, 30 small_cnn – Let it serve" in text


def test_a_project_without_a_model_says_when_there_will_be_one(site, project):
    assert "No model yet" in site.get("/projects/3/panels/models").text


@pytest.mark.parametrize("word", ["rollback", "promote"])
def test_an_earlier_model_is_put_in_place_by_a_round_of_its_own(site, models, resources, word):
    (form,) = forms(site, "/projects/3/panels/models", word)
    assert "hx-confirm" in form
    response = site.post(form["action"])
    assert response.headers["Location"] == "/projects/3?said=chosen"
    assert "A round of its own" in site.get(response.headers["Location"]).text.replace("Chosen: a", "A")
    last = resources.storage.last_round(3)
    assert (last.number, last.state, last.trigger) == (3, "computing", "models")
    assert [event.action for event in resources.storage.events(3)] == ["MODEL_CHOSEN"]


def test_while_a_round_computes_no_model_is_offered_and_none_is_taken(site, models, add_round, resources):
    add_round(3, state="computing")
    assert forms(site, "/projects/3/panels/models", "promote") == []
    for path in ("/projects/3/models/1/promote", "/projects/3/rollback"):
        response = site.post(path)
        assert response.status_code == 409
        assert "Not done." in response.text
        assert "round 3 is being computed" in response.text
    assert resources.storage.last_round(3).number == 3
    assert resources.storage.project(3).serving_round == 2


def test_a_model_that_is_not_there_is_explained(site, models, resources):
    response = site.post("/projects/3/models/7/promote")
    assert response.status_code == 409
    assert "round 7 has no model" in response.text
    resources.assets.delete(RoundStore(resources.assets, UID, 1).key("distilled.safetensors"))
    assert site.post("/projects/3/rollback").status_code == 409
    assert resources.storage.last_round(3).number == 2


def test_a_round_is_begun_by_hand_while_one_is_open(site, models, resources):
    resources.storage.note_unusable(3, 2, {7: "task 7: image <b>x</b> is damaged", 9: "no image"})
    page = site.get("/projects/3/panels/unusable")
    assert "2 tasks." in page.text
    assert "Task 7 task 7: image <b>x</b> is damaged" in page.text
    (form,) = [a for a in page.of("form") if "start" in a["action"]]
    assert site.post(form["action"]).headers["Location"] == "/projects/3?said=started"
    assert [event.action for event in resources.storage.events(3)] == ["START_TRAINING"]
    resources.storage.begin_round(3, 3, "button")
    assert site.post(form["action"]).headers["Location"] == "/projects/3?said=not-open"
    assert len(resources.storage.events(3)) == 1


def test_many_unusable_tasks_are_counted_and_some_named(site, add_round, resources):
    add_round(0)
    resources.storage.note_unusable(3, 0, dict.fromkeys(range(1, 301), "damaged"))
    page = site.get("/projects/3/panels/unusable")
    assert "300 tasks." in page.text
    assert len([a for a in page.of("a") if "task=" in a["href"]]) == 12
    assert "288 more tasks" in page.text


def test_a_teachers_spending_is_told(site, add_round, resources):
    add_round(0, facts={"query_budget": 5000, "money": 8.0, "currency": "EUR"})
    resources.storage.update_project(3, policy={"black_box": "oracle"})
    with resources.storage.session() as session:
        account = TeacherAccount(name=account_of(UID, "oracle"), teacher="t", classes=[], images=120, nanos=240_000_000)
        session.add(account)
    text = site.get("/projects/3/panels/health").text
    assert "Teacher oracle 120 of 5 000 queries, 0.24 of 8.00 EUR" in text


# ------------------------------------------------------------------ the policy


@pytest.fixture
def label_studio():
    with StandInLabelStudio() as server:
        yield server


@pytest.fixture
def owned(open_resources, label_studio):
    """A site on a project that a Label Studio knows, with kdal as its ML backend and a budget of 20."""
    resources = open_resources(auth_user=USER, auth_password=PASSWORD, label_studio_url=label_studio.url)
    project = label_studio.project(3, DIGITS_CONFIG, [])
    connect_backend(resources.settings, resources.label_studio, 3, {"budget": 20})
    resources.storage.put_project(3, project.uid, DIGITS_CONFIG, {"budget": 20})
    site = Site(create_app(resources).test_client())
    site.sign_in()
    site.resources, site.project = resources, project
    return site


def stored(owned):
    (backend,) = owned.project.backends.values()
    return backend["extra_params"]


def save(owned, page, **keys):
    (seen,) = [a["value"] for a in page.of("input", name="seen")]
    values = {a["name"]: a.get("value", "") for a in page.of("input") if a.get("name", "").startswith("key-")}
    values |= {f"key-{key}": value for key, value in keys.items()}
    return owned.post("/projects/3/policy", token=form_token(page.html), seen=seen, **values)


def test_the_form_shows_what_label_studio_has_and_what_each_key_means(owned):
    page = owned.get("/projects/3/policy")
    values = {a["name"].removeprefix("key-"): a.get("value") for a in page.of("input") if a["name"].startswith("key-")}
    assert {key: value for key, value in values.items() if value} == {"budget": "20"}
    assert set(values) == {field.key for field in fields()}
    assert "a round starts once this many tasks are labelled" in page.text
    assert [field.key for field in fields() if not field.about] in ([], ["seed"])


def test_a_change_is_written_to_label_studio_and_noted_with_who_and_when(owned):
    page = owned.get("/projects/3/policy")
    response = save(owned, page, budget="35", strategy="entropy", count_outside="false")
    assert response.headers["Location"] == "/projects/3?said=policy"
    assert stored(owned) == {"budget": 35, "strategy": "entropy", "count_outside": False}
    text = owned.get("/projects/3/panels/policy").text
    assert f"just now by {USER}:" in text
    assert "budget 20 → 35" in text
    assert 'strategy default → "entropy"' in text


def test_what_is_wrong_is_said_at_its_key_and_nothing_is_written(owned):
    page = owned.get("/projects/3/policy")
    response = save(owned, page, budget="0", strategy="<b>best</b>", eps="1", formula="four_case")
    assert response.status_code == 422
    wrong = {a["name"] for a in form_inputs(response.text) if a.get("aria-invalid")}
    assert wrong == {"key-budget"}
    again = save(owned, page, strategy="<b>best</b>")
    assert {a["name"] for a in form_inputs(again.text) if a.get("aria-invalid")} == {"key-strategy"}
    assert "&lt;b&gt;best" in again.text
    assert "<b>best" not in again.text
    assert stored(owned) == {"budget": 20}
    assert owned.get("/projects/3/panels/policy").text.count("by ") == 0


def form_inputs(html):
    return Page(html).of("input")


@pytest.mark.parametrize(
    ("policy", "key"),
    [
        ({"budget": "many"}, "budget"),
        ({"explore": 2}, "explore"),
        ({"price": 1.0}, "price"),
        ({"eps": 1.0, "formula": "four_case"}, "eps"),
        ({"budget_unit": "objects"}, "budget_unit"),
        ({"black_box": "nobody"}, "black_box"),
        ({"task": "boxes"}, "task"),
    ],
)
def test_each_kind_of_mistake_finds_its_key(resources, policy, key):
    assert list(problems(resources, DIGITS_CONFIG, policy)) == [key]


def test_values_are_json_or_bare_words():
    asked = {"key-budget": " 7 ", "key-strategy": "margin", "key-weights": '"none"', "key-eps": "", "key-x": "1"}
    assert read(asked) == {"budget": 7, "strategy": "margin", "weights": "none"}
    assert read({"key-parameters": '{"a": 1}', "key-student": "[" * 5000})["parameters"] == {"a": 1}


def test_of_two_owners_who_edit_at_once_the_second_is_told(owned):
    mine, theirs = owned.get("/projects/3/policy"), owned.get("/projects/3/policy")
    assert save(owned, theirs, budget="30").status_code == 303
    response = save(owned, mine, budget="40")
    assert response.status_code == 409
    assert "Somebody changed the policy" in response.text
    assert "It is now: 30" in response.text
    assert stored(owned) == {"budget": 30}
    assert save(owned, Page(response.text)).status_code == 303
    assert stored(owned) == {"budget": 40}


def test_a_change_made_in_label_studio_meanwhile_is_not_overwritten(owned):
    page = owned.get("/projects/3/policy")
    (number,) = owned.project.backends
    owned.project.backends[number]["extra_params"] = '{"budget": 12}'
    assert save(owned, page, budget="40").status_code == 409
    assert stored(owned) == '{"budget": 12}'


def test_a_label_studio_that_is_gone_is_explained(owned, label_studio):
    page = owned.get("/projects/3/policy")
    owned.project.backends.clear()
    response = save(owned, page, budget="40")
    assert response.status_code == 409
    assert "not among the ML backends" in response.text
    assert "not among the ML backends" in owned.get("/projects/3/policy", status=503).text


def test_the_history_is_bounded(owned):
    store = PolicyStore(owned.resources)
    project = owned.resources.storage.project(3)

    for budget in range(KEPT + 3):
        store.change(project, {"budget": budget + 1}, seen=stamp(store.current(project)), who="x")
    found = store.history(project)
    assert len(found) == KEPT
    assert found[0].policy == {"budget": KEPT + 3}
    assert found[-1].policy == {"budget": 4}
