"""Where a project's models come from: what a round notes of the model it trains, and which one served before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from kdal.aliases import Json
from kdal.rounds.store import RoundStore
from kdal.storage.assets import MissingAssetError
from kdal.storage.tables import Round

CHOSEN = "chosen"
"""A round's fact: the round whose model the owner chose to serve. Such a round trains nothing: it brings the order and
the pre-annotations of that model into force."""
PRUNED = "pruned"
"""A round's fact: its weights were deleted."""


def made_by() -> Json:
    """What computes a round: the versions of kdal and of torch."""
    return {"code": f"kdal {version('kdal')}, torch {version('torch')}"}


def weights_of(store: RoundStore) -> dict[str, str]:
    """The files of a round's models, with their sha256."""
    found = {}
    for name in store.model_files:
        with suppress(MissingAssetError):
            found[name] = store.digest(name)
    return found


def serving_after(number: int, facts: Mapping[str, Any], before: int | None) -> int | None:
    """The round whose model serves once a round is open.

    Args:
        number: of the round.
        facts: what is known of it.
        before: the round whose model serves until then.

    >>> serving_after(7, {"promoted": True}, 5), serving_after(7, {"promoted": False}, 5)
    (7, 5)
    >>> serving_after(8, {"chosen": 4}, 7)
    4
    """
    chosen: int | None = facts.get(CHOSEN)
    return chosen if chosen is not None else number if facts.get("promoted") else before


def served(rounds: Sequence[Round]) -> dict[int, int | None]:
    """The round whose model served when each round was open, by the round's number; those never opened are left out.

    Args:
        rounds: of a project, first to last.
    """
    found: dict[int, int | None] = {}
    serving: int | None = None
    for row in rounds:
        if row.opened_at is not None:
            serving = found[row.number] = serving_after(row.number, row.facts, serving)
    return found


def parents(rounds: Sequence[Round]) -> dict[int, int | None]:
    """The round whose model served while each round's own was trained, by number; none for the first.

    Args:
        rounds: of a project, first to last.
    """
    found: dict[int, int | None] = {}
    serving: int | None = None
    for row in rounds:
        found[row.number] = row.facts.get("parent", serving)
        if row.opened_at is not None:
            serving = serving_after(row.number, row.facts, serving)
    return found


def was_chosen(rounds: Sequence[Round], serving: int | None) -> bool:
    """Whether the model that serves was chosen by the owner, rather than by the gate.

    Args:
        rounds: of a project, first to last.
        serving: the round whose model serves.
    """
    for row in reversed(rounds):
        if row.opened_at is not None and (row.facts.get("promoted") or CHOSEN in row.facts):
            return serving is not None and row.facts.get(CHOSEN) == serving
    return False
