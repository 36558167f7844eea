"""A round's asking and what its student is taught, with a teacher behind a real HTTP server that counts for itself.

The teacher says "cat" with the share v/256 for an image whose first pixel is v, "dog" with the rest, "hen" never.
"""

import base64
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from kdal.images.refs import ImageRef
from kdal.policy import Policy
from kdal.rounds.black_box import querying, training_set
from kdal.rounds.progress import StepReport
from kdal.rounds.query_log import QueryLog
from kdal.rounds.snapshot import Labelled, Snapshot, held_out
from kdal.rounds.store import RoundStore
from kdal.storage.tables import account_of
from kdal.teachers import StoredLedger
from kdal_core.errors import ConfigError, TeacherError
from tests.kdal.conftest import png
from tests.kdal.teachers.conftest import Endpoint, pictures

UID = "5.1795301030"
SIZE = (8, 8)
CHOICES = ("hen", "dog", "cat")  # not in the teacher's order
CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="animal" toName="image">'
    + "".join(f'<Choice value="{name}"/>' for name in CHOICES)
    + "</Choices></View>"
)
HEN, DOG, CAT = range(3)
PIXELS = pictures(60, start=100, size=SIZE)


def picture(number):
    data = base64.b64encode(png(PIXELS[number].permute(1, 2, 0).numpy())).decode()
    return ImageRef(number, f"data:image/png;base64,{data}")


