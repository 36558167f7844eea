import math

import pytest
import torch
from torch import nn

from kdal_core.distillation import TorchTeacher, check_answer
from kdal_core.errors import ConfigError, TeacherError
from kdal_core.validation import InvalidInput

CLASSES = ("cat", "dog", "hen")
PROBABILITIES = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])


def test_probabilities_come_back_as_they_are():
    answer = check_answer(PROBABILITIES, 2, CLASSES)
    assert torch.equal(answer, PROBABILITIES)
    assert answer.dtype == torch.float32


@pytest.mark.parametrize("form", [torch.Tensor.double, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.half])
def test_any_array_of_numbers_is_an_answer(form):
    assert torch.allclose(check_answer(form(PROBABILITIES), 2, CLASSES), PROBABILITIES, atol=1e-3)


def test_rows_that_a_service_rounded_sum_to_1_again():
    answer = check_answer([[0.333, 0.333, 0.333]], 1, CLASSES)
    assert answer.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([[2.0, -1.0, 0.5], [9.0, 1.0, 1.0]], "look like logits.*softmax"),
        (PROBABILITIES.clamp(min=1e-6).log(), "log-probabilities"),
        (100 * PROBABILITIES, "percentages"),
        ([[0.9, 0.8, 0.1], [0.1, 0.1, 0.1]], "sum to between 0.3 and 1.8"),
        ([[math.nan, 0.5, 0.5], [0.2, 0.3, 0.5]], "NaN"),
        ([[math.inf, 0.5, 0.5], [0.2, 0.3, 0.5]], "NaN or infinite"),
        (PROBABILITIES[:1], r"asked about 2 images and answered in the shape \(1, 3\)"),
        (PROBABILITIES[0], r"the shape \(3,\)"),
        (PROBABILITIES[..., None], r"the shape \(2, 3, 1\)"),
        ([[0.5, 0.5], [0.5, 0.5]], "only 2 classes where 3 are configured: cat, dog, hen"),
        ([[0.25] * 4] * 2, "4 classes where 3"),
        ("<html>", "no array of numbers"),
        ([["0.2", "0.3", "0.5"]] * 2, "no array of numbers"),
        ([[0.5, 0.5], [1.0]], "no array of numbers"),
        (None, "no array of numbers"),
    ],
)
def test_an_answer_that_is_none_is_refused_in_words(answer, message):
    with pytest.raises(TeacherError, match=message) as caught:
        check_answer(answer, 2, CLASSES)
    assert caught.value.charged


def test_a_module_answers_with_the_softmax_of_its_logits_in_eval_mode():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3))
    images = torch.randint(0, 256, (7, 3, 2, 2), dtype=torch.uint8)
    teacher = TorchTeacher(module, CLASSES, device="cpu", batch_size=3)
    x = images.double().flatten(1) / 255
    logits = x @ module[2].weight.detach().double().T + module[2].bias.detach().double()
    expected = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    assert torch.allclose(teacher.query(images).double(), expected, atol=1e-6)
    assert not teacher.query(images).requires_grad


def test_a_module_that_gives_probabilities_is_taken_at_its_word():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(dim=1))
    images = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    teacher = TorchTeacher(module, CLASSES, logits=False, device="cpu")
    assert torch.allclose(teacher.query(images).sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8), [1, 2]])
def test_images_of_another_form_are_refused(images):
    teacher = TorchTeacher(nn.Flatten(), CLASSES, device="cpu")
    with pytest.raises(InvalidInput, match="uint8 images"):
        teacher.query(images)


@pytest.mark.parametrize("classes", [(), ("cat",), ("cat", "cat")])
def test_fewer_than_two_names_are_no_classes(classes):
    with pytest.raises(ConfigError, match="at least two distinct"):
        TorchTeacher(nn.Flatten(), classes, device="cpu")
