"""How a black-box teacher is described in a file: where it is, how it is asked, how its answers are read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from kdal_core.errors import ConfigError

Json = Any
Names = tuple[Annotated[str, Field(min_length=1)], ...]
IMAGES, IMAGE = "$images", "$image"
"""What a request's template says where the images, or the text of one image, belong."""


def _holds(template: Json, found: Any) -> bool:
    """Whether any text of a JSON value is one that `found` says yes to."""
    if isinstance(template, str):
        return bool(found(template))
    inner = template.values() if isinstance(template, dict) else template if isinstance(template, list | tuple) else ()
    return any(_holds(value, found) for value in inner)


class Part(BaseModel):
    """A part of a teacher's description. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AuthSettings(Part):
    """A secret that is sent in a header. It is read from the environment, and never written down or logged."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Name of the environment variable that holds it."""
    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] = "Authorization"
    prefix: str = "Bearer "
    """What stands before it in the header."""
    user: str | None = None
    """Name of the user when it is a password of basic authentication; header and prefix do not count then."""

    def secret(self) -> str:
        """What the variable holds."""
        value = os.environ.get(self.env, "").strip()
        if not value:
            raise ConfigError(f"The teacher needs a secret: set the environment variable {self.env}.")
        if not re.fullmatch(r"[\x20-\x7e]+", value):
            raise ConfigError(f"The environment variable {self.env} holds characters that no HTTP header can.")
        return value


class TransportSettings(Part):
    """What all teachers behind an address have in common."""

    url: str
    classes: Annotated[Names, Field(min_length=2)]
    """The classes that the student learns, by name, in the student's order."""
    names: dict[str, str] = {}
    """The teacher's names of those classes that it calls differently: {its: ours}."""
    auth: AuthSettings | None = None
    headers: dict[str, str] = {}
    """Further headers. No secrets: these are written down with the run."""
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 32
    """Images of one request."""
    workers: Annotated[int, Field(ge=1, le=256)] = 4
    """Requests under way at once."""
    images_per_second: Annotated[float, Field(gt=0)] | None = None
    """Never ask faster than this."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Seconds that a request may take."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 6
    """How often a request is sent that was certainly not charged: no connection, 429, 503."""
    paid_attempts: Annotated[int, Field(ge=1, le=100)] = 2
    """How often a request is sent whose answer was lost on the way, or that failed inside the teacher: it may have been
    charged, and counts in the budget each time."""
    patience: Annotated[float, Field(ge=0, le=3600)] = 60.0
    """The longest pause, in seconds, before a request is sent again; a teacher that asks for a longer one ends the run,
    which can be resumed later."""
    pause: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """Seconds before the second attempt; doubles with each one."""
    idempotency_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] | None = None
    """A header by whose value the teacher knows a request that it has charged already ("Idempotency-Key"): then a lost
    answer is fetched again at no cost."""

    @field_validator("url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address such as https://host/path")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no password: name an environment variable under auth")
        return value.rstrip("/")

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: Names) -> Names:
        if len(set(value)) != len(value):
            raise ValueError("must be different names")
        return value

    @model_validator(mode="after")
    def _names_lead_to_classes(self) -> TransportSettings:
        if wrong := sorted(set(self.names.values()) - set(self.classes)):
            raise ValueError(f"names leads to {', '.join(wrong)}, which no class is called")
        return self

    def identity(self, kind: str) -> str:
        """Tells the teacher from others: whatever changes what it answers, and nothing about speed or secrets."""
        speed = {"auth", "batch_size", "workers", "images_per_second", "timeout", "attempts"}
        speed |= {"paid_attempts", "patience", "pause", "idempotency_header"}
        asked = json.dumps(self.model_dump(mode="json", exclude=speed), sort_keys=True)
        return f"{kind} {self.url} {hashlib.sha256(asked.encode()).hexdigest()[:12]}"


class PictureSettings(Part):
    """How an image travels."""

    format: Literal["png", "jpeg"] = "png"
    """png keeps every pixel; jpeg is smaller, and the teacher sees a slightly different image."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """Of a jpeg."""
    mode: Literal["RGB", "L"] = "RGB"
    """L: grey, for teachers that want one channel."""


class JsonRequest(Part):
    """A JSON body. `"$images"` in it becomes a list of `item`, one for each image, in which "$image" is the image in
    base64, also as a part of a longer text. Without "$images" the body itself holds "$image", one image a request."""

    form: Literal["json"] = "json"
    body: Json = {"images": IMAGES}
    item: Json = IMAGE

    @property
    def batches(self) -> bool:
        """Whether it takes several images."""
        return _holds(self.body, lambda text: text == IMAGES)

    @model_validator(mode="after")
    def _has_a_place_for_images(self) -> JsonRequest:
        image = self.item if self.batches else self.body
        if not _holds(image, lambda text: IMAGE in text and text != IMAGES):
            raise ValueError(f'the request has no place for an image: no "{IMAGE}" in the item, or in the body')
        return self


class MultipartRequest(Part):
    """A form with files, as browsers send it: a file part for each image."""

    form: Literal["multipart"]
    field: str = "files"
    """Name of each image's part."""
    fields: dict[str, str] = {}
    """Further fields of the form."""
    batches: bool = True
    """Whether it takes several images."""


