"""Weights from the hub, which may be down, slow, or answer something else."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from kdal_core.errors import ConfigError
from kdal_core.models.pretrained import torchvision_names
from kdal_core.models.weight_files import State, first_line, read_tensors

MIRROR = "KDAL_WEIGHTS_MIRROR"
"""Environment variable: a server that has torchvision's weights under the paths of their own. timm's come from the
Hugging Face hub, or the one that HF_ENDPOINT names; none are asked for where HF_HUB_OFFLINE is 1."""


class HubError(ConfigError):
    """The hub cannot be reached, or what it gave is not what was asked for."""


@dataclass(frozen=True)
class Limits:
    """What is borne of a hub.

    Attributes:
        patience: seconds to wait for a connection, and for the next bytes.
        slowest, after: bytes a second, on average, below which a download is given up after so many seconds.
        largest: bytes of a file.
        ask_again: seconds for which a hub that could not be reached is not asked again.
    """

    patience: tuple[float, float]
    slowest: float
    after: float
    largest: int
    ask_again: float


def from_hub(name: str, limits: Limits, silent_since: MutableMapping[str, float]) -> State:
    """The tensors of a backbone's weights, as the hub names them.

    Args:
        name: of the backbone.
        limits: what is borne.
        silent_since: hosts that could not be reached, and when, by `time.monotonic`; the hub is added if need be.

    Raises:
        HubError: the hub cannot be reached, is too slow, or gave something else.
    """
    from huggingface_hub import constants

    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise HubError("HF_HUB_OFFLINE is set: the hub is not asked")
    if name in torchvision_names():
        import torchvision

        url = urlsplit(str(torchvision.models.get_model_weights(name).DEFAULT.url))
        mirror = urlsplit(os.environ.get(MIRROR) or url.geturl())
        begins = re.search(r"-([0-9a-f]{8,})\.pth$", url.path)
        place = url._replace(scheme=mirror.scheme, netloc=mirror.netloc).geturl()
        return _downloaded(name, place, ".pth", begins.group(1) if begins else "", limits, silent_since)
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise HubError(f"the hub has no weights of {name!r}")
    hub = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    file = config.hf_hub_filename or "model.safetensors"
    place = f"{hub.rstrip('/')}/{config.hf_hub_id}/resolve/main/{file}"
    return _downloaded(name, place, ".safetensors", "", limits, silent_since)


def _downloaded(
    name: str, url: str, suffix: str, begins: str, limits: Limits, silent_since: MutableMapping[str, float]
) -> State:
    """The tensors of a file of the hub, whose SHA-256 begins as it should."""
    host = urlsplit(url).netloc
    if time.monotonic() - silent_since.get(host, -limits.ask_again) < limits.ask_again:
        raise HubError(f"{host} could not be reached a while ago, and is not asked again yet")
    digest, size, began = hashlib.sha256(), 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kdal-weights-") as folder:
        path = Path(folder, f"weights{suffix}")
        try:
            whole = {"Accept-Encoding": "identity"}
            asked = requests.get(url, stream=True, timeout=limits.patience, headers=whole)
            with asked as answer, path.open("wb") as file:
                answer.raise_for_status()
                # As it comes: a server that drips would keep us waiting for a whole block.
                for block in iter(lambda: answer.raw.read1(2**20), b""):
                    file.write(block)
                    digest.update(block)
                    size += len(block)
                    seconds = time.monotonic() - began
                    if size > limits.largest or (seconds > limits.after and size < limits.slowest * seconds):
                        silent_since[host] = time.monotonic()
                        raise HubError(f"{url} is too large or too slow: {size:,} bytes in {seconds:.0f} s.")
                told = answer.headers.get("Content-Length")
        except (requests.RequestException, HTTPError) as error:
            silent_since[host] = time.monotonic()
            raise HubError(f"The weights of {name!r} cannot be fetched from {host}: {first_line(error)}") from error
        if told is not None and told.isdigit() and int(told) != size:
            raise HubError(f"{url} broke off after {size:,} of {told} bytes.")
        if not digest.hexdigest().startswith(begins):
            raise HubError(f"{url} gave other bytes than its name says: SHA-256 {digest.hexdigest()}.")
        try:
            return read_tensors(path, None)
        except ConfigError as error:
            raise HubError(f"{url} gave no weights, but {answer.headers.get('Content-Type', 'something')}.") from error
