import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from kdal_core.distillation import mixup_pairs, pair_confidence, random_pairs, select_pairs
from kdal_core.errors import ConfigError, KdalError
from kdal_core.models import DropoutNet, build_model

GRID = [0.3, 0.5, 0.7]


class Linear:
    """A student whose logits anyone can compute: pixels times a matrix. It counts what it is shown."""

    def __init__(self, pixels=4, classes=3, seed=0, scale=3.0):
        self.weights = torch.from_numpy(np.random.default_rng(seed).normal(size=(pixels, classes)) * scale).float()
        self.shapes = []

    def __call__(self, x):
        self.shapes.append(tuple(x.shape))
        return x.flatten(1) @ self.weights


def brute_force(weights, images, lambdas, pairs):
    """C2 and lambda by the definitions, a mix at a time, in float64."""
    flat, matrix = images.reshape(len(images), -1).astype(np.float64), weights.numpy().astype(np.float64)
    confidence, best = [], []
    for i, j in pairs:
        curve = [softmax((w * flat[i] + (1 - w) * flat[j]) @ matrix).max() for w in lambdas]
        confidence.append(min(curve))
        best.append(lambdas[int(np.argmin(curve))])
    return np.array(confidence), np.array(best)


def some_images(n, seed=0):
    return np.random.default_rng(seed).random((n, 1, 2, 2)).astype(np.float32)


@given(st.integers(2, 12), st.integers(0, 1000), st.lists(st.floats(0, 1), min_size=1, max_size=5, unique=True))
@settings(max_examples=40)
def test_the_confidence_of_pairs_is_that_of_the_definition(n, seed, lambdas):
    student, images = Linear(seed=seed), some_images(n, seed)
    confidence, best = pair_confidence(student, images, mixup_pairs(n), lambdas)
    expected, _ = brute_force(student.weights, images, sorted(lambdas), mixup_pairs(n))
    np.testing.assert_allclose(confidence, expected, atol=1e-5)
    assert set(best.tolist()) <= set(lambdas)


def test_a_hand_computed_golden():
    """Logits (8a, 8(1-a)) of a mean brightness a: the mix nearest to one half is the least sure."""
    images = np.array([0.0, 0.2, 1.0], np.float32).reshape(3, 1, 1, 1)

    def student(x):
        bright = x.mean(dim=(1, 2, 3))
        return torch.stack([8 * bright, 8 - 8 * bright], dim=1)

    confidence, best = pair_confidence(student, images, [[0, 1], [0, 2], [1, 2]], GRID)
    # brightness at best: 0.3 * 0 + 0.7 * 0.2 = 0.14; 0.5; 0.7 * 0.2 + 0.3 * 1 = 0.44
    expected = [1 / (1 + np.exp(-8 * (1 - 2 * a))) for a in (0.14, 0.5, 0.44)]
    np.testing.assert_allclose(confidence, expected, atol=1e-6)
    assert best.tolist() == [0.3, 0.5, 0.7]


def test_lambda_weighs_the_first_image_of_a_pair():
    images = np.array([0.0, 1.0], np.float32).reshape(2, 1, 1, 1)

    def student(x):  # unsure at a brightness of 0.7 alone
        distance = (x.mean(dim=(1, 2, 3)) - 0.7).abs()
        return torch.stack([20 * distance, torch.zeros(len(x))], dim=1)

    assert pair_confidence(student, images, [[0, 1], [1, 0]], GRID)[1].tolist() == [0.3, 0.7]


def test_uint8_images_are_the_same_as_their_float_ones(student, digits):
    images = digits.images[:20]
    a = pair_confidence(student, images, mixup_pairs(20), GRID)
    b = pair_confidence(student, images.float() / 255, mixup_pairs(20), GRID)
    assert np.array_equal(a[0], b[0])
    assert np.array_equal(a[1], b[1])


def test_what_a_pair_gets_does_not_hang_on_the_others(student, digits):
    pairs = mixup_pairs(25)
    whole, _ = pair_confidence(student, digits.images[:25], pairs, GRID)
    for count in (1, 63, 64, 65, 130):  # the paper's code crashes on a last batch that is not full
        part, _ = pair_confidence(student, digits.images[:25], pairs[-count:], GRID)
        assert np.array_equal(part, whole[-count:])


def test_every_block_that_the_student_sees_has_one_size():
    student = Linear()
    pair_confidence(student, some_images(20), mixup_pairs(20), GRID)
    assert len(set(student.shapes)) == 1


def test_of_equally_unsure_lambdas_the_smallest_is_taken_and_repetitions_count_once():
    images = some_images(3)
    images[:] = images[0]
    assert pair_confidence(Linear(), images, [[0, 1]], [0.7, 0.5, 0.5])[1].tolist() == [0.5]


