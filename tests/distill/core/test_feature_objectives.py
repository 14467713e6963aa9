"""Losses on hidden states and attention: by hand, layer maps, projections that learn, heads and padding."""

import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.features import AttentionMatching, HiddenStateMatching, uniform_layers
from distill.core.signals import Attention, HiddenStates

torch.set_num_threads(1)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def states(layers: int, width: int, seed: int) -> tuple[torch.Tensor, ...]:
    return tuple(normal(2, 3, width, seed=seed + i) for i in range(layers))


def maps(layers: int, heads: int, seed: int) -> tuple[torch.Tensor, ...]:
    return tuple((2 * normal(2, heads, 4, 4, seed=seed + i)).softmax(-1) for i in range(layers))


def test_the_uniform_map_is_tinyberts():
    assert uniform_layers(4, 12) == {0: 0, 1: 3, 2: 6, 3: 9, 4: 12}
    assert uniform_layers(2, 2) == {0: 0, 1: 1, 2: 2}
    for student, teacher in ((5, 12), (0, 12)):
        with pytest.raises(DistillError, match=f"teacher's 12 layers cannot be shared out evenly .* {student}"):
            uniform_layers(student, teacher)


def test_hidden_states_are_compared_as_the_map_says_and_summed():
    ours, theirs = states(3, 5, seed=0), states(7, 5, seed=10)
    value = HiddenStateMatching({0: 0, 1: 4, -1: -1})(StudentOutput(hidden=ours), HiddenStates(theirs))
    expected = F.mse_loss(ours[0], theirs[0]) + F.mse_loss(ours[1], theirs[4]) + F.mse_loss(ours[2], theirs[6])
    torch.testing.assert_close(value, expected)


def test_the_cosine_is_blind_to_length_but_not_to_direction():
    student, objective = StudentOutput(hidden=states(1, 5, seed=0)), HiddenStateMatching({0: 0}, loss="cosine")
    assert student.hidden is not None
    assert objective(student, HiddenStates((7 * student.hidden[0],))).abs() < 1e-12
    assert objective(student, HiddenStates((-student.hidden[0],))) == pytest.approx(2)
    axes = StudentOutput(hidden=(torch.tensor([[1.0, 0.0]]),))
    assert objective(axes, HiddenStates((torch.tensor([[1.0, 1.0]]),))) == pytest.approx(1 - 2**-0.5)


def test_a_projection_learns_a_linear_map_between_widths():
    """States of the teacher that are a linear function of the student's are matched after some steps."""
    objective = HiddenStateMatching({0: 0}, widths=(4, 6))
    student = StudentOutput(hidden=(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)),))
    assert student.hidden is not None
    true = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    teacher = HiddenStates((student.hidden[0] @ true.T,))
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.1)
    before = objective(student, teacher).item()
    for _ in range(200):
        optimiser.zero_grad()
        objective(student, teacher).backward()
        optimiser.step()
    (weight,) = objective.parameters()
    assert objective(student, teacher) < 1e-4 < before
    torch.testing.assert_close(weight, true, rtol=0, atol=0.05)


def test_projections_are_shared_or_one_for_each_layer_and_come_from_the_seed():
    one, each = (HiddenStateMatching({0: 0, 1: 1}, (5, 8), shared=shared) for shared in (True, False))
    assert [tuple(p.shape) for p in one.parameters()] == [(8, 5)]
    assert [tuple(p.shape) for p in each.parameters()] == [(8, 5), (8, 5)]
    first, second = each.parameters()
    assert not torch.equal(first, second)
    torch.manual_seed(99)  # the global seed has no say
    again = HiddenStateMatching({0: 0, 1: 1}, (5, 8), shared=False)
    assert all(torch.equal(a, b) for a, b in zip(each.parameters(), again.parameters(), strict=True))
    other = HiddenStateMatching({0: 0, 1: 1}, (5, 8), seed=1)
    assert not torch.equal(next(other.parameters()), next(one.parameters()))
    assert not list(HiddenStateMatching({0: 0}).parameters())


@pytest.mark.parametrize("shared", [True, False])
def test_each_layer_goes_through_its_projection(shared):
    objective = HiddenStateMatching({0: 0, 1: 1}, (5, 8), shared=shared)
    objective.learned().double()
    ours, theirs = states(2, 5, seed=0), states(2, 8, seed=10)
    weights = list(objective.parameters()) * (2 if shared else 1)
    expected = sum(F.mse_loss(o @ w.T, t) for o, w, t in zip(ours, weights, theirs, strict=True))
    torch.testing.assert_close(objective(StudentOutput(hidden=ours), HiddenStates(theirs)), expected)


