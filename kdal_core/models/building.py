"""How networks of any family are built by name, tried on an image, and paired as student and teacher."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode

from kdal_core.errors import ConfigError
from kdal_core.models.network import Network, parameter_count
from kdal_core.models.pretrained_body import PRETRAINED, PretrainedBody
from kdal_core.models.seeding import seeded
from kdal_core.models.weights import find_weights

TEACHER_FACTOR = 4


class _ParametersOnMeta(TorchFunctionMode):
    """Makes what modules make their parameters of on the meta device, and all other tensors for real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))


def _nothing(_: str) -> bool:
    return False


@dataclass(frozen=True)
class Family:
    """Networks that do the same for images of one size.

    Attributes:
        own: names of our own networks, which have no pretrained weights.
        others: names of torchvision's.
        image_size: (height, width) in pixels.
        construct: (name, pretrained) -> a network with fresh parameters.
        heads: prefixes of parameters that depend on what is labelled; weights files may lack them.
        also: whether a name that is not listed is one of the family's.
    """

    own: Sequence[str]
    others: Sequence[str]
    image_size: tuple[int, int]
    construct: Callable[[str, bool], Network]
    heads: tuple[str, ...] = ("head.",)
    also: Callable[[str], bool] = _nothing

    def check(self, name: str) -> None:
        """Refuse a name that is not the family's, and a size that makes no sense.

        Raises:
            ConfigError: says which names are near.
        """
        names = [*self.own, *self.others]
        if name not in names and not self.also(name):
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            known = f"{', '.join(self.own)} and torchvision's networks"
            raise ConfigError(f"There is no model {name!r}.{hint} Known: {known}.")
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ConfigError(f"image_size must be (height, width) in pixels, not {self.image_size!r}.")

    def build(self, name: str, weights: str = "none", *, seed: int = 0) -> Network:
        """A network with fresh (or pretrained) parameters; the same seed gives the same parameters.

        Args:
            name: of the network; "pretrained/" and a backbone's name: one on its maps.
            weights: "none"; "default", those that torchvision downloads; a .safetensors file with the same network's;
                of "pretrained/" networks also "auto", from wherever they can be had (`find_weights`).
            seed: of what is fresh.

        Raises:
            ConfigError: an unknown name, a size the network cannot take, or weights that cannot be had.
        """
        self.check(name)
        self.check_runs(name)
        if weights == "default" and name in self.own:
            raise ConfigError(f"{name!r} has no pretrained weights; use weights='none' or a torchvision network.")
        if weights == "default" and name.startswith(PRETRAINED):
            raise ConfigError(f"{name!r} takes weights='auto', a file of its backbone's weights, or 'none'.")
        with seeded(seed):
            model = self.construct(name, weights == "default")
        if weights == "default":
            self.check_runs(name, model.eval())  # pretrained transformers take one size only
            model.train()
        if weights not in {"none", "default"}:
            self._load(model, name, self._file(name, weights))
            for body in model.modules():
                if isinstance(body, PretrainedBody):
                    body.mark_pretrained()
        return model

    def check_pair(self, student: str, teacher: str) -> None:
        """Refuse a teacher with less than 4 times the student's parameters. No memory is used for either.

        A pretrained teacher of a student that is not has to be larger, by any factor: it knows more to begin with.

        Raises:
            ConfigError: an unknown name, a size a network cannot take, or a teacher that is too small.
        """
        sizes = []
        for name in (student, teacher):
            self.check(name)
            self.check_runs(name)
            sizes.append(parameter_count(self._on_meta(name)))
        factor = 1 if teacher.startswith(PRETRAINED) and not student.startswith(PRETRAINED) else TEACHER_FACTOR
        if sizes[1] < factor * sizes[0]:
            wanted = "more" if factor == 1 else f"at least {factor} times as many"
            raise ConfigError(
                f"The teacher {teacher!r} has {sizes[1]:,} parameters, the student {student!r} {sizes[0]:,}. "
                f"A teacher needs {wanted}: choose a larger teacher or a smaller student."
            )

    def check_runs(self, name: str, model: Network | None = None) -> None:
        """Run the network once on one image; without a model on the meta device: shapes only, no arithmetic.

        Raises:
            ConfigError: it cannot take images of this size.
        """
        try:
            with torch.inference_mode():
                if model is None:
                    self._on_meta(name).eval()(torch.empty(1, 3, *self.image_size, device="meta"))
                else:
                    model(torch.zeros(1, 3, *self.image_size))
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"Model {name!r} cannot take images of {self.image_size[0]} x {self.image_size[1]} pixels: {error}"
            ) from error

    def _on_meta(self, name: str) -> Network:
        try:
            with torch.device("meta"):
                return self.construct(name, False)
        except NotImplementedError:  # a few networks (RegNet) compute their own shape with tensors, which must be real
            with _ParametersOnMeta():
                return self.construct(name, False).to("meta")

    def _file(self, name: str, weights: str) -> Path:
        """The file of the weights: of a backbone from wherever they can be had."""
        path = Path(weights)
        if not name.startswith(PRETRAINED) or path.suffix == ".safetensors":
            return path
        return find_weights(name.removeprefix(PRETRAINED), weights).path

    def _load(self, model: Network, name: str, path: Path) -> None:
        """Load a .safetensors file: one of ours, or a torchvision state dict of the same network."""
        if path.suffix != ".safetensors":
            raise ConfigError(f"weights must be 'none', 'default' or a .safetensors file, not {str(path)!r}.")
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"The weights file {str(path)!r} cannot be read: {error}") from error
        wanted = model.state_dict()
        if not found.keys() & wanted.keys():
            inner = "body.net." if name.startswith(PRETRAINED) else "body."
            found = {f"{inner}{key}": value for key, value in found.items()}
        fitting = {key: value for key, value in found.items() if key in wanted and value.shape == wanted[key].shape}
        missing = [key for key in wanted if key not in fitting and not key.startswith(self.heads)]
        if missing:
            raise ConfigError(
                f"The weights file {str(path)!r} does not fit {name!r}: {len(missing)} tensors are missing or "
                f"have another shape, the first is {missing[0]!r}."
            )
        model.load_state_dict({**wanted, **fitting})