def test_a_network_in_training_mode_is_asked_in_eval_mode_and_put_back(digits):
    model = DropoutNet(build_model("tiny_cnn", 10, (8, 8)), p=0.5).train()
    model.inner.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = pair_confidence(model, digits.images[:10], mixup_pairs(10), GRID)[0]
    assert np.array_equal(first, pair_confidence(model, digits.images[:10], mixup_pairs(10), GRID)[0])
    assert (model.training, model.inner.training) == (True, False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@given(st.integers(2, 14), st.integers(0, 1000), st.sampled_from(["all", "code"]), st.data())
@settings(max_examples=40)
def test_selection_is_a_stable_sort_of_all_pairs(n, seed, mode, data):
    student, images, pairs = Linear(seed=seed), some_images(n, seed), mixup_pairs(n, mode)
    images[1::3] = images[0]  # equal images, equal confidences
    confidence, best = pair_confidence(student, images, pairs, GRID)
    excluded = np.random.default_rng(seed).random(len(pairs)) < 0.3
    left = np.flatnonzero(~excluded)
    k = data.draw(st.integers(0, len(left)))
    expected = left[np.argsort(confidence[left], kind="stable")][:k]
    for way in (excluded, pairs[excluded], pairs[excluded][:, ::-1]):
        found = select_pairs(student, images, k, GRID, way, mode=mode)
        assert np.array_equal(found.pairs, pairs[expected])
        assert np.array_equal(found.confidence, confidence[expected])
        assert np.array_equal(found.lambdas, best[expected])


def test_equal_images_are_chosen_by_the_lowest_pair_number():
    images = np.full((5, 1, 2, 2), 0.25, np.float32)
    assert np.array_equal(select_pairs(Linear(), images, 6, GRID).pairs, mixup_pairs(5)[:6])


def test_exact_selection_is_brute_force(student, digits):
    images = digits.images[:60]
    found = select_pairs(student, images, 100, exact=True)
    confidence, best = pair_confidence(student, images, mixup_pairs(60), np.linspace(0.3, 0.7, 11).round(2))
    order = np.argsort(confidence, kind="stable")[:100]
    assert np.array_equal(found.pairs, mixup_pairs(60)[order])
    assert np.array_equal(found.confidence, confidence[order])
    assert np.array_equal(found.lambdas, best[order])


def shared(a, b):
    return len({tuple(pair) for pair in a.pairs.tolist()} & {tuple(pair) for pair in b.pairs.tolist()})


@pytest.fixture(scope="module")
def exact(student, digits):
    """The true 250 lowest of 11,175 pairs."""
    return select_pairs(student, digits.images[:150], 250, exact=True)


@pytest.mark.parametrize("kind", ["staged", "network", "callable"])
def test_the_fast_way_finds_nearly_the_same_pairs_and_measures_them_exactly(kind, student, digits, exact):
    asked = {"staged": student, "network": DropoutNet(student, 0.5), "callable": lambda x: student(x)}[kind]
    fast = select_pairs(asked, digits.images[:150], 250, exact=False)
    assert shared(fast, exact) >= 0.97 * 250
    confidence, best = pair_confidence(student, digits.images, fast.pairs, np.linspace(0.3, 0.7, 11).round(2))
    assert np.array_equal(fast.confidence, confidence)
    assert np.array_equal(fast.lambdas, best)
    assert (np.diff(fast.confidence) >= 0).all()


@pytest.mark.parametrize(
    "lambdas", [[0.5], [0.3, 0.7], [0.0, 0.5, 1.0], np.linspace(0, 1, 21), np.linspace(0.3, 0.7, 5)]
)
def test_the_fast_way_takes_any_grid(lambdas, student, digits):
    images = digits.images[:60]
    exact = select_pairs(student, images, 100, lambdas, exact=True)
    fast = select_pairs(student, images, 100, lambdas, exact=False)
    assert shared(fast, exact) >= 95


def test_the_fast_way_asks_the_student_far_less_often(digits):
    calls = []
    weights = torch.randn(192, 10, generator=torch.Generator().manual_seed(0))

    def student(x):
        calls.append(len(x))
        return (x.flatten(1) @ weights).relu() @ weights[:10]

    select_pairs(student, digits.images[:150], 250, exact=False)
    assert sum(calls) < 0.4 * 11 * len(mixup_pairs(150))


def test_the_fast_way_gives_the_same_twice_and_whatever_blocks_the_pool_comes_in(student, digits, monkeypatch):
    first = select_pairs(student, digits.images[:80], 60, exact=False)
    again = select_pairs(student, digits.images[:80], 60, exact=False)
    monkeypatch.setattr("kdal_core.distillation.selection.BLOCK", 1024)  # a multiple of what a forward takes
    other = select_pairs(student, digits.images[:80], 60, exact=False)
    assert np.array_equal(first.pairs, again.pairs)
    assert np.array_equal(first.pairs, other.pairs)


def test_memory_bounds_the_candidates_and_too_little_is_refused(student, digits, exact):
    images = digits.images[:150]
    fast = select_pairs(student, images, 250, exact=False, memory=2_000_000)
    assert shared(fast, exact) >= 0.8 * 250  # fewer candidates, and no room for the stems
    with pytest.raises(ConfigError, match=r"memory is 10,000: allow more"):
        select_pairs(student, images, 250, exact=False, memory=10_000)


def test_no_image_is_used_more_often_than_asked_and_the_least_sure_come_first(student, digits):
    images = digits.images[:60]
    found = select_pairs(student, images, 80, GRID, max_uses=3)
    assert np.bincount(found.pairs.ravel()).max() == 3
    ranked = select_pairs(student, images, len(mixup_pairs(60)), GRID).pairs
    uses, expected = np.zeros(60, int), []
    for pair in ranked:  # the greedy rule, written out
        if len(expected) < 80 and (uses[pair] < 3).all():
            uses[pair] += 1
            expected.append(pair)
    assert np.array_equal(found.pairs, expected)


def test_more_pairs_than_the_cap_allows_are_refused(student, digits):
    with pytest.raises(KdalError, match="max_uses=1"):
        select_pairs(student, digits.images[:10], 6, GRID, max_uses=1)


def test_a_share_of_random_pairs_follows_the_chosen_ones(student, digits):
    images = digits.images[:40]
    published = select_pairs(student, images, 50, GRID)
    found = select_pairs(student, images, 50, GRID, random_share=0.4, seed=1)
    assert np.array_equal(found.pairs[:30], published.pairs[:30])
    assert len({tuple(pair) for pair in found.pairs.tolist()}) == 50
    confidence, best = pair_confidence(student, images, found.pairs, GRID)
    assert np.array_equal(confidence, found.confidence)
    assert np.array_equal(best, found.lambdas)
    other = select_pairs(student, images, 50, GRID, random_share=0.4, seed=2)
    assert not np.array_equal(other.pairs, found.pairs)


def test_of_a_sample_of_candidates_the_lowest_are_chosen(student, digits):
    images = digits.images[:40]
    sample = select_pairs(student, images, 200, GRID, candidates=200, seed=3).pairs
    assert len({tuple(pair) for pair in sample.tolist()}) == 200
    few = select_pairs(student, images, 20, GRID, candidates=200, seed=3)
    assert np.array_equal(few.pairs, sample[:20])


def test_random_pairs_are_distinct_seeded_and_not_those_excluded():
    taken = mixup_pairs(30)[::2]
    found = random_pairs(30, 150, excluded=taken, seed=1)
    assert len({tuple(pair) for pair in found.pairs.tolist()} - {tuple(pair) for pair in taken.tolist()}) == 150
    assert (found.lambdas == 0.5).all()
    assert np.array_equal(found.pairs, random_pairs(30, 150, excluded=taken, seed=1).pairs)
    assert not np.array_equal(found.pairs, random_pairs(30, 150, excluded=taken, seed=2).pairs)
    with pytest.raises(KdalError, match="only 217 pairs"):
        random_pairs(30, 218, excluded=taken)


def test_every_pair_is_as_likely_to_be_drawn_as_any_other():
    counts = np.zeros((6, 6), int)
    for seed in range(600):
        for i, j in random_pairs(6, 3, seed=seed).pairs:
            counts[i, j] += 1
    drawn = counts[np.triu_indices(6, 1)]
    assert drawn.sum() == 1800
    assert ((drawn - 120) ** 2 / 120).sum() < 36.1  # chi-square of 14 degrees of freedom at .999


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": 46}, "k must"),
        ({"k": -1}, "k must"),
        ({"lambdas": []}, "lambdas"),
        ({"lambdas": [1.2]}, "lambdas"),
        ({"lambdas": [float("nan")]}, "lambdas"),
        ({"excluded": [True]}, "excluded"),
        ({"excluded": [[0, 10]]}, "row numbers"),
        ({"k": 45, "excluded": [[0, 1]]}, "only 44 pairs"),
        ({"random_share": 1.5}, "random_share"),
        ({"mode": "some"}, "mode"),
        ({"memory": 0}, "memory"),
        ({"candidates": 0}, "candidates"),
    ],
)
def test_what_cannot_be_selected_is_refused(arguments, words):
    with pytest.raises(KdalError, match=words):
        select_pairs(Linear(), some_images(10), **({"k": 3, "lambdas": GRID} | arguments))


@pytest.mark.parametrize(
    "images", [some_images(1), np.zeros((3, 2, 2)), 2 * some_images(3), np.zeros((3, 1, 2, 2), int)]
)
def test_images_of_another_form_are_refused(images):
    with pytest.raises(KdalError, match="images"):
        select_pairs(Linear(), images, 1, GRID)


@pytest.mark.parametrize("answer", [lambda x: x, lambda x: x.flatten(1)[:, :1], lambda x: x.flatten(1) * float("nan")])
def test_a_student_that_gives_no_logits_is_refused(answer):
    with pytest.raises(KdalError, match="student"):
        select_pairs(answer, some_images(4), 1, GRID)
