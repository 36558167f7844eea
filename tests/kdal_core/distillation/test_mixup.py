from dataclasses import replace

import numpy as np
import pytest
import torch

from kdal_core.distillation import (
    Distilled,
    MemoryStore,
    MixupConfig,
    MixupSelection,
    QueryLedger,
    SoftLabel,
    SoftLabelTask,
    StageConfig,
    TorchTeacher,
    active_mixup,
    image_key,
    mix_images,
    random_search,
    select_pairs,
)
from kdal_core.distillation.stages import Proposal, affordable, stage_sizes, taught
from kdal_core.errors import BudgetExceeded, ConfigError, KdalError, TeacherError
from kdal_core.tasks import ClassificationTask
from kdal_core.training import TrainConfig, infer, load_checkpoint, save_checkpoint

CLASSES = tuple("0123456789")
TRAIN = TrainConfig(epochs=2, batch_size=32, min_steps=20, max_steps=20, lr=4e-3, device="cpu")
CONFIG = MixupConfig(training=StageConfig(stages=2, train=TRAIN), lambdas=(0.3, 0.5, 0.7))


class CountingTeacher(TorchTeacher):
    """A real network behind a counter."""

    def __init__(self, module):
        super().__init__(module, CLASSES, device="cpu")
        self.asked = []
        self.fails_after = None

    def query(self, images):
        if self.fails_after is not None and len(self.asked) + len(images) > self.fails_after:
            raise TeacherError("The teacher is down.", charged=False)
        self.asked += [image_key(image) for image in images]
        return super().query(images)


@pytest.fixture
def teacher(student):
    return CountingTeacher(student)


@pytest.fixture
def images(digits):
    return digits.images[300:330]


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_budget_is_spent_whole_real_images_included(teacher, images):
    result = active_mixup(teacher, images, "tiny_cnn", 91, CONFIG)
    assert isinstance(result, Distilled)
    assert (result.ledger.spent, result.ledger.left, len(teacher.asked)) == (91, 0, 91)
    assert [(stage.number, stage.spent, stage.images) for stage in result.history] == [
        (0, 30, 30),
        (1, 60, 60),
        (2, 91, 91),
    ]


def test_the_real_images_are_asked_first_and_then_the_mixes_as_the_teacher_is_to_see_them(teacher, images):
    result = active_mixup(teacher, images, "tiny_cnn", 80, CONFIG)
    mixes = [mix_images(images, stage.selection.pairs, stage.selection.lambdas) for stage in result.history[1:]]
    assert teacher.asked == [image_key(image) for image in torch.cat([images, *mixes])]


def test_no_pair_is_mixed_twice_in_a_run(teacher, images):
    result = active_mixup(teacher, images[:12], "tiny_cnn", 12 + 66, CONFIG)
    pairs = np.concatenate([stage.selection.pairs for stage in result.history[1:]])
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs) == 66


def test_a_budget_beyond_all_pairs_is_not_spent(teacher, images):
    result = active_mixup(teacher, images[:6], "tiny_cnn", 1000, CONFIG)
    assert result.ledger.spent == 6 + 15


def test_each_stage_selects_by_the_student_of_the_stage_before_with_lambda_found_again(teacher, images):
    students = {}
    config = replace(CONFIG, training=replace(CONFIG.training, stages=3), selectivity=1)
    result = active_mixup(
        teacher, images, "tiny_cnn", 120, config, on_stage=lambda stage, model: students.update({stage.number: model})
    )
    taken = np.empty((0, 2), np.int64)
    for stage in result.history[1:]:
        k = len(stage.selection)
        expected = select_pairs(students[stage.number - 1], images, k, config.lambdas, taken)
        assert np.array_equal(stage.selection.pairs, expected.pairs)
        assert np.array_equal(stage.selection.lambdas, expected.lambdas)
        taken = np.concatenate([taken, stage.selection.pairs])
    assert same_weights(result.student, students[3])
    assert not same_weights(students[2], students[3])


