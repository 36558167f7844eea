"""Asking a teacher through the ledger: what is known costs nothing, what is not is paid for first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.distillation.ledger import Answers, QueryLedger, image_key
from kdal_core.distillation.teacher import Teacher, check_answer, check_images
from kdal_core.errors import TeacherError
from kdal_core.validation import as_count, as_nonnegative

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RequestPolicy:
    """How a teacher wants to be asked. A teacher may say it in an attribute `manner`; these are the defaults.

    Attributes:
        batch_size: images of one query; its answers are written down together.
        workers: queries under way at once, each in a thread.
        attempts: how often a query is asked that fails in a way worth repeating; each is paid for unless it is certain
            that it never reached the teacher.
        pause: seconds before the second attempt; doubles with each one.
    """

    batch_size: int = 256
    workers: int = 1
    attempts: int = 1
    pause: float = 0.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "attempts"):
            as_count(name, getattr(self, name), low=1, high=1_000_000)
        as_nonnegative("pause", self.pause)


Manner = RequestPolicy
"""Its name before version 0.2."""


def ask(
    teacher: Teacher,
    images: Tensor,
    ledger: QueryLedger,
    *,
    manner: RequestPolicy | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """A teacher's answers for images. Each image is asked about once in the ledger's life, however often it comes.

    Answers are written down batch by batch as they arrive: when it is interrupted or fails, the same call later goes
    on where it stopped. Two processes that ask about the same new image at the same moment both pay for it.

    Args:
        teacher: whom to ask about the images that the ledger has no answer for.
        images: uint8 (N, 3, H, W).
        ledger: budget and answers.
        manner: how to ask; None: as the teacher says, else `RequestPolicy()`.
        progress: called with the images answered so far and N, first for those that were known.

    Returns:
        Probabilities (N, C) float32.

    Raises:
        BudgetExceeded: the new images do not fit in the budget. None of them has been asked about, unless paid
            repetitions or another process used the budget up meanwhile.
        TeacherError: no usable answer. Answers that came before it are kept.
        InvalidInput: images of another form.
    """
    images = check_images(images)
    keys = [image_key(image) for image in images]
    known: dict[str, NDArray[np.float32]] = dict(ledger.store.read(list(dict.fromkeys(keys))))
    _check_known(known, teacher.classes)
    first = {key: position for position, key in reversed(list(enumerate(keys))) if key not in known}
    missing = sorted(first.values())
    ledger.check(len(missing))
    if progress is not None:
        progress(len(images) - len(missing), len(images))
    manner = manner or getattr(teacher, "manner", None) or RequestPolicy()
    batches = [missing[start : start + manner.batch_size] for start in range(0, len(missing), manner.batch_size)]
    done = len(images) - len(missing)
    for answers in _answers(teacher, images, keys, batches, ledger, manner):
        known.update(answers)
        done += len(answers)
        if progress is not None:
            progress(done, len(images))
    if not keys:
        return torch.empty(0, len(teacher.classes))
    return torch.from_numpy(np.stack([known[key] for key in keys]))


def unasked(images: Tensor, ledger: QueryLedger) -> int:
    """How many of these images the ledger has no answer for, each counted once: what `ask` would spend."""
    keys = dict.fromkeys(image_key(image) for image in check_images(images))
    return len(keys) - len(ledger.store.read(list(keys)))


def _answers(
    teacher: Teacher,
    images: Tensor,
    keys: Sequence[str],
    batches: Sequence[Sequence[int]],
    ledger: QueryLedger,
    manner: RequestPolicy,
) -> Iterator[Answers]:
    """Answers batch by batch, already written down. After an error nothing new is begun, and what is under way ends."""

    failed = Event()

    def answer(batch: Sequence[int]) -> Answers:
        if failed.is_set():  # a thread is free for its next batch before the error has reached us
            return {}
        try:
            return _paid(teacher, images[list(batch)], [keys[position] for position in batch], ledger, manner)
        except BaseException:
            failed.set()
            raise

    if manner.workers == 1:
        yield from map(answer, batches)
        return
    executor = ThreadPoolExecutor(manner.workers, thread_name_prefix="teacher")
    try:
        futures: list[Future[Answers]] = [executor.submit(answer, batch) for batch in batches]
        for future in as_completed(futures):
            yield future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _paid(teacher: Teacher, images: Tensor, keys: Sequence[str], ledger: QueryLedger, manner: RequestPolicy) -> Answers:
    """One batch: reserved, asked, checked, written down; again if that is worth it."""
    for attempt in range(1, manner.attempts + 1):
        ledger.spend(len(images))
        try:
            answer = check_answer(teacher.query(images), len(images), teacher.classes)
        except TeacherError as error:
            if not error.charged:
                ledger.take_back(len(images))
            if not error.worth_repeating or attempt == manner.attempts:
                raise
            time.sleep(manner.pause * 2 ** (attempt - 1))
        else:
            answers = dict(zip(keys, answer.numpy(), strict=True))
            ledger.store.record(answers)
            return answers
    raise AssertionError("unreachable: the last attempt returns or raises")


def _check_known(known: Answers, classes: Sequence[str]) -> None:
    if any(len(row) != len(classes) for row in known.values()):
        raise TeacherError(
            f"The ledger holds answers for another number of classes than the teacher's {len(classes)}: it belongs to "
            "another teacher. Use a ledger of its own for each teacher.",
            charged=False,
        )
