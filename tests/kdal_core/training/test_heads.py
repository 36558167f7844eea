import copy
import random

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from kdal_core.errors import ConfigError
from kdal_core.training import Head, HeadConfig, HeadPool, fit_heads, heads, out_of_fold
from kdal_core.training.logistic import softmax
from kdal_core.validation import InvalidInput


@pytest.fixture(scope="module")
def digits():
    """1,797 digits in random order: (N, 64) float32 and their classes."""
    pixels, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(classes))
    return pixels[order].astype(np.float32), classes[order]


@pytest.fixture(scope="module")
def pool(digits):
    """The first 600 of them; the student sees a blurred half of what the teacher sees."""
    return HeadPool(digits[0][:600, ::2], [digits[0][:600]])


def clusters(sizes, *, width=8, noise=0.2, seed=0):
    """Points (N, width) about one random centre for each size, in random order, and which centre is theirs."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = rng.standard_normal((len(sizes), width))
    return (centres[classes] + noise * rng.standard_normal((len(classes), width))).astype(np.float32), classes


def one_of_each(classes):
    """The position of the first point of each class."""
    return np.array([np.flatnonzero(classes == name)[0] for name in np.unique(classes)])


def accuracy(said, classes):
    return float((said.argmax(axis=1) == classes).mean())


def bits(trio):
    named = [trio.student.weight, trio.student.bias, trio.distilled.weight, trio.distilled.bias]
    return [part.tobytes() for part in [*named, trio.teacher_head.values]]


# --- What they are for


def test_the_teachers_word_makes_a_better_student_of_few_labels(digits):
    features, classes = digits
    gains = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(classes))
        ours, aside = order[:1000], order[1000:]
        trio = fit_heads(features[ours, ::2], [features[ours]], np.arange(30), classes[ours[:30]], 10)
        said = [accuracy(head.logits(features[aside, ::2]), classes[aside]) for head in (trio.student, trio.distilled)]
        gains.append(said[1] - said[0])
    assert np.mean(gains) > 0.05


def test_with_many_labels_the_distilled_student_is_no_worse_than_logistic_regression(digits):
    features, classes = digits
    trio = fit_heads(features[:1200], [features[:1200]], np.arange(1000), classes[:1000], 10)
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    plain = LogisticRegression(C=30, max_iter=500).fit(rows[:1000], classes[:1000]).score(rows[1200:], classes[1200:])
    assert accuracy(trio.distilled.logits(features[1200:]), classes[1200:]) >= plain - 0.005


def test_the_student_is_logistic_regression_on_the_labels(digits):
    """With every component kept, S differs from scikit-learn's on centred features by the decay of its bias alone."""
    features, classes = digits[0][:300], digits[1][:300]
    config = HeadConfig(student_components=64, decays=(1e-3,))
    ours = fit_heads(features, [features], np.arange(100), classes[:100], 10, config=config).student
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    rows = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0).sum())
    theirs = LogisticRegression(C=1 / (1e-3 * 100), max_iter=2000, tol=1e-8).fit(rows[:100], classes[:100])
    np.testing.assert_allclose(ours.probabilities(features), theirs.predict_proba(rows), atol=0.02)


def test_the_teacher_knows_the_pool_and_has_a_head_for_images_outside_it(digits, pool):
    features, classes = digits
    trio = pool.fit(np.arange(50), classes[:50], 10)
    outside = trio.teacher_head.probabilities([features[600:]])
    assert trio.teacher.shape == (600, 10)
    assert trio.teacher.dtype == np.float32
    np.testing.assert_allclose(trio.teacher.sum(axis=1), 1, atol=1e-5)
    assert accuracy(trio.teacher[50:], classes[50:600]) > 0.8
    assert accuracy(outside, classes[600:]) > 0.8
    # The teacher sees twice what the student sees.
    assert accuracy(outside, classes[600:]) > accuracy(trio.student.logits(features[600:, ::2]), classes[600:])


