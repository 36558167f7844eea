"""The ledger and `ask`, held against a teacher that counts for itself what reaches it."""

import threading
import time
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from kdal_core.distillation import QueryLedger, RequestPolicy, ask, image_key, unasked
from kdal_core.errors import BudgetExceeded, TeacherError
from kdal_core.validation import InvalidInput


def pictures(count, start=0):
    """Images whose first pixel tells their number."""
    images = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(start, start + count)
    return images


def truth(images):
    share = images[:, 0, 0, 0].float() / 256
    return torch.stack([share, 1 - share], dim=1)


@dataclass
class Counting:
    """Answers by the first pixel. Queries named in `fails`, counted from 0, raise; it notes what it was asked."""

    fails: dict[int, BaseException] = field(default_factory=dict)
    seconds: float = 0.0
    asked: list[list[int]] = field(default_factory=list)
    most_at_once: int = 0
    classes: tuple[str, ...] = ("cat", "dog")

    def __post_init__(self):
        self._lock, self._now = threading.Lock(), 0

    def query(self, images: Tensor) -> Tensor:
        with self._lock:
            number = len(self.asked)
            self.asked.append(images[:, 0, 0, 0].tolist())
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(self.seconds)
        with self._lock:
            self._now -= 1
        if number in self.fails:
            raise self.fails[number]
        return truth(images)

    @property
    def images(self):
        return sum(len(batch) for batch in self.asked)


def test_answers_are_the_teachers_in_the_order_of_the_images():
    teacher, ledger = Counting(), QueryLedger(100)
    images = pictures(10)[torch.tensor([3, 1, 9, 0])]
    assert torch.equal(ask(teacher, images, ledger), truth(images))
    assert (ledger.spent, ledger.left) == (4, 96)


def test_what_was_answered_is_never_asked_again():
    teacher, ledger = Counting(), QueryLedger(100)
    ask(teacher, pictures(6), ledger)
    assert unasked(pictures(10), ledger) == 4
    assert torch.equal(ask(teacher, pictures(10), ledger), truth(pictures(10)))
    assert sorted(number for batch in teacher.asked for number in batch) == list(range(10))
    assert ledger.spent == 10


def test_the_same_image_twice_in_one_call_is_one_query():
    teacher, ledger = Counting(), QueryLedger(3)
    images = pictures(3).repeat(4, 1, 1, 1)
    assert unasked(images, ledger) == 3
    assert torch.equal(ask(teacher, images, ledger), truth(images))
    assert teacher.images == ledger.spent == 3


def test_images_of_the_same_pixels_in_another_shape_are_other_images():
    flat = torch.arange(24, dtype=torch.uint8)
    assert image_key(flat.view(3, 2, 4)) != image_key(flat.view(3, 4, 2))


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_of_the_size_asked_for_and_so_many_at_once(workers):
    teacher = Counting(seconds=0.02)
    ask(teacher, pictures(20), QueryLedger(20), manner=RequestPolicy(batch_size=3, workers=workers))
    assert sorted(len(batch) for batch in teacher.asked) == [2, 3, 3, 3, 3, 3, 3]
    assert teacher.most_at_once == workers


def test_a_teacher_may_say_how_it_wants_to_be_asked():
    teacher = Counting()
    teacher.manner = RequestPolicy(batch_size=4)
    ask(teacher, pictures(8), QueryLedger(8))
    assert [len(batch) for batch in teacher.asked] == [4, 4]


def test_more_than_the_budget_is_refused_before_a_single_image_is_asked_about():
    teacher, ledger = Counting(), QueryLedger(10)
    ask(teacher, pictures(4), ledger)
    with pytest.raises(BudgetExceeded, match=r"7 more queries.*4 of 10 images.*6 images are left"):
        ask(teacher, pictures(11), ledger)
    assert (teacher.images, ledger.spent) == (4, 4)
    ask(teacher, pictures(10), ledger)
    assert (ledger.spent, ledger.left) == (10, 0)


def test_answers_that_are_known_cost_nothing_even_when_the_budget_is_spent():
    teacher, ledger = Counting(), QueryLedger(5)
    ask(teacher, pictures(5), ledger)
    assert torch.equal(ask(teacher, pictures(5), ledger), truth(pictures(5)))


def test_a_budget_of_money_ends_where_the_next_image_would_exceed_it():
    ledger = QueryLedger(1000, price=0.1, money=0.3)  # 3 * 0.1 > 0.3 in floating point
    ask(Counting(), pictures(3), ledger)
    assert (ledger.cost, ledger.left) == (0.3, 0)
    with pytest.raises(BudgetExceeded, match=r"0\.3 of 0.3 in money"):
        ledger.spend(1)


def test_a_price_finer_than_money_is_counted_in_is_refused_not_rounded_away():
    with pytest.raises(InvalidInput, match="billionth"):
        QueryLedger(10, price=1e-10)


@pytest.mark.parametrize(
    ("budget", "price", "money"), [(-1, 0, None), (1, -1, None), (1, float("nan"), None), (1, 1, -1)]
)
def test_a_negative_budget_is_refused(budget, price, money):
    with pytest.raises(InvalidInput):
        QueryLedger(budget, price, money=money)


