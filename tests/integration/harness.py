"""What the integration tests share: a Label Studio client for tests, projects of real images, members."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import requests
from PIL import Image
from sklearn.datasets import load_digits

DIGITS_CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<Choices name="digit" toName="image" choice="single" required="true">'
    + "".join(f'<Choice value="{digit}"/>' for digit in range(10))
    + "</Choices></View>"
)
_FILES_PER_IMPORT = 100  # Django refuses a form of more files
_TIMEOUT = 120


class Api:
    """Label Studio's API as one of its users sees it: every answer that is not 2xx is an AssertionError.

    A test's own plain client: kdal's is under test here, so it does not check itself.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Token {token}"

    def request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """The answer to `method` on `path` ("/api/projects/"); keyword arguments as in `requests.request`."""
        response = self.session.request(method, self.url + path, timeout=_TIMEOUT, **arguments)
        assert response.ok, f"{method} {path}: {response.status_code} {response.text[:2000]}"
        return response

    def get(self, path: str, **params: Any) -> Any:
        """The JSON that GET answers; keyword arguments become the query."""
        return self.request("GET", path, params=params).json()

    def post(self, path: str, json: Any = None) -> Any:
        """The JSON that POST answers."""
        return self.request("POST", path, json=json).json()

    def patch(self, path: str, json: Any) -> Any:
        """The JSON that PATCH answers."""
        return self.request("PATCH", path, json=json).json()

    def delete(self, path: str, json: Any = None) -> None:
        """DELETE, whatever it answers with 2xx."""
        self.request("DELETE", path, json=json)

    def close(self) -> None:
        """Give the connections back."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Digits:
    """`n` handwritten digits: PNG files of 8 x 8 pixels, and what they show."""

    images: list[bytes]
    labels: list[int]


def real_digits(n: int, *, seed: int | None = None, size: int = 8) -> Digits:
    """The first `n` of scikit-learn's 1,797 digits, or `n` drawn with `seed`; `size` pixels wide and high."""
    source = load_digits()
    order = np.arange(len(source.images)) if seed is None else np.random.default_rng(seed).permutation(1797)
    assert n <= len(order), f"there are {len(order)} digits, not {n}"
    images = []
    for index in order[:n]:
        picture = Image.fromarray((source.images[index] * 255 / 16).round().astype(np.uint8))
        if size != 8:
            picture = picture.resize((size, size), Image.Resampling.NEAREST)
        file = io.BytesIO()
        picture.save(file, "PNG")
        images.append(file.getvalue())
    return Digits(images, [int(source.target[index]) for index in order[:n]])


