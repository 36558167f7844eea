import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from kdal.processes.child import free_port
from kdal.web.app import create_app
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
    serving.post("/setup", json=SETUP)
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


def test_the_metrics_say_how_the_inbox_the_rounds_the_models_and_the_workers_stand(serving, resources):
    storage = resources.storage
    before = metrics(serving)
    assert (before["kdal_events_total",], before["kdal_inbox_age_seconds",] > 0) == (1, True)  # of the set-up
    assert before["kdal_serving_round", "3"] == 0
    assert ("kdal_held_out_score", "3") not in before
    storage.finish_events([event.id for event in storage.waiting_events()])
    storage.begin_round(3, 1, "budget")
    storage.merge_round(3, 1, facts={"promoted": False, "held_out_score": 0.75})
    storage.beat("worker-9")
    found = metrics(serving)
    assert (found["kdal_events_total",], found["kdal_inbox_age_seconds",]) == (1, 0)
    assert {key[2]: value for key, value in found.items() if key[0] == "kdal_rounds"} == {
        "computing": 1,
        "open": 0,
        "closed": 1,
        "failed": 0,
        "cancelled": 0,
    }
    assert (found["kdal_step_seconds", "3", "snapshot"], found["kdal_step_seconds", "3", "select"]) == (0.5, 1.25)
    assert (found["kdal_held_out_score", "3"], found["kdal_model_promoted", "3"]) == (0.75, 0)
    assert 0 <= found["kdal_queue_age_seconds", "3"] < 600
    assert 0 < found["kdal_round_computing_seconds", "3"] < 600
    assert 0 <= found["kdal_worker_beat_age_seconds", "worker-9"] < 600
    assert found["kdal_project_problem", "3"] == 0
    storage.update_project(3, problem="Label Studio is away")
    assert metrics(serving)["kdal_project_problem", "3"] == 1
    storage.disconnect_project(3)
    assert ("kdal_round", "3") not in metrics(serving)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("0, 1024, 81559\n1, 0, 81559\n", [(0, 1024, 81559), (1, 0, 81559)]), ("0, [N/A], [N/A]\n", []), ("", [])],
)
def test_memory_of_gpus_is_what_the_driver_says(serving, env, tmp_path, answer, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
    program.chmod(0o755)
    env.setenv("PATH", str(tmp_path), prepend=":")
    found = metrics(serving)
    mib = 1024**2
    used = [(int(key[1]), value / mib) for key, value in found.items() if key[0] == "kdal_gpu_memory_used_bytes"]
    assert used == [(index, used) for index, used, _ in expected]
    assert all(found["kdal_gpu_memory_total_bytes", str(index)] == total * mib for index, _, total in expected)


def test_kdal_is_ready_once_a_worker_lives_and_says_what_is_missing_before(serving, resources):
    answer = serving.get("/ready")
    assert (answer.status_code, answer.get_json()) == (503, {"status": "NOT READY", "missing": ["worker"]})
    resources.storage.beat("worker-1")
    answer = serving.get("/ready")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "READY", "missing": []})
    assert serving.get("/health").status_code == 200
    with resources.storage.session() as session:
        session.execute(text("DROP TABLE workers"))
    assert serving.get("/ready").get_json()["missing"] == ["database"]


def test_kdal_is_not_ready_while_its_assets_are_out_of_reach(open_resources, env):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        env.setenv(name, "x")
    env.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    env.setenv("AWS_DEFAULT_REGION", "us-east-1")
    resources = open_resources(assets="s3://bucket/kdal", auth_user="owner", auth_password="secret")
    resources.storage.beat("worker-1")
    answer = create_app(resources).test_client().get("/ready")
    assert (answer.status_code, answer.get_json()["missing"]) == (503, ["assets"])


def test_a_failed_round_shows_in_the_metrics(serving, resources):
    resources.storage.begin_round(3, 1, "budget")
    resources.storage.update_round(3, 1, state="failed", error="no")
    found = metrics(serving)
    assert (found["kdal_round", "3"], found["kdal_round_failed", "3"]) == (1, 1)
    assert found["kdal_labels_budget", "3"] == 2  # annotators still work through round 0