def test_a_teacher_that_knows_less_than_its_student_is_hardly_heard():
    """Neighbours tell nothing where classes are the sides of planes through one cloud of points."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3000, 60)).astype(np.float32)
    classes = (features @ rng.standard_normal((60, 4))).argmax(axis=1)
    ours = HeadPool(features[:2000], [features[:2000]])
    trio = ours.fit(np.arange(800), classes[:800], 4)
    student, distilled = (
        accuracy(head.logits(features[2000:]), classes[2000:]) for head in (trio.student, trio.distilled)
    )
    assert accuracy(trio.teacher[800:], classes[800:2000]) < student
    assert distilled >= student - 0.005
    assert (trio.distilled.weight != trio.student.weight).any()


def test_more_images_without_a_label_help(digits):
    features, classes = digits
    few, many = (
        fit_heads(features[:size], [features[:size]], np.arange(30), classes[:30], 10).distilled for size in (60, 1000)
    )
    assert accuracy(many.logits(features[1000:]), classes[1000:]) > accuracy(
        few.logits(features[1000:]), classes[1000:]
    )


# --- Heads


def test_a_head_is_a_linear_map_of_features_of_length_one():
    rng = np.random.default_rng(0)
    head = Head(rng.standard_normal((3, 5), dtype=np.float32), rng.standard_normal(3, dtype=np.float32))
    features = rng.standard_normal((7, 5))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(head.logits(features), unit @ head.weight.T + head.bias, atol=1e-5)
    raw = Head(head.weight, head.bias, normalised=False)
    np.testing.assert_allclose(raw.logits(features), features @ head.weight.T + head.bias, atol=1e-5)
    odds = np.exp(head.logits(features).astype(float))
    np.testing.assert_allclose(head.probabilities(features), odds / odds.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_head_works_on_raw_features_whatever_their_scale(digits, pool):
    features, classes = digits
    head = pool.fit(np.arange(50), classes[:50], 10).distilled
    assert head.weight.shape == (10, 32)
    assert head.weight.dtype == head.bias.dtype == np.float32
    np.testing.assert_allclose(head.logits(1000 * features[:9, ::2]), head.logits(features[:9, ::2]), atol=1e-4)


def test_what_is_folded_in_says_what_was_fitted(digits, pool):
    """Out of the pool's own components, by hand."""
    features, classes = digits
    rows, wanted = pool._labels(np.arange(50), classes[:50], 10)
    values = pool._from_word(pool._student, pool._word(rows, wanted, 10, rounds=3), rows, wanted)
    by_hand = pool._student @ values[:-1] + values[-1]
    head = pool.fit(np.arange(50), classes[:50], 10).distilled
    np.testing.assert_allclose(head.logits(features[:600, ::2])[pool._order], by_hand, atol=2e-3)


def test_features_of_another_width_are_refused(digits, pool):
    features, classes = digits
    trio = pool.fit(np.arange(50), classes[:50], 10)
    with pytest.raises(InvalidInput, match=r"shape \(N, 32\)"):
        trio.distilled.logits(features)
    with pytest.raises(InvalidInput, match="1 kinds of features, not 2"):
        trio.teacher_head.probabilities([features, features])


# --- Same inputs, same bits


def test_the_same_inputs_give_the_same_bits_and_nothing_else_is_changed(digits):
    features, classes = digits[0][:200], digits[1][:200]
    states = np.random.get_state()[1].copy(), random.getstate(), torch.random.get_rng_state()  # noqa: NPY002
    given = copy.deepcopy((features, classes))
    first = fit_heads(features, [features, features[:, :30]], np.arange(40), classes[:40], 10)
    np.random.default_rng().random()
    again = fit_heads(features, [features, features[:, :30]], np.arange(40), classes[:40], 10)
    assert bits(first) == bits(again)
    assert first.teacher.tobytes() == again.teacher.tobytes()
    assert (features == given[0]).all()
    assert (classes == given[1]).all()
    assert (np.random.get_state()[1] == states[0]).all()  # noqa: NPY002
    assert random.getstate() == states[1]
    assert torch.equal(torch.random.get_rng_state(), states[2])


def test_the_order_of_the_images_and_of_the_labels_does_not_matter(digits):
    features, classes = digits[0][:200], digits[1][:200]
    assert len(np.unique(features, axis=0)) == 200
    labelled = np.arange(40)
    order = np.random.default_rng(3).permutation(200)
    where = np.argsort(order)[labelled]  # where the labelled images are now
    turned = np.random.default_rng(4).permutation(40)
    straight, moved = HeadPool(features[:, ::2], [features]), HeadPool(features[order, ::2], [features[order]])
    first = straight.fit(labelled, classes[:40], 10)
    other = moved.fit(where[turned], classes[:40][turned], 10)
    assert bits(first) == bits(other)
    assert (first.teacher[order] == other.teacher).all()
    folds = straight.out_of_fold(labelled, classes[:40], 10)
    assert (folds[turned] == moved.out_of_fold(where[turned], classes[:40][turned], 10)).all()


def test_features_may_be_of_half_precision(digits):
    features, classes = digits
    halves = [
        fit_heads(kind[:300], [kind[:300]], np.arange(40), classes[:40], 10)
        for kind in (features, features.astype(np.float16), features.astype(np.float64))
    ]
    said = [trio.distilled.probabilities(features[300:600]) for trio in halves]
    np.testing.assert_allclose(said[0], said[1], atol=0.02)
    np.testing.assert_allclose(said[0], said[2], atol=0.02)
    assert halves[1].distilled.probabilities(features[300:310].astype(np.float16)).dtype == np.float32


