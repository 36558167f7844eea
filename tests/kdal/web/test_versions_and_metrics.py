import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kdal.web.requests import SETUP, UID, error_of


def test_versions_are_the_published_orders_newest_first(serving, resources):
    resources.storage.begin_round(3, 1, "budget")
    assert serving.get("/versions").get_json() == {"versions": ["kdal-r0"]}
    resources.storage.update_round(3, 1, version="kdal-r1")
    assert serving.get("/versions").get_json() == {"versions": ["kdal-r1", "kdal-r0"]}
    assert serving.get("/versions", query_string={"project": UID}).get_json() == {"versions": ["kdal-r1", "kdal-r0"]}
    assert serving.get("/versions", query_string={"project": "4.1"}).get_json() == {"versions": []}
    assert serving.post("/setup", json=SETUP).get_json() == {"model_version": "kdal-r0"}  # round 1 is not open yet


@pytest.mark.parametrize("project", ["", "3", "x", "3.1.1", "3.1'--"])
def test_versions_of_what_is_no_project_are_a_400(app, project):
    error_of(app.get("/versions", query_string={"project": project}), 400)


def metrics(app):
    response = app.get("/metrics")
    assert response.status_code == 200
    samples = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    return {(sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value for sample in samples}


def test_the_metrics_carry_the_figures_of_the_requests_and_of_the_projects(serving, resources, secret):
    serving.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": {"id": 3}}, headers=secret)
    serving.post("/predict", data=b"{")
    serving.get("/nothing")
    resources.storage.note_unusable(3, 0, {7: "damaged", 8: "missing"})
    found = metrics(serving)
    assert found["kdal_requests_total", "/setup", "200"] == 1
    assert found["kdal_requests_total", "/predict", "400"] == 1
    assert found["kdal_requests_total", "/webhook", "200"] == 1
    assert found["kdal_requests_total", "unknown", "404"] == 1
    assert found["kdal_request_seconds_count", "/setup"] == 1
    assert found["kdal_round", "3"] == 0
    assert found["kdal_labels_counted", "3"] == 1
    assert found["kdal_labels_budget", "3"] == 2
    assert found["kdal_round_failed", "3"] == 0
    assert found["kdal_tasks_set_aside", "3"] == 2
    assert found["kdal_round_seconds", "3"] == 1.75
    assert found["kdal_events_waiting",] == 2
    assert found["kdal_workers",] == 0
    resources.storage.beat("worker-1")
    assert metrics(serving)["kdal_workers",] == 1


def test_a_failed_round_shows_in_the_metrics(serving, resources):
    resources.storage.begin_round(3, 1, "budget")
    resources.storage.update_round(3, 1, state="failed", error="no")
    found = metrics(serving)
    assert (found["kdal_round", "3"], found["kdal_round_failed", "3"]) == (1, 1)
    assert found["kdal_labels_budget", "3"] == 2  # annotators still work through round 0
