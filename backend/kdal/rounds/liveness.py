"""Which workers are alive, so that what a lost one has begun is taken over by another."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kdal.storage.database import Storage

BEATS = 6
"""Signs of life that a worker has to miss before it is held for lost."""


class Liveness:
    """Counts this worker's signs of life in a table, and watches how those of the others grow.

    Their clocks are not compared: a worker is lost when its count has stood still for a while by the clock of the one
    that watches. One that comes back later finds its rounds begun again, and leaves them.

    Args:
        storage: has the table.
        name: of this worker.
        lost_after: seconds without a sign of life.
        seconds: a clock that only goes forward.
    """

    def __init__(self, storage: Storage, name: str, lost_after: float, seconds: Callable[[], float]) -> None:
        self._storage, self._name, self._lost_after, self._seconds = storage, name, lost_after, seconds
        self._next = 0.0
        self._seen: dict[str, tuple[int, float]] = {}

    def beat(self) -> None:
        """Give a sign of life, and look for those of the others; seldom enough to be called at any time."""
        if (time_ := self._seconds()) < self._next:
            return
        self._next = time_ + self._lost_after / BEATS
        for name, beats in self._storage.beat(self._name).items():
            if name not in self._seen or self._seen[name][0] != beats:
                self._seen[name] = (beats, time_)

    def lost(self, names: Iterable[str]) -> set[str]:
        """Those of these workers that have given no sign of life for too long, since this one watches."""
        time_ = self._seconds()
        others = set(names) - {self._name}
        # Of a worker of an older kdal nothing is in the table: it is watched from now on.
        return {name for name in others if time_ - self._seen.setdefault(name, (-1, time_))[1] > self._lost_after}