@pytest.fixture
def endpoint(tmp_path):
    server = Endpoint(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def resources(endpoint, open_resources, tmp_path):
    """With the teacher "pets", 60 images at 0.5 EUR each, in two stages."""
    teacher = endpoint.settings(batch_size=5)
    pets = {"teacher": teacher, "budget": 60, "price": 0.5, "currency": "EUR", "mixup": {"stages": 2}}
    (tmp_path / "teachers.yaml").write_text(yaml.safe_dump({"pets": pets}))
    found = open_resources(teachers=tmp_path / "teachers.yaml", device="cpu", threads=1)
    found.storage.put_project(5, UID, CONFIG, {})
    for number in range(3):
        found.storage.begin_round(5, number, "connect")
    return found


def snapshot(pool, labelled=(), **policy):
    """A project: numbers of unlabelled images, {number: class} of labelled ones."""
    chosen = Policy.parse({"black_box": "pets", "student": "tiny_cnn", "epochs": 1, "holdout": 0.0, **policy})
    found = [Labelled(picture(n), target, held_out(chosen, n)) for n, target in dict(labelled).items()]
    return Snapshot(UID, CONFIG, chosen, SIZE, found, [picture(n) for n in pool], [], "no labels yet")


def ask(resources, snapshot, number=0, progress=lambda share: None):
    report = StepReport(progress, facts=lambda facts: resources.storage.merge_round(5, number, facts=facts))
    return querying.ask(resources, store(resources, number), snapshot, report)


def store(resources, number=0):
    return RoundStore(resources.assets, UID, number)


def account(resources):
    store = StoredLedger(resources.storage, account_of(UID, "pets"))
    return store.account().images, store.answered()


# ---------------------------------------------------------------------- what is asked


def test_the_images_are_asked_about_and_then_their_mixes_until_the_budget_is_spent(resources, endpoint):
    shares = []
    facts = ask(resources, snapshot(range(20)), progress=shares.append)
    assert (facts["queries"], facts["asked_images"], facts["mixes"], facts["unanswered"]) == (60, 20, 40, 0)
    assert (facts["cost"], facts["trains"]) == (30.0, True)
    assert account(resources) == (60, 60)
    assert sorted(endpoint.asked[:20]) == list(range(100, 120))
    assert len(endpoint.asked) == 60
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_mixes_and_their_soft_labels_are_kept_by_task(resources):
    ask(resources, snapshot(range(10, 30)))
    arrays = resources.assets.read_arrays(RoundStore(resources.assets, UID, 0).key("mixes.npz"))
    assert {name: array.shape for name, array in arrays.items()} == {
        "pairs": (40, 2), "lambdas": (40,), "confidence": (40,), "stages": (40,), "probabilities": (40, 3),
    }  # fmt: skip
    assert set(arrays["pairs"].flatten()) <= set(range(10, 30))
    assert arrays["stages"].tolist() == [1] * 20 + [2] * 20
    first, second = (PIXELS[arrays["pairs"][:, i], 1, 0, 0].numpy().astype(float) for i in (0, 1))
    mixed = np.round(arrays["lambdas"] * first + (1 - arrays["lambdas"]) * second)
    assert np.allclose(arrays["probabilities"][:, 0], mixed / 256, atol=1.01 / 256)
    asked = resources.assets.read_json(RoundStore(resources.assets, UID, 0).key("asked.json"))
    assert asked["classes"] == ["cat", "dog", "hen"]
    assert [ref["task_id"] for ref in asked["images"]] == list(range(10, 30))


@pytest.mark.parametrize(("policy", "real"), [({"queries": 16}, 8), ({"queries": 9}, 4), ({"queries": 1000}, 30)])
def test_of_many_images_a_drawn_part_takes_at_most_half_of_the_budget(resources, endpoint, policy, real):
    facts = ask(resources, snapshot(range(50), **policy))
    assert facts["asked_images"] == real
    assert facts["queries"] == len(endpoint.asked) == min(60, policy["queries"])


def test_money_bounds_the_queries_too(resources, endpoint, monkeypatch):
    terms = resources.teachers.terms("pets").model_copy(update={"money": 10.2})
    monkeypatch.setattr(resources.teachers, "_terms", {"pets": terms})
    facts = ask(resources, snapshot(range(50)))
    assert (facts["queries"], facts["cost"], facts["asked_images"]) == (20, 10.0, 10)
    assert len(endpoint.asked) == 20


def test_images_whose_labels_will_be_held_out_are_not_asked_about(resources, endpoint):
    found = snapshot(range(40), holdout=0.5)
    ask(resources, found)
    barred = {n for n in range(40) if held_out(found.policy, n)}
    assert 10 < len(barred) < 30
    asked = {ref.task_id for ref in QueryLog.load(RoundStore(resources.assets, UID, 0)).images}
    assert asked == set(range(40)) - barred


def test_an_image_that_cannot_be_read_or_a_grey_one_among_colours_stops_nothing(resources):
    found = snapshot(range(10))
    grey = base64.b64encode(png(PIXELS[0, 0].numpy())).decode()
    odd = [ImageRef(50, "data:image/png;base64,AAAA"), ImageRef(51, f"data:image/png;base64,{grey}")]
    ask(resources, replace(found, pool=[*found.pool, *odd]))
    assert [ref.task_id for ref in QueryLog.load(RoundStore(resources.assets, UID, 0)).images] == [*range(10), 51]


@pytest.mark.parametrize("pool", [[], [7]])
def test_with_fewer_than_two_images_nobody_is_asked(resources, endpoint, pool):
    facts = ask(resources, snapshot(pool))
    assert (facts["queries"], facts["trains"]) == (0, False)
    assert "no image to ask" in facts["why_untrained"]
    assert endpoint.requests == []
    assert ask(resources, snapshot(pool, {3: CAT}), 1)["trains"]


# ---------------------------------------------------------------------- again, later, after a crash


def test_a_step_that_is_done_again_and_a_round_with_nothing_new_ask_and_train_nothing(resources, endpoint):
    found = snapshot(range(20))
    ask(resources, found)
    first = QueryLog.load(RoundStore(resources.assets, UID, 0))
    steps = []
    for number in (0, 1):
        facts = ask(resources, found, number, steps.append if number else lambda share: None)
        again = QueryLog.load(RoundStore(resources.assets, UID, number))
        assert (facts["queries"], again.images) == (60, first.images)
        for name, array in first.mixes.arrays().items():
            assert np.array_equal(again.mixes.arrays()[name], array)
    assert steps == []
    assert len(endpoint.asked) == 60


def test_a_later_round_asks_about_new_images_and_new_mixes_as_far_as_the_budget_goes(resources, endpoint):
    ask(resources, snapshot(range(10), queries=30))
    facts = ask(resources, snapshot(range(2, 15), {0: CAT, 1: DOG}, queries=50), 1)
    assert (facts["asked_images"], facts["queries"], facts["mixes"]) == (15, 50, 35)
    assert [ref.task_id for ref in QueryLog.load(RoundStore(resources.assets, UID, 1)).images] == list(range(15))
    assert account(resources) == (50, 50)
    assert len(endpoint.asked) == 50
    mixes = QueryLog.load(RoundStore(resources.assets, UID, 1)).mixes
    assert len(np.unique(np.sort(mixes.pairs), axis=0)) == 35
    assert sorted(set(mixes.stages.tolist())) == [1, 2, 3, 4]


def stop_at(share):
    """Progress that breaks the step off, as a process that dies does."""

    def progress(at):
        if at >= share:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("share", [0.05, 0.4, 0.7, 0.97])
def test_a_step_that_was_broken_off_comes_to_the_same_end_without_asking_twice(
    resources, endpoint, share, open_resources
):
    found = snapshot(range(20))
    with pytest.raises(KeyboardInterrupt):
        ask(resources, found, progress=stop_at(share))
    assert 0 < account(resources)[0] <= 60
    ask(resources, found)
    assert account(resources) == (60, 60)
    assert len(endpoint.asked) == 60

    settings = resources.settings  # as if nothing had happened
    other = open_resources(home=settings.home / "other", teachers=settings.teachers, device="cpu", threads=1)
    other.storage.put_project(5, UID, CONFIG, {})
    other.storage.begin_round(5, 0, "connect")
    ask(other, found)
    broken, whole = (QueryLog.load(RoundStore(each.assets, UID, 0)) for each in (resources, other))
    assert broken.images == whole.images
    for name, array in whole.mixes.arrays().items():
        assert np.array_equal(broken.mixes.arrays()[name], array)


def test_stages_that_another_budget_was_planned_for_are_kept(resources, endpoint):
    with pytest.raises(KeyboardInterrupt):
        ask(resources, snapshot(range(20), queries=60), progress=stop_at(0.7))  # in the second stage
    facts = ask(resources, snapshot(range(20), queries=50))
    assert facts["queries"] == len(endpoint.asked) <= 60
    mixes = QueryLog.load(RoundStore(resources.assets, UID, 0)).mixes
    assert len(mixes) == len(np.unique(mixes.pairs, axis=0)) >= 20


def test_a_teacher_that_is_down_is_said_and_costs_nothing_and_the_step_goes_on_when_it_is_back(resources, endpoint):
    found = snapshot(range(20))
    endpoint.kill()
    with pytest.raises(TeacherError, match="cannot be reached") as caught:
        ask(resources, found)
    assert not caught.value.charged
    assert account(resources) == (0, 0)
    endpoint.start()
    assert ask(resources, found)["queries"] == len(endpoint.asked) == 60


def test_a_project_that_is_made_again_under_its_number_has_an_account_of_its_own(resources, endpoint):
    found = snapshot(range(20), queries=20)
    ask(resources, found)
    ask(resources, replace(found, uid="5.1795309999"))
    assert account(resources) == (20, 20)
    assert len(endpoint.asked) == 40


def test_a_teacher_that_has_become_another_one_under_its_name_is_refused(resources, monkeypatch):
    ask(resources, snapshot(range(4), queries=4))
    terms = resources.teachers.terms("pets")
    moved = terms.model_copy(
        update={"teacher": terms.teacher.model_copy(update={"url": "http://elsewhere.example.com"})}
    )
    monkeypatch.setattr(resources.teachers, "_terms", {"pets": moved})
    with pytest.raises(ConfigError, match=r"belongs to another teacher.*another name in KDAL_TEACHERS"):
        ask(resources, snapshot(range(4)), 1)


# ---------------------------------------------------------------------- what the student is taught


def taught(found, image):
    """The targets of an image among training_set."""
    same = (found.images == image).flatten(1).all(dim=1)
    return found.targets[same].tolist()


def test_without_labels_the_student_is_taught_the_teachers_answers_by_the_choices_names(resources):
    found = snapshot(range(20))
    ask(resources, found)
    prepared = training_set.prepare(resources, store(resources), found, StepReport())
    assert (len(prepared.targets), prepared.by_people) == (60, 0)
    for number in range(20):
        cat = (100 + number) / 256
        assert taught(prepared, PIXELS[number]) == [pytest.approx([0.0, 1 - cat, cat], abs=1e-6)]


def test_peoples_labels_outrank_the_teacher_on_their_images_and_on_mixes_of_two_of_them(resources):
    ask(resources, snapshot(range(20)))
    labels = dict.fromkeys(range(10), HEN) | {10: CAT, 40: DOG}  # 40 was never asked about
    found = snapshot(range(11, 20), labels)
    ask(resources, found, 1)
    prepared = training_set.prepare(resources, store(resources, 1), found, StepReport())
    one_hot = np.eye(3)
    for number, target in labels.items():
        assert taught(prepared, PIXELS[number]) == [one_hot[target].tolist()]
    cat = 115 / 256
    assert taught(prepared, PIXELS[15]) == [pytest.approx([0.0, 1 - cat, cat], abs=1e-6)]

    mixes = QueryLog.load(RoundStore(resources.assets, UID, 1)).mixes
    settled = [row for row, pair in enumerate(mixes.pairs.tolist()) if set(pair) <= set(labels)]
    assert 0 < len(settled) < 40
    assert prepared.by_people == len(labels) + len(settled)
    of_people = prepared.targets[len(labels) : prepared.by_people].numpy()
    for target, row in zip(of_people, settled, strict=True):
        (a, b), weight = mixes.pairs[row], mixes.lambdas[row]
        assert np.allclose(target, weight * one_hot[labels[a]] + (1 - weight) * one_hot[labels[b]])
    assert list(prepared.real) == [bool((image == PIXELS).flatten(1).all(dim=1).any()) for image in prepared.images]
    assert sum(prepared.real) == 12 + 9
    teachers = prepared.targets[prepared.by_people :]
    assert len(teachers) == 9 + 40 - len(settled)
    assert (teachers[:, HEN] == 0).all()  # which it never says


def test_held_out_labels_and_their_images_teach_nothing(resources):
    ask(resources, snapshot(range(20)))
    found = snapshot(range(10, 20), dict.fromkeys(range(10), CAT), holdout=0.5)  # the owner holds out from now on
    ask(resources, found, 1)
    prepared = training_set.prepare(resources, store(resources, 1), found, StepReport())
    barred = [item.ref.task_id for item in found.held_out]
    assert 0 < len(barred) < 10
    assert [number for number in barred if taught(prepared, PIXELS[number])] == []
    mixes = QueryLog.load(RoundStore(resources.assets, UID, 1)).mixes
    within = [pair for pair in mixes.pairs.tolist() if not set(pair) & set(barred)]
    assert len(prepared.targets) == 20 - len(barred) + len(within)


def test_an_image_that_is_gone_takes_its_mixes_with_it_and_nothing_else(resources):
    ask(resources, snapshot(range(20)))
    key = RoundStore(resources.assets, UID, 0).key("asked.json")
    value = resources.assets.read_json(key)
    value["images"][3]["uri"] = "data:image/png;base64,AAAA"
    resources.assets.write_json(key, value)
    prepared = training_set.prepare(resources, store(resources), snapshot(range(20)), StepReport())
    with_it = (QueryLog.load(RoundStore(resources.assets, UID, 0)).mixes.pairs == 3).any(axis=1).sum()
    assert len(prepared.targets) == 60 - 1 - with_it


def test_when_every_image_is_gone_the_round_says_so_in_words(resources):
    ask(resources, snapshot(range(20)))
    key = RoundStore(resources.assets, UID, 0).key("asked.json")
    value = resources.assets.read_json(key)
    for image in value["images"]:
        image["uri"] = "data:image/png;base64,AAAA"
    resources.assets.write_json(key, value)
    with pytest.raises(ConfigError, match="cannot train a model"):
        training_set.train_student(resources, store(resources), snapshot(range(20)), StepReport())


def test_the_student_takes_the_serving_role_with_the_choices_in_their_order(resources):
    found = snapshot(range(20), epochs=60)
    ask(resources, found)
    facts = training_set.train_student(resources, store(resources), found, StepReport())
    assert facts == {"student": "tiny_cnn", "trained_on": 60, "taught_by_people": 0, "taught_by_teacher": 60}
    model, spec = RoundStore(resources.assets, UID, 0).load_model()
    assert (spec.classes, spec.architecture, spec.image_size) == (CHOICES, "tiny_cnn", SIZE)
    with torch.inference_mode():
        said = model(PIXELS[:20].float() / 255).softmax(dim=1).mean(dim=0)
    assert said[HEN] < 0.1  # the teacher gives 0
