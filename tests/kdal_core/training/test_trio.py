from dataclasses import replace

import pytest
import torch

from kdal_core.errors import ConfigError
from kdal_core.models import default_pair, parameter_count
from kdal_core.training import TrainConfig, TrioSpec, distil, infer, train_pair, train_trio

SPEC = TrioSpec(*default_pair((8, 8)), image_size=(8, 8))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_two_durable_steps_give_the_trio_of_one_call(task, digits, quick):
    images, targets = digits.images[:60], digits.targets[:60]
    pair = train_pair(task, SPEC, images, targets, quick)
    distilled = distil(task, SPEC, pair.teacher, images, targets, quick)
    trio = train_trio(task, SPEC, images, targets, quick)
    assert same(trio.student, pair.student)
    assert same(trio.teacher, pair.teacher)
    assert same(trio.distilled, distilled)


def test_the_teacher_is_four_times_the_student_and_the_distilled_one_is_a_student(task, digits, quick):
    trio = train_trio(task, SPEC, digits.images[:60], digits.targets[:60], quick)
    assert parameter_count(trio.teacher) >= 4 * parameter_count(trio.student)
    assert parameter_count(trio.distilled) == parameter_count(trio.student)
    assert not same(trio.distilled, trio.student)


def test_images_without_a_label_teach_the_distilled_student_where_the_config_says_so(task, digits, quick):
    images, targets = digits.images[:60], digits.targets[:60]
    teacher = train_pair(task, SPEC, images, targets, quick).teacher
    wide = replace(quick, unlabelled=True)

    def student(config, unlabelled):
        return distil(task, SPEC, teacher, images, targets, config, unlabelled=unlabelled)

    alone, taught = student(quick, None), student(wide, digits.images[60:200])
    assert same(student(quick, digits.images[60:200]), alone)
    assert same(student(wide, None), alone)
    assert same(student(wide, digits.images[:0]), alone)
    assert same(student(wide, digits.images[60:200]), taught)
    assert not same(taught, alone)
    assert not same(student(wide, digits.images[200:340]), taught)


def test_what_the_teacher_says_of_images_without_a_label_makes_a_better_student_of_few_labels(task, digits):
    """Over three choices of 30 labels, on images that neither has seen."""
    spec, scores = TrioSpec("tiny_cnn", "mid_cnn", image_size=(8, 8)), []
    for seed in range(3):
        order = torch.randperm(1000, generator=torch.Generator().manual_seed(seed)).tolist()
        images, targets = digits.images[order[:30]], [digits.targets[i] for i in order[:30]]
        config = TrainConfig(epochs=5, min_steps=150, device="cpu", seed=seed)
        teacher = train_pair(task, spec, images, targets, config).teacher
        students = [
            distil(
                task,
                spec,
                teacher,
                images,
                targets,
                replace(config, unlabelled=wide),
                unlabelled=digits.images[order[30:]],
            )
            for wide in (False, True)
        ]
        found = [infer(task, student, digits.images[1000:], device="cpu").predictions for student in students]
        scores.append([task.score(predictions, digits.targets[1000:]) for predictions in found])
    assert sum(wide for _, wide in scores) > sum(alone for alone, _ in scores)


def test_a_small_teacher_is_refused_before_any_training(task, digits, quick):
    spec = replace(SPEC, teacher="small_cnn")
    with pytest.raises(ConfigError, match="at least 4 times"):
        train_pair(task, spec, digits.images[:60], digits.targets[:60], quick)


def test_progress_runs_once_from_start_to_end(task, digits, quick):
    shares = []
    train_trio(task, SPEC, digits.images[:60], digits.targets[:60], quick, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_each_role_knows_its_checkpoint_spec(task):
    specs = {role: SPEC.model_spec(task, role) for role in ("student", "teacher", "distilled")}
    assert specs["teacher"].architecture == SPEC.teacher
    assert specs["student"] == specs["distilled"]
    assert specs["student"].classes == task.classes


def test_the_distilled_student_learns_real_digits(task, digits):
    config = TrainConfig(device="cpu", seed=3)
    trio = train_trio(task, SPEC, digits.images[:300], digits.targets[:300], config)
    held_out = infer(task, trio.distilled, digits.images[-500:], device="cpu")
    assert task.score(held_out.predictions, digits.targets[-500:]) > 0.9
