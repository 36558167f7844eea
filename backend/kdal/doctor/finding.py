"""One part of an installation, and whether it is as it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdal_core.errors import KdalError


@dataclass(frozen=True)
class Finding:
    """What is found of one part."""

    part: str
    ok: bool
    said: str
    """What it is, or what is wrong with it."""
    fix: str = ""
    """What mends it, where that is not said already."""


class Trouble(KdalError):
    """A part that is wrong.

    Attributes:
        fix: what mends it.
    """

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def checked(part: str, check: Callable[[], str]) -> Finding:
    """What a check says of a part; an error of ours is what is wrong with it, and says what to do.

    Args:
        part: its name, for people.
        check: returns what the part is; raises a `KdalError` where it is wrong.
    """
    try:
        return Finding(part, True, check())
    except Trouble as trouble:
        return Finding(part, False, str(trouble), trouble.fix)
    except KdalError as error:
        return Finding(part, False, str(error))
