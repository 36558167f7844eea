"""What people made of suggestions: how many they left as they were, by class and round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from kdal_core.evaluation.intervals import LEVEL, Interval, wilson
from kdal_core.validation import InvalidInput

Outcome = Literal["unchanged", "changed", "rejected"]
Key = TypeVar("Key", bound=Hashable)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Acceptance:
    """What became of some suggestions.

    Attributes:
        unchanged: that were submitted as they were.
        changed: that were submitted with another class, another shape, or objects more or less.
        rejected: of which nothing was kept.
        interval: of the share that was left unchanged.
    """

    unchanged: int
    changed: int
    rejected: int
    interval: Interval

    @property
    def suggestions(self) -> int:
        """All of them."""
        return self.unchanged + self.changed + self.rejected

    @property
    def share(self) -> float | None:
        """That was left unchanged; None of no suggestion."""
        return self.unchanged / self.suggestions if self.suggestions else None

    @property
    def sentence(self) -> str:
        """What became of them, in words."""
        if self.share is None:
            return "Nothing was suggested yet."
        return (
            f"{self.share:.0%} of {self.suggestions:,} suggestions were accepted unchanged "
            f"({self.interval.low:.0%} to {self.interval.high:.0%}), {self.changed:,} were changed and "
            f"{self.rejected:,} rejected."
        )


@dataclass(frozen=True)
class Suggestions:
    """What became of a project's suggestions.

    Attributes:
        all: of them.
        by_class: by the class that was suggested, the class with most suggestions first.
        by_round: by the round whose model suggested, in the order of the rounds.
    """

    all: Acceptance
    by_class: dict[str, Acceptance]
    by_round: dict[int, Acceptance]


def suggestion_acceptance(
    outcomes: Sequence[Outcome], classes: Sequence[str], rounds: Sequence[int], *, level: float = LEVEL
) -> Suggestions:
    """Count suggestions by what became of them, with Wilson's intervals for the share left unchanged.

    People accept a wrong suggestion more readily than they would make the same mistake themselves: the share is what
    saved work, no measure of accuracy. That is what `learning_curve` is for.

    Args:
        outcomes: (M,) of each suggestion.
        classes: (M,) class that each suggested.
        rounds: (M,) round whose model suggested it.
        level: of confidence, in (0, 1).

    Raises:
        InvalidInput: lengths that differ, or an unknown outcome.

    >>> found = suggestion_acceptance(["unchanged", "unchanged", "changed"], ["cat", "dog", "cat"], [1, 1, 2])
    >>> found.all.share, found.by_class["cat"].changed, list(found.by_round)
    (0.6666666666666666, 1, [1, 2])
    """
    if not len(outcomes) == len(classes) == len(rounds):
        raise InvalidInput(f"There are {len(outcomes)} outcomes, {len(classes)} classes and {len(rounds)} rounds.")
    if unknown := set(outcomes) - set(OUTCOMES):
        raise InvalidInput(f"An outcome is {', '.join(OUTCOMES)}, not {', '.join(sorted(map(repr, unknown)))}.")
    by_class = _counted(outcomes, classes, level)
    by_round = _counted(outcomes, rounds, level)
    often = sorted(by_class, key=lambda name: (-by_class[name].suggestions, name))
    return Suggestions(
        all=_acceptance(Counter(outcomes), level),
        by_class={name: by_class[name] for name in often},
        by_round={number: by_round[number] for number in sorted(by_round)},
    )


def _counted(outcomes: Sequence[Outcome], keys: Sequence[Key], level: float) -> dict[Key, Acceptance]:
    counts: dict[Key, Counter[Outcome]] = {}
    for outcome, key in zip(outcomes, keys, strict=True):
        counts.setdefault(key, Counter())[outcome] += 1
    return {key: _acceptance(count, level) for key, count in counts.items()}


def _acceptance(count: Counter[Outcome], level: float) -> Acceptance:
    interval = wilson(count["unchanged"], count.total(), level)
    return Acceptance(count["unchanged"], count["changed"], count["rejected"], interval)
