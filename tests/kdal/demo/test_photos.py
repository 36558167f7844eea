"""The demo on photos: a folder's, fetched ones, and none."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from kdal.demo.example import example
from kdal.demo.examples import photos as module
from kdal.demo.examples.photos import Photos, PhotosError
from kdal.labelstudio.formats import format_for
from kdal.policy import Policy
from kdal_core.errors import ConfigError


def folder_of_photos(root: Path) -> Path:
    for kind, colour in (("a & b", "red"), ("sky", "blue")):
        (root / "train" / kind).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (640, 400), colour).save(root / "train" / kind / f"{number}.JPG", "JPEG")
    (root / "train" / "notes.txt").write_text("no photo")
    Image.new("RGB", (8, 8)).save(root / "stray.png")
    return root


def git(folder: Path, *arguments: str) -> str:
    quiet = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    found = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, env={**os.environ, **quiet}
    )
    return found.stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Iterator[str]:
    """A git server on loopback that has the photos; yields their commit."""
    folder = folder_of_photos(tmp_path / "server" / "photos")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "photos")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["git", "daemon", "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={tmp_path / 'server'}"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    monkeypatch.setenv("PHOTOS_REPOSITORY", f"git://127.0.0.1:{port}/photos")
    yield git(folder, "rev-parse", "HEAD")
    os.killpg(server.pid, 15)
    server.wait()


def check(shown: Photos) -> None:
    assert (len(shown), shown.classes) == (6, ["a & b", "sky"])
    form = format_for(shown.label_config, Policy.parse(shown.policy))
    assert form.task().classes == ("a & b", "sky")
    colours = set()
    for index in range(len(shown)):
        target = form.target({"id": 1, "annotations": [{"id": 1, "result": shown.truth(index)}]})
        with Image.open(io.BytesIO(shown.image(index))) as image:
            assert max(image.size) == module.LONGEST
            colours.add((target, image.getpixel((5, 5)).index(max(image.getpixel((5, 5))))))
    assert colours == {(0, 0), (1, 2)}


def test_a_folder_of_photos_is_a_class_for_each_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOS", str(folder_of_photos(tmp_path)))
    check(example("photos"))  # type: ignore[arg-type]


def test_photos_are_fetched_by_their_commit_once(tmp_path, monkeypatch, repository):
    monkeypatch.delenv("PHOTOS", raising=False)
    monkeypatch.setenv("PHOTOS_COMMIT", repository)
    check(Photos(cache=tmp_path / "cache"))
    monkeypatch.setenv("PHOTOS_REPOSITORY", "git://127.0.0.1:9/gone")
    check(Photos(cache=tmp_path / "cache"))


@pytest.mark.parametrize("commit", ["0" * 40, "main"])
def test_another_commit_is_not_taken(tmp_path, monkeypatch, repository, commit):
    monkeypatch.delenv("PHOTOS", raising=False)
    monkeypatch.setenv("PHOTOS_COMMIT", commit)
    with pytest.raises(PhotosError, match=r"cannot be fetched .*PHOTOS=folder.*`make demo`|40 hexadecimal digits"):
        Photos(cache=tmp_path / "cache")


def test_without_a_network_the_message_says_what_else_there_is(tmp_path, monkeypatch):
    monkeypatch.delenv("PHOTOS", raising=False)
    monkeypatch.setenv("PHOTOS_REPOSITORY", "git://127.0.0.1:9/gone")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be fetched .*`make demo`"):
        example("photos")


def test_a_folder_without_classes_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setenv("PHOTOS", str(tmp_path))
    with pytest.raises(ConfigError, match="a folder of photos for each of two classes"):
        example("photos")