# --- Few, odd and wrong labels


def test_one_label_a_class_is_enough_where_classes_lie_apart():
    features, classes = clusters([60, 60, 60, 60])
    labelled = one_of_each(classes)
    trio = fit_heads(features, [features], labelled, classes[labelled], 4)
    assert accuracy(trio.distilled.logits(features), classes) > 0.97
    assert accuracy(trio.teacher, classes) > 0.97


def test_classes_of_very_different_size_are_kept_apart():
    features, classes = clusters([300, 40, 10, 1])
    labelled = np.union1d(np.arange(20), one_of_each(classes))
    trio = fit_heads(features, [features], labelled, classes[labelled], 4)
    for name in range(4):
        own = classes == name
        assert accuracy(trio.distilled.logits(features[own]), classes[own]) > 0.9


def test_with_labels_of_one_class_alone_everything_is_of_that_class(digits):
    features, classes = digits[0][:200], digits[1][:200]
    labelled = np.flatnonzero(classes == 7)[:5]
    trio = fit_heads(features, [features], labelled, classes[labelled], 10)
    for said in (trio.student.logits(features), trio.distilled.logits(features), trio.teacher):
        assert np.isfinite(said).all()
        assert (said.argmax(axis=1) == 7).all()


@pytest.mark.parametrize(("size", "labels"), [(1, 1), (2, 1), (2, 2), (3, 3), (20, 20)])
def test_the_smallest_pools_can_be_learnt_from(digits, size, labels):
    features, classes = digits[0][:size], digits[1][:size]
    trio = fit_heads(features, [features], np.arange(labels), classes[:labels], 10)
    assert np.isfinite(trio.distilled.logits(features)).all()
    assert np.isfinite(trio.teacher).all()
    assert accuracy(trio.teacher[:labels], classes[:labels]) == 1


def test_a_class_without_a_label_is_not_spoken_of(digits, pool):
    _, classes = digits
    known = np.flatnonzero(classes[:600] != 3)[:50]
    trio = pool.fit(known, classes[known], 10)
    assert trio.teacher[:, 3].max() < 0.01
    assert (trio.distilled.probabilities(digits[0][:600, ::2]).argmax(axis=1) != 3).all()


def test_a_few_wrong_labels_do_little_harm():
    features, classes = clusters([100, 100, 100], noise=0.4)
    given = classes[:60].copy()
    given[:6] = (given[:6] + 1) % 3
    trio = fit_heads(features, [features], np.arange(60), given, 3)
    assert accuracy(trio.distilled.logits(features[60:]), classes[60:]) > 0.95


def test_images_that_are_all_alike_are_told_nothing_apart():
    features = np.ones((30, 8), dtype=np.float32)
    trio = fit_heads(features, [features], np.arange(4), [0, 0, 0, 1], 2)
    said = trio.distilled.probabilities(features)
    assert np.isfinite(said).all()
    np.testing.assert_allclose(said, said[:1].repeat(30, axis=0), atol=1e-6)


def test_images_of_which_nothing_is_known_are_allowed():
    """A feature vector of zeros has no direction."""
    features, classes = clusters([50, 50])
    features[7] = 0
    trio = fit_heads(features, [features], one_of_each(classes), [0, 1], 2)
    assert np.isfinite(trio.teacher).all()
    assert np.isfinite(trio.distilled.logits(features)).all()


# --- Left-out labels


def test_what_is_said_of_a_left_out_label_is_worth_what_it_is_on_new_images(digits):
    features, classes = digits
    ours = HeadPool(features[:600, ::2], [features[:600]])
    told = accuracy(ours.out_of_fold(np.arange(150), classes[:150], 10), classes[:150])
    head = ours.fit(np.arange(150), classes[:150], 10).distilled
    assert abs(told - accuracy(head.logits(features[600:, ::2]), classes[600:])) < 0.07


def test_labels_without_rhyme_or_reason_cannot_be_foretold(digits, pool):
    wanted = np.random.default_rng(1).integers(0, 10, 60)
    said = pool.out_of_fold(np.arange(60), wanted, 10)
    assert said.shape == (60, 10)
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-5)
    assert accuracy(said, wanted) < 0.3


def test_the_only_label_of_its_class_is_unknown_where_it_is_left_out(digits, pool):
    _, classes = digits
    labelled = np.concatenate([np.flatnonzero(classes[:600] != 5)[:40], np.flatnonzero(classes[:600] == 5)[:1]])
    said = pool.out_of_fold(labelled, classes[labelled], 10)
    assert said[-1].argmax() != 5
    assert said[-1, 5] < 0.05
    assert pool.fit(labelled, classes[labelled], 10).teacher[labelled[-1]].argmax() == 5


