import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import rel_entr, softmax

from kdal_core.distillation import kd_loss, soft_targets
from kdal_core.errors import KdalError

TEACHER, STUDENT = torch.tensor([[1.0, 2.0, 3.0]]).double(), torch.tensor([[3.0, 2.0, 1.0]]).double()
logits = arrays(np.float64, (4, 5), elements=st.floats(-30, 30))


def test_soft_targets_at_temperature_two_are_the_printed_ones():
    expected = [0.186324, 0.307196, 0.506480]
    assert soft_targets(TEACHER, 2.0)[0].tolist() == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 1.150420765), (2.0, 1.280626671)])
def test_the_loss_of_two_opposite_rankings_is_the_printed_one(temperature, expected):
    assert kd_loss(STUDENT, TEACHER, temperature).item() == pytest.approx(expected, abs=1e-9)


@given(logits, st.floats(0.5, 20))
def test_soft_targets_are_the_softmax_of_scipy(z, temperature):
    ours = soft_targets(torch.from_numpy(z), temperature).numpy()
    np.testing.assert_allclose(ours, softmax(z / temperature, axis=1), rtol=1e-10, atol=1e-300)


@given(logits, logits, st.floats(0.5, 20))
def test_the_loss_is_the_kl_divergence_of_scipy_from_student_to_teacher_times_t_squared(a, b, temperature):
    teacher, student = softmax(b / temperature, axis=1), softmax(a / temperature, axis=1)
    expected = rel_entr(teacher, student).sum(axis=1).mean() * temperature**2
    ours = kd_loss(torch.from_numpy(a), torch.from_numpy(b), temperature).item()
    assert ours == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_the_loss_of_equal_logits_is_zero_and_pulls_nowhere():
    student = TEACHER.clone().requires_grad_()
    loss = kd_loss(student, TEACHER, 3.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12


def test_no_gradient_flows_into_the_teacher():
    teacher, student = TEACHER.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    kd_loss(student, teacher, 2.0).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_the_gradient_keeps_its_size_as_the_temperature_grows():
    sizes = []
    for temperature in (10.0, 1000.0):
        student = STUDENT.clone().requires_grad_()
        kd_loss(student, TEACHER, temperature).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_huge_logits_give_a_finite_loss():
    assert torch.isfinite(kd_loss(STUDENT * 1e4, TEACHER * 1e4, 1.0))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(temperature):
    with pytest.raises(KdalError, match="temperature"):
        soft_targets(TEACHER, temperature)


def test_models_of_other_classes_are_refused():
    with pytest.raises(KdalError, match="same shape"):
        kd_loss(torch.zeros(2, 3), torch.zeros(2, 4), 1.0)


def test_an_empty_batch_is_refused():
    with pytest.raises(KdalError, match="empty"):
        kd_loss(torch.zeros(0, 3), torch.zeros(0, 3), 1.0)
