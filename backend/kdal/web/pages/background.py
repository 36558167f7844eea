"""What is asked of others, of Label Studio say, and must not make a page wait: asked in the background, and kept."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Generic, TypeVar

import structlog

from kdal_core.errors import KdalError

T = TypeVar("T")
log = structlog.get_logger()


@dataclass
class _Kept(Generic[T]):
    value: T | None = None
    error: str | None = None
    asked_at: float = float("-inf")
    asking: bool = False


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What is known of an answer."""

    value: T | None
    """The last one; none before the first."""
    error: str | None
    """Why the last try gave none."""


class Background(Generic[T]):
    """Answers by key: `get` never waits, and gives the last answer while a newer one is fetched.

    Args:
        ask: fetches an answer; a `KdalError` is kept as the reason why there is none.
        fresh: seconds after which an answer is fetched again.
        size: keys that are kept.
        clock: seconds by a clock that only goes forward.
    """

    def __init__(
        self,
        ask: Callable[[Hashable], T],
        fresh: float,
        size: int = 256,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._fresh, self._size, self._clock = ask, fresh, size, clock
        self._kept: OrderedDict[Hashable, _Kept[T]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, wait: float = 0.0) -> Answer[T]:
        """What is known now; fetching begins where that is old, or nothing.

        Args:
            key: of the answer.
            wait: seconds that one may wait for the first answer; who asks again meanwhile waits no more.
        """
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
            due = not kept.asking and self._clock() - kept.asked_at >= self._fresh
            kept.asking = kept.asking or due
            answer = Answer(kept.value, kept.error)
        if not due:
            return answer
        thread = Thread(target=self._fetch, args=(key, kept), name="page asks", daemon=True)
        thread.start()
        if wait and answer.value is None:
            thread.join(wait)
            with self._lock:
                return Answer(kept.value, kept.error)
        return answer

    def _fetch(self, key: Hashable, kept: _Kept[T]) -> None:
        value: T | None = kept.value
        error: str | None = None
        try:
            value = self._ask(key)
        except KdalError as failure:
            error = str(failure)
        except Exception as failure:  # the page goes on without it; what is wrong, the log says
            log.error("the page could not ask", key=key, exc_info=failure)
            error = "an unexpected error: the server's log has it"
        with self._lock:
            kept.value, kept.error, kept.asked_at, kept.asking = value, error, self._clock(), False