def test_unless_as_published_the_surest_fifth_of_random_pairs_is_left_out(teacher, images):
    students = {}
    result = active_mixup(
        teacher, images, "tiny_cnn", 110, CONFIG, on_stage=lambda stage, model: students.update({stage.number: model})
    )
    stage = result.history[1]
    drawn = select_pairs(students[0], images, 50, CONFIG.lambdas, candidates=50, seed=1)  # this stage's fifty pairs
    assert len(stage.selection) == 40
    assert np.array_equal(stage.selection.pairs, drawn.pairs[:40])
    assert drawn.confidence[40:].min() >= stage.selection.confidence.max()


def test_pairs_looked_at():
    assert MixupConfig(selectivity=0).looked_at(40) == 40
    assert MixupConfig(selectivity=0.5).looked_at(40) == 80
    assert MixupConfig(selectivity=0.5, candidates=60).looked_at(40) == 60
    assert MixupConfig(selectivity=1, candidates=60).looked_at(40) == 60
    assert MixupConfig(max_uses=3).looked_at(40) is None


@pytest.mark.parametrize("selectivity", [-0.1, 1.1, float("nan")])
def test_a_selectivity_that_is_no_share_is_refused(selectivity):
    with pytest.raises(KdalError, match="selectivity"):
        MixupConfig(selectivity=selectivity)


def test_the_same_seed_gives_the_same_student_and_another_seed_another(student, images, random_state_is_kept):
    first, again = (active_mixup(TorchTeacher(student, CLASSES), images, "tiny_cnn", 60, CONFIG) for _ in range(2))
    assert same_weights(first.student, again.student)
    other = replace(CONFIG, training=replace(CONFIG.training, seed=1))
    assert not same_weights(
        first.student, active_mixup(TorchTeacher(student, CLASSES), images, "tiny_cnn", 60, other).student
    )


def test_a_student_learns_what_its_teacher_knows_from_soft_labels_alone(teacher, digits):
    long = replace(TRAIN, epochs=60, min_steps=400, max_steps=400)
    config = replace(CONFIG, training=StageConfig(stages=1, train=long))
    result = active_mixup(teacher, digits.images[300:420], "tiny_cnn", 300, config)
    held_out = digits.images[1000:1500]
    ours = infer(ClassificationTask(CLASSES), result.student, held_out, device="cpu").predictions.argmax(1)
    theirs = teacher.query(held_out).argmax(1).numpy()
    assert (ours == theirs).mean() > 0.8


def test_real_images_are_not_drowned_by_mixes(teacher, images):
    """Where all train for as many steps, half of which is real, the real images are told better than as published."""
    long = replace(TRAIN, min_steps=150, max_steps=150)
    found = {}
    for share in (0.0, 0.5):
        config = replace(CONFIG, training=StageConfig(stages=1, train=long, real_share=share))
        found[share] = active_mixup(teacher, images, "tiny_cnn", 10 * len(images), config)
    answers = teacher.query(images).numpy()
    task = ClassificationTask(CLASSES)
    losses = {
        share: -(answers * np.log(infer(task, run.student, images, device="cpu").predictions)).sum(1).mean()
        for share, run in found.items()
    }
    assert losses[0.5] < losses[0.0]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(("real", "others"), [(1, 0), (3, 2), (7, 100)])
def test_a_pass_goes_through_everything_and_through_real_images_as_often_as_asked(real, others, share):
    own = np.random.default_rng(real).permutation([True] * real + [False] * others)
    targets, rows = taught(torch.ones(real + others, 10), own.tolist(), StageConfig(real_share=share))
    assert [target.views for target in targets] == own.tolist()
    counts = np.bincount(rows, minlength=real + others)
    assert counts[~own].tolist() == [1] * others
    assert counts[own].min() >= 1
    assert counts[own].max() - counts[own].min() <= 1
    assert counts[own].sum() >= round(share * len(rows)) - 1