def test_threads_that_spend_at_once_never_exceed_the_budget():
    ledger, done = QueryLedger(1000), []

    def spend():
        for _ in range(500):
            try:
                ledger.spend(1)
                done.append(1)
            except BudgetExceeded:
                pass

    threads = [threading.Thread(target=spend) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(done) == ledger.spent == 1000


# ---------------------------------------------------------------------- failures


def test_a_failure_keeps_the_answers_before_it_and_the_next_call_goes_on_behind_them():
    teacher, ledger = Counting(fails={2: TeacherError("down")}), QueryLedger(100)
    with pytest.raises(TeacherError, match="down"):
        ask(teacher, pictures(12), ledger, manner=RequestPolicy(batch_size=3))
    assert unasked(pictures(12), ledger) == 6
    ask(teacher, pictures(12), ledger, manner=RequestPolicy(batch_size=3))
    assert [len(batch) for batch in teacher.asked] == [3, 3, 3, 3, 3]
    assert (
        ledger.spent == teacher.images == 15
    )  # the three whose answer was lost count twice: they may have been charged


def test_images_that_certainly_never_reached_the_teacher_do_not_count():
    teacher, ledger = Counting(fails={1: TeacherError("refused", charged=False)}), QueryLedger(100)
    with pytest.raises(TeacherError):
        ask(teacher, pictures(6), ledger, manner=RequestPolicy(batch_size=3))
    assert ledger.spent == 3


def test_a_query_worth_repeating_is_repeated_and_paid_for_each_time():
    fails = {0: TeacherError("cut off", worth_repeating=True), 1: TeacherError("cut off", worth_repeating=True)}
    teacher, ledger = Counting(fails=fails), QueryLedger(100)
    ask(teacher, pictures(5), ledger, manner=RequestPolicy(attempts=3))
    assert ledger.spent == teacher.images == 15


def test_repetitions_are_bounded():
    fails = {number: TeacherError("cut off", worth_repeating=True) for number in range(10)}
    teacher, ledger = Counting(fails=fails), QueryLedger(100)
    with pytest.raises(TeacherError, match="cut off"):
        ask(teacher, pictures(5), ledger, manner=RequestPolicy(attempts=3))
    assert len(teacher.asked) == 3


def test_repetitions_stop_at_the_budget():
    fails = {number: TeacherError("cut off", worth_repeating=True) for number in range(10)}
    teacher, ledger = Counting(fails=fails), QueryLedger(12)
    with pytest.raises(BudgetExceeded):
        ask(teacher, pictures(5), ledger, manner=RequestPolicy(attempts=10))
    assert ledger.spent == teacher.images == 10


def test_an_interruption_in_mid_query_leaves_its_images_counted():
    teacher, ledger = Counting(fails={0: KeyboardInterrupt()}), QueryLedger(100)
    with pytest.raises(KeyboardInterrupt):
        ask(teacher, pictures(5), ledger)
    assert ledger.spent == 5


def test_of_batches_under_way_when_one_fails_the_others_are_kept_and_no_more_begun():
    teacher, ledger = Counting(fails={0: TeacherError("down")}, seconds=0.05), QueryLedger(1000)
    with pytest.raises(TeacherError):
        ask(teacher, pictures(200), ledger, manner=RequestPolicy(batch_size=2, workers=3))
    assert teacher.images < 40
    assert unasked(pictures(200), ledger) == 200 - (teacher.images - 2)
    assert ledger.spent == teacher.images


@pytest.mark.parametrize("again", range(5))
def test_a_teacher_that_fails_at_every_query_is_asked_once_by_each_thread_at_most(again):
    teacher = Counting(fails={number: TeacherError("The teacher is broken.") for number in range(200)})
    ledger = QueryLedger(400)
    with pytest.raises(TeacherError, match="broken"):
        ask(teacher, pictures(200), ledger, manner=RequestPolicy(batch_size=1, workers=3))
    assert ledger.spent <= 3


def test_an_answer_that_is_refused_is_paid_for_but_not_kept():
    class Wrong(Counting):
        def query(self, images):
            super().query(images)
            return torch.tensor([[3.0, -1.0]]).expand(len(images), 2)

    teacher, ledger = Wrong(), QueryLedger(100)
    with pytest.raises(TeacherError, match="logits"):
        ask(teacher, pictures(5), ledger, manner=RequestPolicy(attempts=3))
    assert (teacher.images, ledger.spent, unasked(pictures(5), ledger)) == (5, 5, 5)


def test_a_ledger_of_another_teacher_is_refused():
    ledger = QueryLedger(100)
    ask(Counting(), pictures(5), ledger)

    class Three(Counting):
        classes = ("cat", "dog", "hen")

    with pytest.raises(TeacherError, match="another teacher"):
        ask(Three(classes=("cat", "dog", "hen")), pictures(5), ledger)


# ---------------------------------------------------------------------- the rest


def test_progress_begins_with_what_was_known_and_ends_with_all():
    ledger, seen = QueryLedger(100), []
    ask(Counting(), pictures(4), ledger)
    ask(Counting(), pictures(10), ledger, manner=RequestPolicy(batch_size=3), progress=lambda *at: seen.append(at))
    assert seen == [(4, 10), (7, 10), (10, 10)]


def test_no_image_is_no_query():
    teacher = Counting()
    assert ask(teacher, pictures(0), QueryLedger(0)).shape == (0, 2)
    assert teacher.asked == []


def test_images_of_another_form_are_refused_before_anything_is_spent():
    ledger = QueryLedger(10)
    with pytest.raises(InvalidInput, match="uint8"):
        ask(Counting(), pictures(3).float(), ledger)
    assert ledger.spent == 0
