import numpy as np
import pytest
import torch

from kdal_core.distillation.curves import corrected, places_to_fit, sketch

GRID = np.array([0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0])
PAIRS = torch.combinations(torch.arange(40))


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(logits, hidden, truth):
    """A sketch of a student that says `truth(first, second, lambda)` of pairs' mixes."""
    places = places_to_fit(GRID)
    asked = torch.stack([truth(PAIRS[:, 0], PAIRS[:, 1], GRID[place]) for place in places])
    return sketch(logits, hidden, GRID, places, PAIRS, asked)


def test_at_the_ends_of_a_curve_are_the_images_own_logits():
    logits, hidden = values(40, 3), values(40, 5, seed=1)
    found = fitted(logits, hidden, lambda i, j, at: values(len(i), 3, seed=2)).curves(PAIRS)
    assert found.shape == (len(GRID), 3, len(PAIRS))
    torch.testing.assert_close(found[0].T, logits[PAIRS[:, 1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[-1].T, logits[PAIRS[:, 0]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("product", [False, True])
def test_what_is_a_sum_over_both_images_or_a_product_of_them_is_guessed_for_all_pairs(product):
    """Logits that bulge between the images: each by its own hidden values, or by both images' together."""
    logits, hidden = values(40, 3), values(40, 2, seed=1)
    bulge = (2 * hidden[:, :1] + 1) if not product else 3 * hidden[:, :1]

    def truth(i, j, at):
        both = bulge[i] * bulge[j] if product else bulge[i] - bulge[j]
        return at * logits[i] + (1 - at) * logits[j] + at * (1 - at) * both * torch.tensor([1.0, 0.0, -1.0])

    found = fitted(logits, hidden, truth).curves(PAIRS)
    for place, at in enumerate(GRID):
        expected = truth(PAIRS[:, 0], PAIRS[:, 1], at)
        straight = at * logits[PAIRS[:, 0]] + (1 - at) * logits[PAIRS[:, 1]]
        assert (found[place].T - expected).abs().mean() <= 0.15 * (straight - expected).abs().mean() + 1e-5


@pytest.mark.parametrize("rounds", [1, 2, 3, 5])
def test_a_corrected_curve_goes_through_what_was_asked_and_keeps_its_ends(rounds):
    curves, told = values(7, 3, 20), 5 * values(rounds, 20, 3, seed=1)
    chosen = torch.stack(
        [torch.randperm(5, generator=torch.Generator().manual_seed(b))[:rounds] + 1 for b in range(20)]
    )
    asked = chosen.T.contiguous()  # (R, B) inner places
    found = corrected(curves, torch.from_numpy(GRID).float(), asked, told)
    for pair in range(20):
        torch.testing.assert_close(found[asked[:, pair], :, pair], told[:, pair])
    torch.testing.assert_close(found[[0, -1]], curves[[0, -1]])
    assert (found - curves).abs().max() <= 2 * (told.abs().max() + curves.abs().max())  # and nowhere runs away


def test_a_grid_without_inner_places_is_sketched_without_a_forward():
    ends = np.array([0.0, 1.0])
    assert places_to_fit(ends) == []
    logits = values(40, 3)
    found = sketch(logits, logits, ends, [], PAIRS, logits[:0]).curves(PAIRS)
    torch.testing.assert_close(found, torch.stack([logits[PAIRS[:, 1]].T, logits[PAIRS[:, 0]].T]))