def test_the_student_is_a_checkpoint_like_any_other(teacher, images):
    result = active_mixup(teacher, images, "tiny_cnn", 60, CONFIG)
    model, spec = load_checkpoint(save_checkpoint(result.student, result.spec))
    assert (spec.kind, spec.classes, spec.image_size) == ("classification", CLASSES, (8, 8))
    assert torch.equal(model(images.float() / 255), result.student(images.float() / 255))


def test_a_run_that_the_teacher_interrupts_goes_on_with_what_was_paid_for(student, images):
    store, teacher = MemoryStore(), CountingTeacher(student)
    teacher.fails_after = 45
    with pytest.raises(TeacherError, match="down"):
        active_mixup(teacher, images, "tiny_cnn", QueryLedger(70, store=store), CONFIG)
    teacher.fails_after = None
    resumed = active_mixup(teacher, images, "tiny_cnn", QueryLedger(70, store=store), CONFIG)
    whole = active_mixup(CountingTeacher(student), images, "tiny_cnn", 70, CONFIG)
    assert len(teacher.asked) == len(set(teacher.asked)) == 70
    assert same_weights(resumed.student, whole.student)


@pytest.mark.parametrize("done", [1, 2])
def test_a_run_is_replayed_up_to_a_stage_without_training_before_it(teacher, images, done):
    store = MemoryStore()
    whole = active_mixup(teacher, images, "tiny_cnn", QueryLedger(80, store=store), CONFIG)
    selections = [stage.selection for stage in whole.history[1 : done + 1]]
    resumed = active_mixup(teacher, images, "tiny_cnn", QueryLedger(80, store=store), CONFIG, replay=selections)
    assert same_weights(resumed.student, whole.student)
    assert [stage.training is None for stage in resumed.history] == [stage < done for stage in range(3)]
    assert len(teacher.asked) == 80


def test_mixes_of_an_earlier_run_are_learnt_from_at_once_and_neither_paid_for_nor_chosen_again(teacher, images):
    store = MemoryStore()
    first = active_mixup(teacher, images[:20], "tiny_cnn", QueryLedger(50, store=store), CONFIG)
    pairs, lambdas, confidence = (
        np.concatenate([getattr(stage.selection, name) for stage in first.history[1:]])
        for name in ("pairs", "lambdas", "confidence")
    )
    known = MixupSelection(pairs, lambdas, confidence)
    more = active_mixup(teacher, images, "tiny_cnn", QueryLedger(80, store=store), CONFIG, earlier=known)
    assert [stage.images for stage in more.history] == [60, 70, 80]  # 30 images, 30 mixes; then the 20 queries left
    assert len(set(teacher.asked)) == len(teacher.asked) == 80
    new = np.concatenate([stage.selection.pairs for stage in more.history[1:]])
    assert len(np.unique(np.concatenate([pairs, new]), axis=0)) == 50


def test_answers_that_were_paid_for_and_lost_shorten_the_last_stage(teacher, images):
    ledger = QueryLedger(60)
    ledger.spend(7)  # asked in a process that died before the answers came
    result = active_mixup(teacher, images, "tiny_cnn", ledger, CONFIG)
    assert (ledger.spent, len(teacher.asked)) == (60, 53)
    assert [len(stage.selection) for stage in result.history[1:]] == [15, 8]


def test_what_cannot_be_afforded_is_left_out_from_the_end(digits):
    ledger = QueryLedger(5)
    cut = affordable(Proposal(digits.images[:9]), ledger)
    assert torch.equal(cut.images, digits.images[:5])
    repeated = torch.cat([digits.images[:2].repeat(3, 1, 1, 1), digits.images[2:9]])
    assert len(affordable(Proposal(repeated), ledger).images) == 9  # two images three times, and three others


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"images": "one"}, KdalError),
        ({"images": "sizes"}, KdalError),
        ({"images": "channels"}, KdalError),
        ({"images": "colour"}, KdalError),
        ({"images": "float"}, KdalError),
        ({"ledger": 29}, BudgetExceeded),
        ({"ledger": 1.5}, KdalError),
        ({"student": "lenet6"}, ConfigError),
        ({"student": "lenet5"}, ConfigError),  # takes no 8 x 8 images
    ],
)
@pytest.mark.parametrize("method", [active_mixup, random_search])
def test_what_cannot_work_is_said_before_any_query(teacher, images, method, change, error):
    tinted = images.clone()
    tinted[0, 0] += 1
    kinds = {
        "one": images[:1],
        "sizes": [images[0], images[1, :, 1:]],
        "channels": [images[0], images[1, :1]],
        "colour": tinted,
        "float": images.float(),
    }
    arguments = {"images": images, "student": "tiny_cnn", "ledger": 60} | change
    if isinstance(arguments["images"], str):
        arguments["images"] = kinds[arguments["images"]]
    with pytest.raises(error):
        method(teacher, arguments["images"], arguments["student"], arguments["ledger"], CONFIG)
    assert teacher.asked == []