class RawRequest(Part):
    """The image file itself as the body, one image a request."""

    form: Literal["raw"]

    @property
    def batches(self) -> bool:
        """Never."""
        return False


class ResponseSettings(Part):
    """Where a JSON answer holds the probabilities."""

    probabilities: str = "probabilities"
    """A JMESPath expression (jmespath.org). What it finds has an entry for each image: a list of numbers, an object
    {class: number}, or a list of objects with a label and a score. For one image it may be the entry itself."""
    classes: str | None = None
    """A JMESPath expression that finds the names of the columns; null: the answer does not tell them."""
    order: Names | None = None
    """The teacher's names of its columns, where the answer does not tell them and they are not in our order."""
    label: str = "label"
    """Key of the class in a list of objects."""
    score: str = "score"
    """Key of the probability in a list of objects."""

    @field_validator("probabilities", "classes")
    @classmethod
    def _is_an_expression(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                jmespath.compile(value)
        except JMESPathError as error:
            raise ValueError(f"is no JMESPath expression: {error}") from error
        return value


class HttpTeacherSettings(TransportSettings):
    """Any HTTP endpoint that classifies images."""

    kind: Literal["http"]
    request: Annotated[JsonRequest | MultipartRequest | RawRequest, Field(discriminator="form")] = JsonRequest()
    response: ResponseSettings = ResponseSettings()
    picture: PictureSettings = PictureSettings()

    @model_validator(mode="after")
    def _asks_for_one(self) -> HttpTeacherSettings:
        if not self.request.batches and self.batch_size != 1:
            raise ValueError("the request takes one image at a time: set batch_size: 1")
        if self.response.order is not None:
            ours = [self.names.get(name, name) for name in self.response.order]
            if sorted(ours) != sorted(self.classes):
                raise ValueError("response.order must name each class once")
        return self


class MLBackendTeacherSettings(TransportSettings):
    """Another Label Studio ML backend, asked as Label Studio asks it."""

    kind: Literal["ml_backend"]
    project: str = "1.0"
    """The project that it is asked about, "<id>.<created>"; another kdal wants one that it is connected to."""
    label_config: str | None = None
    """The labelling config it is told; null: an image and the classes as choices."""
    data_key: str = "image"
    """Key of the image in the task's data."""
    rest: Literal["spread", "refuse"] = "spread"
    """A backend that names its best class alone: spread what is left of its score evenly over the other classes, or
    refuse the answer. One that scores every class is read as it is."""
    picture: PictureSettings = PictureSettings()


class RecordedTeacherSettings(Part):
    """Answers from a file, see `kdal_core.distillation.RecordedTeacher`."""

    kind: Literal["recorded"]
    path: Path

    def identity(self, kind: str) -> str:
        """The file."""
        return f"{kind} {self.path}"


class CheckpointTeacherSettings(Part):
    """A classifier of kdal's own as a black box: a checkpoint in safetensors."""

    kind: Literal["checkpoint"]
    path: Path

    def identity(self, kind: str) -> str:
        """The file."""
        return f"{kind} {self.path}"


TeacherSettings = Annotated[
    HttpTeacherSettings | MLBackendTeacherSettings | RecordedTeacherSettings | CheckpointTeacherSettings,
    Field(discriminator="kind"),
]


def problems(error: ValidationError) -> str:
    """What is wrong with a description, each thing with its key."""
    parts = [(".".join(str(key) for key in part["loc"]), part["msg"]) for part in error.errors()]
    return "; ".join(f"{key}: {why}" if key else why for key, why in parts)


def parse_teacher(settings: Any) -> TeacherSettings:
    """A teacher's description from a mapping, as a YAML file holds it.

    Raises:
        ConfigError: names each unknown key and each wrong value.
    """
    adapter: TypeAdapter[TeacherSettings] = TypeAdapter(TeacherSettings)
    try:
        return adapter.validate_python(settings)
    except ValidationError as error:
        raise ConfigError(f"teacher: {problems(error)}") from error
