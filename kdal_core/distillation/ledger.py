"""What a black-box teacher was asked, what it answered, and what that may cost at most.

The order of things keeps the budget whatever dies in between: `ask` first sets the images aside in the ledger
(they count as asked from then on), then asks, then writes the answers down. If it dies after the asking, the images
stay counted although their answers are lost, because the teacher may have charged for them; asking again counts
again. So the ledger may count more than the teacher charged, never less.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from kdal_core.errors import BudgetExceeded
from kdal_core.validation import InvalidInput, as_count, as_nonnegative

if TYPE_CHECKING:
    from torch import Tensor

NANO = 10**9
"""Money is counted in whole billionths of its unit: sums of prices are exact."""

Answers = Mapping[str, NDArray[np.float32]]
"""Probabilities (C,) by the `image_key` of their image."""


@dataclass(frozen=True)
class Account:
    """What has been reserved for a teacher so far, answered or not."""

    images: int
    nanos: int
    """Money, in billionths of its unit."""


class LedgerStore(Protocol):
    """Where a ledger is kept. Every method is safe to call from several threads, and from processes if it is shared."""

    def account(self) -> Account:
        """How it stands."""

    def reserve(self, images: int, nanos: int, most_images: int, most_nanos: int | None) -> bool:
        """Add to the account, unless one of the sums would exceed its limit: then nothing, and False. Atomic."""

    def release(self, images: int, nanos: int) -> None:
        """Take back what was reserved, of images that certainly never reached the teacher."""

    def read(self, keys: Sequence[str]) -> Answers:
        """The answers that are known for these images."""

    def record(self, answers: Answers) -> None:
        """Write answers down, all or none; of an image that has one already, the first stays."""


class MemoryStore:
    """A ledger that ends with its process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._account = Account(0, 0)
        self._answers: dict[str, NDArray[np.float32]] = {}

    def account(self) -> Account:
        """How it stands."""
        return self._account

    def reserve(self, images: int, nanos: int, most_images: int, most_nanos: int | None) -> bool:
        """Add to the account unless it would exceed a limit."""
        with self._lock:
            after = Account(self._account.images + images, self._account.nanos + nanos)
            if after.images > most_images or (most_nanos is not None and after.nanos > most_nanos):
                return False
            self._account = after
            return True

    def release(self, images: int, nanos: int) -> None:
        """Take back what was reserved."""
        with self._lock:
            self._account = Account(self._account.images - images, self._account.nanos - nanos)

    def read(self, keys: Sequence[str]) -> Answers:
        """The answers that are known for these images."""
        with self._lock:
            return {key: self._answers[key] for key in keys if key in self._answers}

    def record(self, answers: Answers) -> None:
        """Write answers down."""
        with self._lock:
            for key, row in answers.items():
                self._answers.setdefault(key, row)


class QueryLedger:
    """A hard budget of queries, in images and, where they have a price, in money; and the answers paid for.

    Args:
        budget: images that the teacher may be asked about at most, in the life of the store.
        price: money for one image; billionths of the unit are counted.
        money: the most that may be spent; None: no limit but the images.
        store: where it is kept; None: in memory.

    >>> ledger = QueryLedger(100, price=0.02, money=1.5)
    >>> ledger.spend(60)
    >>> ledger.spent, ledger.cost, ledger.left
    (60, 1.2, 15)
    >>> ledger.spend(16)  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    kdal_core.errors.BudgetExceeded: 16 more queries would exceed the teacher's budget: 60 of 100 images and 1.2 of 1.5
    in money are spent, 15 images are left. Raise the budget, or go on with the answers that are there.
    """

    def __init__(
        self, budget: int, price: float = 0.0, *, money: float | None = None, store: LedgerStore | None = None
    ) -> None:
        self.budget = as_count("budget", budget, low=0, high=10**12)
        self.price = as_nonnegative("price", price)
        self.money = None if money is None else as_nonnegative("money", money)
        self.store: LedgerStore = MemoryStore() if store is None else store
        self._price = round(self.price * NANO)
        if self.price > 0 and not math.isclose(self._price, self.price * NANO, rel_tol=1e-6):
            raise InvalidInput(f"price must be a multiple of a billionth, not {price!r}: give it in a smaller unit.")
        self._money = None if self.money is None else round(self.money * NANO)

    @property
    def spent(self) -> int:
        """Images that count as asked, answered or not."""
        return self.store.account().images

    @property
    def cost(self) -> float:
        """Money that counts as spent."""
        return self.store.account().nanos / NANO

    @property
    def left(self) -> int:
        """Images that the teacher may still be asked about."""
        account = self.store.account()
        left = self.budget - account.images
        if self._money is not None and self._price > 0:
            left = min(left, (self._money - account.nanos) // self._price)
        return max(0, left)

    def spend(self, n: int) -> None:
        """Count n images as asked, before they are.

        Raises:
            BudgetExceeded: the budget does not allow all of them; none is counted.
        """
        n = as_count("n", n, low=0, high=10**12)
        if not self.store.reserve(n, n * self._price, self.budget, self._money):
            raise BudgetExceeded(self._refusal(n))

    def take_back(self, n: int) -> None:
        """Count n images as not asked after all: it is certain that they never reached the teacher."""
        self.store.release(n, n * self._price)

    def check(self, n: int) -> None:
        """Raise `BudgetExceeded` if n more images do not fit; nothing is counted."""
        if n > self.left:
            raise BudgetExceeded(self._refusal(n))

    def _refusal(self, n: int) -> str:
        money = "" if self.money is None else f" and {self.cost:.6g} of {self.money:.6g} in money"
        return (
            f"{n:,} more queries would exceed the teacher's budget: {self.spent:,} of {self.budget:,} images{money} "
            f"are spent, {self.left:,} images are left. Raise the budget, or go on with the answers that are there."
        )


def image_key(image: Tensor) -> str:
    """What an image is known by: SHA-256 of its size and pixels, as 64 hexadecimal digits.

    Args:
        image: (3, H, W) uint8.

    >>> import torch
    >>> image_key(torch.zeros(3, 1, 2, dtype=torch.uint8))[:8]
    'e5b01277'
    """
    pixels = image.detach().cpu().contiguous().numpy()
    digest = hashlib.sha256(",".join(str(side) for side in pixels.shape).encode() + b":")
    digest.update(pixels.data)
    return digest.hexdigest()