def test_random_search_mixes_halves_of_random_pairs(teacher, images):
    result = random_search(teacher, images, "tiny_cnn", 80, CONFIG)
    selections = [stage.selection for stage in result.history[1:]]
    assert all((selection.lambdas == 0.5).all() for selection in selections)
    pairs = np.concatenate([selection.pairs for selection in selections])
    assert len({tuple(pair) for pair in pairs.tolist()}) == 50
    assert result.ledger.spent == 80


def test_soft_labels_are_learnt_without_a_hard_one(digits):
    task = SoftLabelTask(("a", "b", "c"))
    logits, target = torch.tensor([[0.2, -1.0, 0.4]]), torch.tensor([[0.5, 0.2, 0.3]])
    expected = -(target * logits.log_softmax(1)).sum()
    assert task.loss(logits, task.collate(list(target))).item() == pytest.approx(expected.item(), rel=1e-6)
    assert task.trainable([]) is not None
    with pytest.raises(KdalError, match="3 probabilities"):
        task.collate([torch.ones(2)])


def test_random_views_are_seen_of_those_images_of_which_they_are_wanted(digits):
    task = SoftLabelTask(CLASSES)
    answers = torch.full((6, 10), 0.1)
    wanted = [True, False, False, True, False, True]
    targets = task.collate([SoftLabel(answer, views=view) for answer, view in zip(answers, wanted, strict=True)])
    images = digits.images[:6].float() / 255
    seen, same = task.augment(images, targets, torch.Generator().manual_seed(0))
    changed = (seen != images).flatten(1).any(dim=1)
    assert changed.tolist() == wanted
    assert same is targets
    plain = task.collate([SoftLabel(answer, views=False) for answer in answers])
    assert torch.equal(task.augment(images, plain, torch.Generator())[0], images)


@pytest.mark.parametrize("views", ["real", "all"])
def test_mixes_are_seen_as_the_teacher_saw_them_unless_views_of_all_are_wanted(teacher, images, views, monkeypatch):
    viewed = []
    augment = SoftLabelTask.augment

    def watched(task, x, targets, generator):
        viewed.append(int(targets[1].sum()) / len(x))
        return augment(task, x, targets, generator)

    monkeypatch.setattr(SoftLabelTask, "augment", watched)
    config = replace(CONFIG, training=replace(CONFIG.training, stages=1, views=views))
    active_mixup(teacher, images, "tiny_cnn", 4 * len(images), config)
    last = viewed[-TRAIN.min_steps :]
    assert min(last) == 1 if views == "all" else 0.4 < sum(last) / len(last) < 0.6


def test_stage_sizes_are_even_and_add_up():
    for queries in (0, 1, 7, 100):
        for stages in (0, 1, 3, 10):
            sizes = stage_sizes(queries, stages)
            assert sum(sizes) == (queries if stages else 0)
            assert not sizes or max(sizes) - min(sizes) <= 1


def test_stages_can_be_of_different_sizes_and_none_goes_beyond_the_budget(teacher, images):
    config = replace(CONFIG, training=StageConfig(train=TRAIN, sizes=(2, 6, 5)))
    done = random_search(teacher, images[:10], "tiny_cnn", QueryLedger(20), config)
    assert [stage.spent for stage in done.history] == [10, 12, 18, 20]
