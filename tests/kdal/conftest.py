"""What the backend's tests share: settings in a folder of their own, real parts opened on them, a real model."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from kdal.processes.child import free_port
from kdal.processes.embedded import EmbeddedS3
from kdal.resources import Resources
from kdal.settings import Settings
from kdal_core.tasks import get_task
from kdal_core.training import ModelSpec, TrainConfig, save_checkpoint, train
from tests.kdal.servers import Web

TOKEN = "0123456789abcdef0123456789abcdef01234567"
DIGITS_CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="digit" toName="image">'
    + "".join(f'<Choice value="{digit}"/>' for digit in range(10))
    + "</Choices></View>"
)


@pytest.fixture
def env(tmp_path, monkeypatch):
    """An environment without a single setting of kdal, in an empty folder."""
    for name in os.environ:
        if name.upper().startswith(("KDAL_", "LABEL_STUDIO_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.fixture
def kdal(env, tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`kdal("status", "--json", cwd=..., KDAL_HOME=...)`: output as text, without a terminal."""

    def run(*arguments: str, cwd=tmp_path, timeout: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kdal", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            env={**os.environ, **variables},
            check=False,
        )

    return run


@pytest.fixture
def make_settings(env, tmp_path) -> Callable[..., Settings]:
    def make(**fields: Any) -> Settings:
        # The servers of tests are on this machine, where nothing is read unless that is set.
        ours = {"home": tmp_path / "kdal", "label_studio_api_key": TOKEN, "image_sources": "127.0.0.1, localhost"}
        return Settings(**ours | fields)

    return make


@pytest.fixture
def open_resources(make_settings) -> Iterator[Callable[..., Resources]]:
    opened: list[Resources] = []

    def make(**fields: Any) -> Resources:
        opened.append(Resources.open(make_settings(**fields)))
        return opened[-1]

    yield make
    for resources in opened:
        resources.storage.close()


@pytest.fixture
def resources(open_resources) -> Resources:
    return open_resources()


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        yield server


@pytest.fixture
def other_web() -> Iterator[Web]:
    with Web() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[EmbeddedS3]:
    with EmbeddedS3(tmp_path_factory.mktemp("s3"), free_port()) as server:
        yield server


@dataclass(frozen=True)
class TrainedDigits:
    checkpoint: bytes
    """small_cnn for 8 x 8 pixels, trained on the first 300 of scikit-learn's digits."""
    images: torch.Tensor
    """Digits 1000 to 1099, uint8 (100, 3, 8, 8)."""
    files: list[bytes]
    """The same as PNG files."""
    labels: list[int]


@pytest.fixture(scope="session")
def trained() -> TrainedDigits:
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy((pixels * 255 / 16).round()).to(torch.uint8).view(-1, 1, 8, 8).repeat(1, 3, 1, 1)
    task = get_task("classification", tuple("0123456789"))
    model = task.build("small_cnn", (8, 8))
    config = TrainConfig(epochs=1, min_steps=200, max_steps=200, device="cpu")
    train(task, model, images[:300], labels[:300].tolist(), config)
    spec = ModelSpec(task.kind, "small_cnn", tuple(task.classes), (8, 8))
    return TrainedDigits(
        checkpoint=save_checkpoint(model, spec),
        images=images[1000:1100],
        files=[png(images[i, 0].numpy()) for i in range(1000, 1100)],
        labels=labels[1000:1100].tolist(),
    )


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
