"""Teachers behind an address: any HTTP endpoint, and other ML backends of Label Studio."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import torch
from torch import Tensor

from kdal.teachers.config import HttpTeacherSettings, MLBackendTeacherSettings, MultipartRequest, RawRequest
from kdal.teachers.encoding import data_address, encoded, filled, media_type
from kdal.teachers.responses import Columns, Row, read_answer, read_ml_backend
from kdal.teachers.transport import Transport
from kdal_core.distillation import RequestPolicy
from kdal_core.distillation.teacher import check_images
from kdal_core.errors import TeacherError


class HttpTeacher:
    """Any HTTP endpoint, by its settings' templates. Safe to ask from several threads."""

    def __init__(self, settings: HttpTeacherSettings) -> None:
        self._settings, self._transport = settings, Transport(settings)
        self._columns = Columns(settings.classes, settings.names)
        self.manner = _request_policy(settings)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of its answers' columns."""
        return self._settings.classes

    def query(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> probabilities (N, C) float32; one request."""
        files = [encoded(image, self._settings.picture) for image in check_images(images)]
        body = self._transport.post(self._settings.url, len(files), _key(files), **self._body(files))
        return _tensor(read_answer(body, len(files), self._settings.response, self._columns))

    def _body(self, files: Sequence[bytes]) -> dict[str, Any]:
        """What `requests` sends: the template with the images."""
        request, kind = self._settings.request, media_type(self._settings.picture)
        if isinstance(request, RawRequest):
            return {"data": files[0], "headers": {"Content-Type": kind}}
        if isinstance(request, MultipartRequest):
            name = f"image.{self._settings.picture.format}"
            return {"files": [(request.field, (name, file, kind)) for file in files], "data": dict(request.fields)}
        return {"json": filled(request.body, request.item, files)}


class MLBackendTeacher:
    """Another Label Studio ML backend. Images travel inside the tasks, as data: addresses."""

    def __init__(self, settings: MLBackendTeacherSettings) -> None:
        self._settings, self._transport = settings, Transport(settings)
        self._columns = Columns(settings.classes, settings.names)
        self._label_config = settings.label_config or _label_config(settings)
        self.manner = _request_policy(settings)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of its answers' columns."""
        return self._settings.classes

    def query(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> probabilities (N, C) float32; one request."""
        files = [encoded(image, self._settings.picture) for image in check_images(images)]
        tasks = [
            {"id": number, "data": {self._settings.data_key: data_address(file, self._settings.picture)}}
            for number, file in enumerate(files, start=1)
        ]
        asked = {
            "tasks": tasks,
            "project": self._settings.project,
            "label_config": self._label_config,
            "params": {"context": None},
        }
        body = self._transport.post(f"{self._settings.url}/predict", len(files), _key(files), json=asked)
        return _tensor(read_ml_backend(body, len(files), self._settings, self._columns))


def _request_policy(settings: HttpTeacherSettings | MLBackendTeacherSettings) -> RequestPolicy:
    return RequestPolicy(
        batch_size=settings.batch_size,
        workers=settings.workers,
        attempts=settings.paid_attempts,
        pause=min(settings.pause, settings.patience),
    )


def _key(files: Sequence[bytes]) -> str:
    """The same for the same images in the same order."""
    return hashlib.sha256(b"".join(hashlib.sha256(file).digest() for file in files)).hexdigest()


def _tensor(rows: list[Row]) -> Tensor:
    try:
        return torch.tensor(rows, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TeacherError(f"The teacher's answer is no table of numbers: {error}") from error


def _label_config(settings: MLBackendTeacherSettings) -> str:
    """An image and a choice for each of the classes, as the backend calls them."""
    theirs = {ours: name for name, ours in settings.names.items()}
    choices = "".join(f"<Choice value={quoteattr(theirs.get(name, name))}/>" for name in settings.classes)
    image = f"<Image name={quoteattr('image')} value={quoteattr('$' + settings.data_key)}/>"
    return f'<View>{image}<Choices name="choice" toName="image">{choices}</Choices></View>'
