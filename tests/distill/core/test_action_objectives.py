"""Losses on actions: by hand, against torch's own, and how the two directions of the KL differ."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.objectives.actions import GaussianKL, Huber, SquaredError
from distill.core.objectives.base import StudentOutput
from distill.core.signals import Actions

torch.set_num_threads(1)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_squared_error_sums_over_joints_and_averages_over_states():
    student = StudentOutput(action_mean=torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]))
    teacher = Actions(torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]]))
    assert SquaredError()(student, teacher) == pytest.approx((5 + 25) / 2)


def test_the_squared_error_is_the_number_of_joints_times_the_mean_squared_error():
    ours, theirs = normal(5, 7, 12, seed=0), normal(5, 7, 12, seed=1)
    loss = SquaredError()(StudentOutput(action_mean=ours), Actions(theirs))
    torch.testing.assert_close(loss, 12 * F.mse_loss(ours, theirs))


@pytest.mark.parametrize("delta", [0.3, 1.0, 5.0])
def test_huber_is_torchs_summed_over_joints(delta):
    ours, theirs = normal(9, 12, seed=0), normal(9, 12, seed=1)
    loss = Huber(delta)(StudentOutput(action_mean=ours), Actions(theirs))
    torch.testing.assert_close(loss, F.huber_loss(ours, theirs, reduction="none", delta=delta).sum(-1).mean())


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_gaussian_kl_is_that_of_torchs_distributions(direction):
    means, stds = [normal(4, 3, 12, seed=i) for i in (0, 1)], [normal(4, 3, 12, seed=i).exp() for i in (2, 3)]
    student, teacher = (Independent(Normal(m, s), 1) for m, s in zip(means, stds, strict=True))
    loss = GaussianKL(direction)(StudentOutput(action_mean=means[0], action_std=stds[0]), Actions(means[1], stds[1]))
    expected = kl_divergence(teacher, student) if direction == "forward" else kl_divergence(student, teacher)
    torch.testing.assert_close(loss, expected.mean())


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_gaussian_kl_is_0_for_the_teacher_itself_and_gives_no_gradient(direction):
    mean, std = normal(4, 12, seed=0).requires_grad_(), normal(4, 12, seed=1).exp().requires_grad_()
    loss = GaussianKL(direction)(StudentOutput(action_mean=mean, action_std=std), Actions(mean, std))
    loss.backward()
    assert loss.abs() < 1e-12 and mean.grad is not None and std.grad is not None
    assert mean.grad.abs().max() < 1e-12 and std.grad.abs().max() < 1e-12


def test_a_student_that_is_too_sure_of_itself_is_punished_by_the_forward_direction():
    student = StudentOutput(action_mean=torch.ones(1, 2), action_std=torch.full((1, 2), 0.1))
    teacher = Actions(torch.zeros(1, 2), torch.ones(1, 2))
    assert GaussianKL("forward")(student, teacher) > 50 > GaussianKL("reverse")(student, teacher)


def test_equal_standard_deviations_of_1_make_the_gaussian_kl_half_the_squared_error():
    ours, theirs = normal(4, 12, seed=0), normal(4, 12, seed=1)
    student, teacher = StudentOutput(action_mean=ours, action_std=torch.ones_like(ours)), Actions(theirs, ours * 0 + 1)
    for direction in ("forward", "reverse"):
        torch.testing.assert_close(GaussianKL(direction)(student, teacher), SquaredError()(student, teacher) / 2)


def test_half_precision_actions_are_compared_in_float32():
    ours, theirs = (1000 * normal(4, 12, seed=i) for i in (0, 1))
    loss = SquaredError()(StudentOutput(action_mean=ours.half()), Actions(theirs.half()))
    assert loss.dtype is torch.float32 and loss == pytest.approx(12 * F.mse_loss(ours, theirs).item(), rel=1e-2)


def test_what_does_not_fit_is_refused():
    mean, std = torch.zeros(2, 3), torch.ones(2, 3)
    student = StudentOutput(action_mean=mean, action_std=std)
    with pytest.raises(DistillError, match="teacher's std, which these actions do not have"):
        GaussianKL()(student, Actions(mean))
    with pytest.raises(DistillError, match="needs the student's action_std"):
        GaussianKL()(StudentOutput(action_mean=mean), Actions(mean, std))
    with pytest.raises(DistillError, match="student's std must be positive"):
        GaussianKL()(StudentOutput(action_mean=mean, action_std=std * 0), Actions(mean, std))
    with pytest.raises(DistillError, match=r"std has the shape \[3\]"):
        GaussianKL()(StudentOutput(action_mean=mean, action_std=std[0]), Actions(mean, std))
    with pytest.raises(DistillError, match=r"the shape \[2, 3\], the teacher's \[2, 4\]"):
        SquaredError()(student, Actions(torch.zeros(2, 4)))
    with pytest.raises(DistillError, match="direction must be forward or reverse, got 'backward'"):
        GaussianKL("backward")
    with pytest.raises(DistillError, match="delta must be above 0, got 0"):
        Huber(0)
