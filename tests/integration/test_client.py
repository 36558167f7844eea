"""kdal's client and its images on a real Label Studio: below a prefix, under two names, behind a redirect."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kdal.images.loader import ImageLoader
from kdal.images.refs import ImageRef
from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from kdal.processes.child import free_port
from kdal.processes.embedded import LABEL_STUDIO_VERSION, EmbeddedLabelStudio
from kdal.settings import Settings
from tests.integration import harness
from tests.integration.conftest import EMAIL, PASSWORD, TOKEN
from tests.integration.harness import Api, Digits, Project
from tests.integration.proxy import Proxy


@pytest.fixture(scope="module")
def mounted(label_studio_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, str]]:
    """A Label Studio below /ls of a proxy, with its SSRF guards on: the proxy, and the server's own address."""
    data = tmp_path_factory.mktemp("label-studio-below") / "data"
    shutil.copytree(label_studio_template, data)
    with Proxy("/ls") as proxy:
        env = {"LABEL_STUDIO_HOST": proxy.url, "USE_DEFAULT_BANNED_SUBNETS": "true"}
        with EmbeddedLabelStudio(data, free_port(), email=EMAIL, password=PASSWORD, token=TOKEN, env=env) as server:
            proxy.target = server.url
            yield proxy, server.url


@pytest.fixture(params=["below the prefix", "under two names"])
def settings(request: pytest.FixtureRequest, mounted: tuple[Proxy, str], tmp_path: Path) -> Settings:
    """kdal reaches Label Studio through the proxy; or directly, while people go through the proxy."""
    proxy, inner = mounted
    two = request.param == "under two names"
    return Settings(
        label_studio_url=inner if two else proxy.url,
        label_studio_public_url=proxy.url if two else "",
        label_studio_api_key=TOKEN,
        home=tmp_path / "kdal",
    )


def test_images_below_a_prefix_are_read_and_written_as_label_studio_writes_them(
    mounted: tuple[Proxy, str], settings: Settings, digits: Callable[..., Digits]
) -> None:
    images = digits(2).images
    client = LabelStudioClient.of(settings)
    with Api(mounted[0].url, TOKEN) as people:
        project = harness.create_project(people, images=images[:1])
    (address,) = client.upload_files(project.id, [("second.png", images[1])])
    assert client.import_tasks(project.id, [{"data": {"image": address}}]) == 1

    loader = ImageLoader(settings, client)
    tasks = list(client.tasks(project.id))
    assert [str(task["data"]["image"]).startswith("/ls/data/upload/") for task in tasks] == [True, True]
    assert [loader.file(ImageRef(task["id"], task["data"]["image"])) for task in tasks] == images
    whole = mounted[0].url + str(tasks[0]["data"]["image"]).removeprefix("/ls")
    assert loader.file(ImageRef(tasks[0]["id"], whole)) == images[0]
    assert mounted[0].refused == []


def test_a_banned_address_is_told_with_the_setting_that_allows_it(mounted: tuple[Proxy, str]) -> None:
    client = LabelStudioClient(mounted[0].url, TOKEN)
    project = int(client.create_project("banned", harness.DIGITS_CONFIG)["id"])
    url = "http://127.0.0.1:9090"
    with pytest.raises(LabelStudioError, match="USE_DEFAULT_BANNED_SUBNETS=false"):
        client.create_backend(url=url, project=project, title="kdal")
    with pytest.raises(LabelStudioError, match="USE_DEFAULT_BANNED_SUBNETS=false"):
        client.create_webhook(url=f"{url}/webhook", project=project, actions=["ANNOTATION_CREATED"])


def test_a_redirect_is_an_error_that_says_what_to_set_and_nothing_is_done(
    label_studio: EmbeddedLabelStudio, make_project: Callable[..., Project], digits: Callable[..., Digits]
) -> None:
    project = make_project(images=digits(1).images)
    prediction = {"task": project.task_ids[0], "result": project.choice(1), "score": 0.5, "model_version": "v"}
    with Proxy(redirects_to=label_studio.url) as moved:
        client = LabelStudioClient(moved.url, TOKEN)
        with pytest.raises(LabelStudioError, match=f"set LABEL_STUDIO_URL to {label_studio.url}$"):
            client.import_predictions(project.id, [prediction])
        with pytest.raises(LabelStudioError, match=f"set LABEL_STUDIO_URL to {label_studio.url}$"):
            client.project(project.id)
    assert LabelStudioClient(label_studio.url, TOKEN).prediction_counts(project.id) == {}


def test_labels_are_counted_and_those_that_changed_are_found(
    label_studio: EmbeddedLabelStudio, make_project: Callable[..., Project], digits: Callable[..., Digits], ls_api: Api
) -> None:
    client = LabelStudioClient(label_studio.url, TOKEN)
    project = make_project(images=digits(5).images)
    a, b, c, d, _ = project.task_ids
    began = datetime.now(UTC) - timedelta(milliseconds=1)

    def changed(work: Callable[[], object]) -> set[int]:
        before = max(datetime.fromisoformat(task["updated_at"]) for task in project.tasks())
        work()
        return client.labelled_after(project.id, before)

    annotation = project.annotate(a, 1)
    assert client.labelled_after(project.id, began) == {a}
    assert changed(lambda: project.annotate(b, 2)) == {b}
    assert changed(lambda: ls_api.patch(f"/api/annotations/{annotation['id']}/", {"result": project.choice(3)})) == {a}
    assert changed(lambda: project.annotate(c, 1, was_cancelled=True)) == set()
    assert changed(lambda: harness.push_order(project, project.task_ids, "an order", [0] * 5)) == set()
    ls_api.patch(project.path, {"maximum_annotations": 2})  # completed_at is empty now for all that have one
    assert changed(lambda: project.annotate(d, 1)) == {d}
    assert client.labelled_ids(project.id) == client.labelled_after(project.id, began) == {a, b, d}
    assert (client.labelled_count(project.id), client.skipped_count(project.id), client.open_count(project.id)) == (
        3,
        1,
        1,
    )


def test_a_personal_access_token_reads_projects_and_images(
    label_studio: EmbeddedLabelStudio,
    make_project: Callable[..., Project],
    digits: Callable[..., Digits],
    ls_api: Api,
    tmp_path: Path,
) -> None:
    images = digits(1).images
    project = make_project(images=images)
    settings = Settings(
        label_studio_url=label_studio.url,
        label_studio_api_key=str(ls_api.post("/api/token/")["token"]),
        home=tmp_path / "kdal",
    )
    client = LabelStudioClient.of(settings)
    assert client.version() == LABEL_STUDIO_VERSION
    (task,) = client.tasks(project.id)
    assert ImageLoader(settings, client).file(ImageRef(task["id"], task["data"]["image"])) == images[0]