def test_hidden_states_that_do_not_fit_are_refused():
    ours, theirs = StudentOutput(hidden=states(2, 5, seed=0)), HiddenStates(states(2, 8, seed=1))
    with pytest.raises(DistillError, match=r"5 and 8 wide: give widths=\(5, 8\)"):
        HiddenStateMatching({0: 0})(ours, theirs)
    with pytest.raises(DistillError, match=r"maps widths \(4, 8\), but hidden states are 5 and 8"):
        HiddenStateMatching({0: 0}, widths=(4, 8))(ours, theirs)
    with pytest.raises(DistillError, match="names the teacher's layer 2, but it gave 2"):
        HiddenStateMatching({0: 2}, widths=(5, 8))(ours, theirs)
    with pytest.raises(DistillError, match="names the student's layer -3, but it gave 2"):
        HiddenStateMatching({-3: 0}, widths=(5, 8))(ours, theirs)
    with pytest.raises(DistillError, match="at least one pair"):
        HiddenStateMatching({})
    with pytest.raises(DistillError, match="mse or cosine, got 'l1'"):
        HiddenStateMatching({0: 0}, loss="l1")


def test_attention_kl_is_torchs_mean_over_heads_and_queries_summed_over_layers():
    ours, theirs = maps(2, 3, seed=0), maps(4, 3, seed=10)
    value = AttentionMatching({0: 1, 1: 3})(StudentOutput(attention=ours), Attention(theirs))
    pairs = ((ours[0], theirs[1]), (ours[1], theirs[3]))
    expected = sum(kl_divergence(Categorical(probs=t), Categorical(probs=o)).mean() for o, t in pairs)
    torch.testing.assert_close(value, torch.as_tensor(expected))


def test_attention_mse_is_torchs():
    ours, theirs = maps(1, 3, seed=0), maps(1, 3, seed=10)
    value = AttentionMatching({0: 0}, loss="mse")(StudentOutput(attention=ours), Attention(theirs))
    torch.testing.assert_close(value, F.mse_loss(ours[0], theirs[0]))


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_other_head_counts_are_compared_by_their_mean(loss):
    ours, theirs = maps(1, 2, seed=0), maps(1, 6, seed=10)
    objective = AttentionMatching({0: 0}, loss)
    value = objective(StudentOutput(attention=ours), Attention(theirs))
    merged = StudentOutput(attention=(ours[0].mean(1, keepdim=True),)), Attention((theirs[0].mean(1, keepdim=True),))
    torch.testing.assert_close(value, objective(*merged))


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_padding_gives_what_the_shorter_sequence_gives(loss):
    """Two padded places at the end, seen by nobody, or seen by the student: cut out on both sides."""
    ours, theirs = maps(1, 3, seed=0)[0], maps(1, 3, seed=10)[0]
    objective = AttentionMatching({0: 0}, loss)
    mask = torch.tensor([True, True, False, False]).expand(2, 4)

    def short(full: torch.Tensor) -> torch.Tensor:
        cut = full[..., :2, :2]
        return cut / cut.sum(-1, keepdim=True) if loss == "kl" else cut

    value = objective(StudentOutput(attention=(ours,)), Attention((theirs,)), mask)
    if loss == "kl":
        alone = objective(StudentOutput(attention=(short(ours),)), Attention((short(theirs),)))
    else:
        alone = F.mse_loss(short(ours), short(theirs))
    torch.testing.assert_close(value, alone)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_causal_attention_is_compared_without_infinities(loss):
    later = torch.ones(4, 4).triu(1).bool()
    ours = normal(2, 3, 4, 4, seed=0).masked_fill(later, -torch.inf)
    theirs = normal(2, 3, 4, 4, seed=1).masked_fill(later, -torch.inf)
    scores = ours.requires_grad_()
    if loss == "kl":
        value = AttentionMatching({0: 0})(
            StudentOutput(attention=(scores.softmax(-1),)), Attention((theirs.softmax(-1),))
        )
    else:
        value = AttentionMatching({0: 0}, "mse")(StudentOutput(attention=(scores,)), Attention((theirs,), scores=True))
        a, b = (x.detach().masked_fill(later, 0.0) for x in (ours, theirs))  # as TinyBERT's code does
        torch.testing.assert_close(value.detach(), F.mse_loss(a, b))
    value.backward()
    assert value > 0 and scores.grad is not None and scores.grad.isfinite().all()
    assert scores.grad[..., ~later].abs().max() > 0 and not scores.grad[..., later].any()


def test_attention_that_does_not_fit_is_refused():
    ours = StudentOutput(attention=maps(1, 2, seed=0))
    with pytest.raises(DistillError, match="needs attention probabilities, got scores"):
        AttentionMatching({0: 0})(ours, Attention((normal(2, 2, 4, 4, seed=0),), scores=True))
    with pytest.raises(DistillError, match="may differ in their heads only"):
        AttentionMatching({0: 0})(ours, Attention((normal(2, 2, 5, 5, seed=0).softmax(-1),)))
    with pytest.raises(DistillError, match="names the teacher's layer 1"):
        AttentionMatching({0: 1})(ours, Attention(maps(1, 2, seed=0)))
    with pytest.raises(DistillError, match="kl or mse"):
        AttentionMatching({0: 0}, loss="cosine")