@dataclass(frozen=True, eq=False)
class Project:
    """A project in Label Studio and its tasks, in the order of the images that it was made of."""

    api: Api
    id: int
    task_ids: list[int] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Its address in the API."""
        return f"/api/projects/{self.id}/"

    @cached_property
    def to_names(self) -> dict[str, tuple[str, str]]:
        """For each control of the labelling config: the object that it labels and its type."""
        controls = self.read()["parsed_label_config"]
        return {name: (control["to_name"][0], control["type"].lower()) for name, control in controls.items()}

    def read(self) -> dict[str, Any]:
        """The project as the API shows it."""
        answer: dict[str, Any] = self.api.get(self.path)
        return answer

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks with their annotations and predictions, by id."""
        query = {"project": self.id, "fields": "all", "resolve_uri": "false", "page_size": 10_000}
        tasks: list[dict[str, Any]] = self.api.get("/api/tasks/", **query)["tasks"]
        return sorted(tasks, key=lambda task: int(task["id"]))

    def next_task(self, api: Api | None = None) -> int | None:
        """The id of the task that Label Studio serves to the user of `api` next; None when there is none."""
        api = api or self.api
        response = api.session.get(f"{api.url}{self.path}next", timeout=_TIMEOUT)
        if response.status_code == requests.codes.not_found:
            return None
        assert response.ok, response.text
        return int(response.json()["id"])

    def annotate(
        self, task_id: int, label: str | int | list[dict[str, Any]], *, api: Api | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Submit an annotation as the user of `api`: a choice of the project's one `Choices` control, or regions.

        More fields go along, `was_cancelled=True` for one.
        """
        body = {"result": label if isinstance(label, list) else self.choice(label), "lead_time": 1.0, **fields}
        answer: dict[str, Any] = (api or self.api).post(f"/api/tasks/{task_id}/annotations/", body)
        return answer

    def choice(self, value: str | int) -> list[dict[str, Any]]:
        """An annotation's or prediction's result: that choice."""
        ((name, (to_name, kind)),) = self.to_names.items()
        return [{"from_name": name, "to_name": to_name, "type": kind, "value": {"choices": [str(value)]}}]


def create_project(
    api: Api,
    label_config: str = DIGITS_CONFIG,
    images: Sequence[bytes] = (),
    *,
    title: str = "a test's project",
    **fields: Any,
) -> Project:
    """A project whose tasks are PNG files, uploaded as a person uploads them.

    A task's data is then `{"image": "/data/upload/..."}`; `fields` are more of the project's own.
    """
    body = {"title": title, "label_config": label_config, **fields}
    project = Project(api, int(api.post("/api/projects/", body)["id"]))
    for start in range(0, len(images), _FILES_PER_IMPORT):
        batch = list(enumerate(images))[start : start + _FILES_PER_IMPORT]
        # Each file in a field of its own: of several in one field Label Studio keeps the last.
        files = {f"file{i}": (f"image-{i:05}.png", image, "image/png") for i, image in batch}
        answer = api.request("POST", f"/api/projects/{project.id}/import", files=files).json()
        assert answer["task_count"] == len(batch), answer
    by_image: dict[int, int] = {}
    for task in project.tasks():
        match = re.search(r"image-(\d{5})\.png$", str(next(iter(task["data"].values()))))
        assert match, task["data"]
        by_image[int(match[1])] = int(task["id"])
    assert sorted(by_image) == list(range(len(images)))
    project.task_ids.extend(by_image[index] for index in range(len(images)))
    return project


def push_order(project: Project, task_ids: Sequence[int], version: str, choices: Sequence[str | int]) -> None:
    """Put the queue in that order, with that pre-annotation of each task, by hand: without kdal."""
    predictions = [
        {
            "task": task_id,
            "result": project.choice(choice),
            "score": (rank + 1) / len(task_ids),
            "model_version": version,
        }
        for rank, (task_id, choice) in enumerate(zip(task_ids, choices, strict=True))
    ]
    answer = project.api.post(f"/api/projects/{project.id}/import/predictions", predictions)
    assert answer["created"] == len(predictions), answer
    project.api.patch(project.path, {"model_version": version, "sampling": "Uncertainty sampling"})


@dataclass(frozen=True)
class Member:
    """Somebody with an account, and the API as that person sees it."""

    email: str
    password: str
    api: Api

    @property
    def token(self) -> str:
        """The person's legacy token."""
        return self.api.token


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of a running S3 server."""

    url: str
    name: str
    client: Any
    env: dict[str, str]


def sign_in(url: str, email: str, password: str) -> requests.Session:
    """A browser's session of that person: cookies, no token."""
    session = requests.Session()
    form = {"email": email, "password": password, "persist_session": "on"}
    _submit(session, f"{url}/user/login/", form)
    return session


def sign_up(inviter: Api, email: str, password: str) -> Member:
    """A second member of the inviter's organisation, who followed the invite link and filled the form in."""
    invite = inviter.get("/api/invite")["invite_url"]
    session = requests.Session()
    with session:
        form = {"email": email, "password": password, "allow_newsletters": "false", "how_find_us": "other"}
        _submit(session, inviter.url + re.sub(r"^https?://[^/]+", "", invite), form)
        answer = session.get(f"{inviter.url}/api/current-user/token", timeout=_TIMEOUT)
        assert answer.ok, answer.text
        return Member(email, password, Api(inviter.url, str(answer.json()["token"])))


def _submit(session: requests.Session, address: str, form: dict[str, str]) -> None:
    """Fill in a form of Label Studio's; its success is a redirect."""
    page = session.get(address, timeout=_TIMEOUT)
    assert page.ok, page.text[:2000]
    match = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert match, "no CSRF token in the form"
    body = {**form, "csrfmiddlewaretoken": match[1]}
    answer = session.post(address, data=body, headers={"Referer": address}, allow_redirects=False, timeout=_TIMEOUT)
    assert answer.is_redirect, f"{address}: {answer.status_code} {answer.text[:3000]}"
