"""Parts that are found by name: one file each in a package of ours, or from another package by an entry point.

Names are known without importing anything, so that a program which only has to list or check them starts at once.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from types import ModuleType
from typing import Generic, TypeVar

from kdal_core.errors import ConfigError

Part = TypeVar("Part")


@dataclass(frozen=True)
class Plugins(Mapping[str, Part], Generic[Part]):
    """Parts of one sort by their names, imported when they are asked for.

    A module of `package` that assigns `attribute` at its top level is a part, named like the module. Other
    distributions add theirs as entry points of `group`, which name the object or a module that has `attribute`.

    Attributes:
        sort: what a part is called in messages: "strategy".
        package: dotted name of the package whose modules are searched.
        attribute: what a module calls its part: "STRATEGY".
        group: of entry points: "kdal.strategies".
        part: the class of which each part must be an instance; of classes, `type`.
        first: names that are listed first, in this order; all others follow alphabetically.
    """

    sort: str
    package: str
    attribute: str
    group: str
    part: type[Part]
    first: Sequence[str] = ()

    def names(self) -> tuple[str, ...]:
        """Every name, without importing any part."""
        found = {*_inside(self.package, self.attribute), *self._outside()}
        first = [name for name in self.first if name in found]
        return (*first, *sorted(found.difference(first)))

    def __getitem__(self, name: str) -> Part:
        """The part of this name.

        Raises:
            KeyError: there is none.
            ConfigError: several distributions offer one of this name, or it cannot be loaded.
        """
        inside, outside = name in _inside(self.package, self.attribute), self._outside().get(name, ())
        if not inside and not outside:
            raise KeyError(name)
        if inside + len(outside) > 1:
            offered = ", ".join(["kdal", *map(_origin, outside)] if inside else map(_origin, outside))
            raise ConfigError(f"The {self.sort} {name!r} is offered by {offered}: uninstall or rename all but one.")
        if inside:
            part: Part = getattr(importlib.import_module(f"{self.package}.{name}"), self.attribute)
            return part
        return self._loaded(outside[0])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def _outside(self) -> Mapping[str, Sequence[EntryPoint]]:
        return _offered(self.group, tuple(sys.path))

    def _loaded(self, entry: EntryPoint) -> Part:
        where = f"The {self.sort} {entry.name!r} of {_origin(entry)}"
        try:
            found = entry.load()
        except Exception as error:  # code of others: whatever it raises, the message must say whose it is
            raise ConfigError(f"{where} cannot be loaded from {entry.value!r}: {error!r}") from error
        if isinstance(found, ModuleType):
            found = getattr(found, self.attribute, None)
        if not isinstance(found, self.part):
            raise ConfigError(
                f"{where} must be a {self.part.__name__}, or a module with one as {self.attribute}: {entry.value!r} is "
                f"a {type(found).__name__}."
            )
        return found


@cache
def _inside(package: str, attribute: str) -> frozenset[str]:
    """Names of the package's modules that assign this attribute at their top level."""
    assigned = re.compile(rf"^{attribute}\b[^=\n]*=", re.MULTILINE)
    sources = (file for file in files(package).iterdir() if file.name.endswith(".py"))
    return frozenset(file.name[:-3] for file in sources if assigned.search(file.read_text(encoding="utf-8")))


@lru_cache(maxsize=8)
def _offered(group: str, path: tuple[str, ...]) -> Mapping[str, Sequence[EntryPoint]]:
    """Entry points of a group by name. `path` is where they are looked for: a longer `sys.path` is searched again."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, []).append(entry)
    return found


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown package"