@pytest.mark.parametrize("count", [2, 3, 6])
def test_few_labels_are_left_out_one_by_one(digits, pool, count):
    classes = digits[1][:count]
    said = pool.out_of_fold(np.arange(count), classes, 10, folds=99)
    assert np.isfinite(said).all()
    for place in range(count):
        others = np.delete(np.arange(count), place)
        alone = pool.fit(others, classes[others], 10).distilled.probabilities(digits[0][[place], ::2])
        np.testing.assert_allclose(said[[place]], alone, atol=1e-4)


def test_folds_that_cannot_be_are_refused(digits, pool):
    classes = digits[1]
    with pytest.raises(InvalidInput, match="At least 2 labels"):
        pool.out_of_fold([3], [1], 10)
    with pytest.raises(InvalidInput, match="folds must lie from 2"):
        pool.out_of_fold(np.arange(10), classes[:10], 10, folds=1)


# --- Large pools


def test_a_large_pool_is_taught_from_a_part_of_it_and_all_labels(digits, monkeypatch):
    features, classes = digits
    whole = fit_heads(features[:1000], [features[:1000]], np.arange(50), classes[:50], 10)
    monkeypatch.setattr(heads, "TAUGHT", 300)
    taught = heads._some(1000, np.array([1, 5, 998]))
    assert {1, 5, 998} <= set(taught.tolist())
    assert len(taught) <= 303
    part = fit_heads(features[:1000], [features[:1000]], np.arange(50), classes[:50], 10)
    said = [accuracy(trio.distilled.logits(features[1000:]), classes[1000:]) for trio in (whole, part)]
    assert said[1] > said[0] - 0.04


# --- What is refused


@pytest.mark.parametrize(
    ("labelled", "targets", "classes", "message"),
    [
        ([0, 600], [0, 1], 10, "positions from 0 to 599"),
        ([0, -1], [0, 1], 10, "positions from 0 to 599"),
        ([0, 1], [0, 10], 10, "class numbers from 0 to 9"),
        ([0, 1], [0, -1], 10, "class numbers from 0 to 9"),
        ([0, 0], [0, 1], 10, "position twice"),
        ([0, 1], [0], 10, "2 labelled positions but 1 targets"),
        ([], [], 10, "At least one label"),
        ([0.5], [0], 10, "labelled must be whole numbers"),
        ([0], [0.5], 10, "targets must be whole numbers"),
        ([[0]], [0], 10, "labelled must be whole numbers"),
        ([0], [0], 0, "classes must lie from 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(pool, labelled, targets, classes, message):
    with pytest.raises(InvalidInput, match=message):
        pool.fit(labelled, targets, classes)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (np.ones((4, 3)), [], "at least one kind"),
        (np.ones((4, 3)), [np.ones((5, 3))], r"teacher\[0\] holds 5 images; the student's features 4"),
        (np.ones(4), [np.ones((4, 3))], r"student must hold floats of the shape \(N, D\)"),
        (np.ones((4, 3), dtype=int), [np.ones((4, 3))], "student must hold floats"),
        (np.ones((4, 3)), [np.full((4, 3), np.nan)], r"teacher\[0\] holds NaN"),
        (np.full((4, 3), np.inf), [np.ones((4, 3))], "student holds NaN or an infinite value"),
        (np.ones((0, 3)), [np.ones((0, 3))], "student is empty"),
    ],
)
def test_features_that_cannot_be_used_are_refused(student, teacher, message):
    with pytest.raises(InvalidInput, match=message):
        fit_heads(student, teacher, [0], [0], 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"components": 0}, "components must be at least 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"alpha": 1.0}, "alpha must lie in"),
        ({"own": (0.5, 1.5)}, "own must lie in"),
        ({"own_half": 0.0}, "own_half and label_half"),
        ({"decay": 0.0}, "decay, sharpness"),
        ({"decays": ()}, "decays"),
        ({"folds": 1}, "folds must be at least 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        HeadConfig(**wrong)


def test_the_functions_do_what_the_pool_does(digits, pool):
    features, classes = digits
    given = features[:600, ::2], [features[:600]], np.arange(30), classes[:30], 10
    assert bits(fit_heads(*given)) == bits(pool.fit(*given[2:]))
    assert (out_of_fold(*given) == pool.out_of_fold(*given[2:])).all()


def test_probabilities_of_far_apart_logits_are_finite():
    np.testing.assert_allclose(softmax(np.array([[1e4, 0, -1e4]], dtype=np.float32)), [[1, 0, 0]])
