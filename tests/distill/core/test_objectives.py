"""What every objective shares: refusals, masks and weights, empty batches; and sums of objectives."""

import pytest
import torch

from distill.core.errors import DistillError
from distill.core.objectives.actions import GaussianKL, Huber, SquaredError
from distill.core.objectives.base import Objective, StudentOutput, WeightedSum
from distill.core.objectives.divergences import (
    CrossEntropy,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    SkewForwardKL,
    SkewReverseKL,
    TopKKL,
)
from distill.core.objectives.f_divergences import AdaptiveKL, AlphaDivergence, SymmetricKL, TotalVariation
from distill.core.objectives.features import AttentionMatching, HiddenStateMatching
from distill.core.objectives.granularity import DistributionAdaptiveKL, SpanCorrelation
from distill.core.objectives.probabilities import ProbabilityMSE
from distill.core.objectives.sinkhorn import SinkhornDistance
from distill.core.objectives.topk import TopKCrossEntropy
from distill.core.signals import (
    Actions,
    Attention,
    DenseLogits,
    HiddenStates,
    ProjectedLogits,
    SampledLogProbs,
    TeacherSignal,
    Text,
    TopKLogits,
)

torch.set_num_threads(1)

B, T, V, D, H, A = 3, 4, 7, 5, 2, 6
OBJECTIVES: dict[str, Objective] = {
    "squared error": SquaredError(),
    "huber": Huber(),
    "forward gaussian": GaussianKL("forward"),
    "reverse gaussian": GaussianKL("reverse"),
    "forward": ForwardKL(temperature=2.0),
    "reverse": ReverseKL(),
    "jensen-shannon": JensenShannon(beta=0.3),
    "skew forward": SkewForwardKL(),
    "skew reverse": SkewReverseKL(),
    "chunked": ForwardKL(chunk_size=2 * V),
    "top-k": TopKKL(),
    "reverse top-k": TopKKL(direction="reverse"),
    "top-k without tail": TopKKL(tail="drop"),
    "cross-entropy": CrossEntropy(),
    "hidden": HiddenStateMatching({0: 1, -1: -1}),
    "cosine": HiddenStateMatching({0: 1}, loss="cosine"),
    "attention": AttentionMatching({0: 0, 1: 1}),
    "attention mse": AttentionMatching({-1: -1}, loss="mse"),
    "total variation": TotalVariation(),
    "symmetric": SymmetricKL(weight=0.3),
    "alpha": AlphaDivergence(alpha=0.3),
    "adaptive": AdaptiveKL(),
    "top-k cross-entropy": TopKCrossEntropy(),
    "top-k cross-entropy without tail": TopKCrossEntropy(tail="drop"),
    "probabilities": ProbabilityMSE(),
    "adaptive vocabulary": DistributionAdaptiveKL(head=4, softness=0.1),
    "fixed vocabulary": DistributionAdaptiveKL(head=4, top_p=0.8),
    "spans": SpanCorrelation(),
    "spans, normalised": SpanCorrelation(normalised=True, squared=True),
    "sinkhorn": SinkhornDistance(),
    "sinkhorn by sample": SinkhornDistance(group=1),
}
TOGETHER = ("sinkhorn",)
"""The elements that count are compared with each other: the loss is no mean of what each would cost alone."""
HELD = ("adaptive", "adaptive vocabulary")
"""A part of the loss follows the student and has no gradient by definition, which finite differences would see."""


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def raw(seed: int = 0) -> dict[str, torch.Tensor]:
    """The student's tensors, from which gradients are asked."""
    return {
        "logits": 2 * normal(B, T, V, seed=seed),
        "hidden": normal(2, B, T, D, seed=seed + 1),
        "attention": normal(2, B, H, T, T, seed=seed + 2).softmax(-1),
        "action_mean": normal(B, T, A, seed=seed + 3),
        "action_std": normal(B, T, A, seed=seed + 4).exp(),
    }


def output(values: dict[str, torch.Tensor]) -> StudentOutput:
    return StudentOutput(**{k: tuple(v) if k in ("hidden", "attention") else v for k, v in values.items()})  # type: ignore


def signal_for(objective: Objective, seed: int = 50) -> TeacherSignal:
    theirs = raw(seed)
    made: dict[type, TeacherSignal] = {
        DenseLogits: DenseLogits(theirs["logits"]),
        TopKLogits: TopKLogits.from_logits(theirs["logits"], 3),
        SampledLogProbs: SampledLogProbs.labels(theirs["logits"].argmax(-1)),
        HiddenStates: HiddenStates(tuple(theirs["hidden"])),
        Attention: Attention(tuple(theirs["attention"])),
        Actions: Actions(theirs["action_mean"], theirs["action_std"]),
    }
    return made[objective.accepts[0]]


def leaves(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone().requires_grad_() for name, value in values.items()}


def gradients(objective, values, signal, mask=None, weights=None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    student = leaves(values)
    loss = objective(output(student), signal, mask, weights)
    loss.backward()
    return loss.detach(), {name: v.grad for name, v in student.items() if v.grad is not None}


MASK = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
NOT_LAST = torch.arange(T).expand(B, T) < T - 1


def counting(name: str) -> torch.Tensor:
    """The mask; an element of spans is a position with the next one, which a sequence's last has not."""
    return MASK & NOT_LAST if "spans" in name else MASK


def whole(name: str) -> torch.Tensor | None:
    """No mask, or for spans the mask of all that can count."""
    return NOT_LAST if "spans" in name else None


def positions(name: str) -> torch.Tensor:
    """What is read where `counting` says what counts."""
    mask = counting(name)
    return mask | mask.roll(1, -1) if "spans" in name else mask


def everywhere(name: str, mask: torch.Tensor) -> torch.Tensor:
    """The mask over a student's tensor; in attention, a masked position is one as query and as key."""
    if name == "attention":
        return (mask[:, None, :, None] & mask[:, None, None, :]).expand(2, B, H, T, T)
    if name == "hidden":
        return mask[..., None].expand(2, B, T, D)
    return mask[..., None].expand(B, T, V if name == "logits" else A)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in TOGETHER])
def test_a_masked_mean_is_the_mean_over_the_elements_alone(name):
    objective, values, mask = OBJECTIVES[name], raw(), counting(name)
    signal = signal_for(objective)
    singles = []
    for b, t in mask.nonzero().tolist():
        one = torch.zeros(B, T)
        one[b, t] = 1.0  # a weight, as a mask would also take the other keys out of the attention
        singles.append(objective(output(values), signal, mask, one))
    expected = torch.stack(singles).mean()
    torch.testing.assert_close(objective(output(values), signal, mask), expected)
    assert not torch.isclose(objective(output(values), signal, whole(name)), expected)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_what_stands_at_masked_places_changes_neither_loss_nor_gradient(name, garbage):
    objective, values, mask = OBJECTIVES[name], raw(), counting(name)
    signal, read = signal_for(objective), positions(name)
    loss, clean = gradients(objective, values, signal, mask)
    dirty = {key: value.masked_fill(~everywhere(key, read), garbage) for key, value in values.items()}
    again, other = gradients(objective, dirty, signal, mask)
    assert torch.isfinite(loss) and torch.equal(loss, again)
    assert clean.keys() == other.keys() and clean
    for key, gradient in clean.items():
        assert torch.equal(gradient, other[key]), key
        assert gradient.abs().max() > 0 and not gradient[~everywhere(key, read)].any()


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if "attention" not in name])  # see padding, there
def test_what_the_teacher_says_at_masked_places_changes_nothing(name):
    objective, values, read = OBJECTIVES[name], raw(), positions(name)
    signal, other = signal_for(objective), signal_for(objective, seed=77)
    mixed = {}
    for key, tensor in signal.tensors().items():
        if key in signal.SETTINGS:
            mixed[key] = tensor
        else:
            kept = read if tensor.shape == read.shape else read[..., None]
            mixed[key] = torch.where(kept, tensor, other.tensors()[key])
    mixed = type(signal).from_tensors(mixed)
    losses = [[objective(output(values), s, m) for s in (signal, mixed)] for m in (counting(name), whole(name))]
    assert torch.equal(*losses[0]) and not torch.equal(*losses[1])


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("how", ["mask", "weights"])
def test_where_nothing_counts_the_loss_is_0_with_gradients_of_0(name, how):
    objective = OBJECTIVES[name]
    nothing = {"mask": torch.zeros(B, T, dtype=torch.bool)} if how == "mask" else {"weights": torch.zeros(B, T)}
    values = {key: torch.full_like(value, torch.nan) for key, value in raw().items()}
    loss, grads = gradients(objective, values, signal_for(objective), **nothing)
    assert loss == 0 and grads and not any(gradient.any() for gradient in grads.values())


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in TOGETHER])
def test_weights_make_a_weighted_mean(name):
    objective, values, mask = OBJECTIVES[name], raw(), whole(name)
    signal = signal_for(objective)
    weights = normal(B, T, seed=9).abs()
    counted = range(B * T) if mask is None else mask.flatten().nonzero().squeeze(-1).tolist()
    singles = torch.stack([objective(output(values), signal, mask, torch.eye(B * T)[i].reshape(B, T)) for i in counted])
    each = weights.flatten()[list(counted)]
    expected = (each * singles).sum() / each.sum()
    torch.testing.assert_close(objective(output(values), signal, mask, weights), expected)
    torch.testing.assert_close(objective(output(values), signal, mask, 7 * weights), expected)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in HELD])
def test_gradients_are_those_of_finite_differences(name):
    objective, values = OBJECTIVES[name], raw()
    signal = signal_for(objective)
    _, used = gradients(objective, values, signal, whole(name))
    inputs = [values[key].clone().requires_grad_() for key in used]
    weights = torch.linspace(0.5, 2, B * T).reshape(B, T)

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return objective(output(values | dict(zip(used, tensors, strict=True))), signal, counting(name), weights)

    assert torch.autograd.gradcheck(loss, inputs)  # every entry: one random direction lets wrong gradients through


@pytest.mark.parametrize("name", OBJECTIVES)
def test_other_signals_are_refused_by_name(name):
    objective = OBJECTIVES[name]
    wrong = Text(("sit",) * B)
    kinds = " or ".join(kind.KIND for kind in objective.accepts)
    with pytest.raises(DistillError, match=f"takes {kinds}, got text"):
        objective(output(raw()), wrong)
    objective.require(objective.accepts[0])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_the_student_did_not_give_is_named(name):
    objective = OBJECTIVES[name]
    with pytest.raises(DistillError, match="needs the student's (logits|hidden|attention|action_mean)"):
        objective(StudentOutput(), signal_for(objective))


@pytest.mark.parametrize(
    "mask, weights, words",
    [
        (torch.ones(B, T + 1, dtype=torch.bool), None, r"mask must have the elements' shape \[3, 4\], got \[3, 5\]"),
        (torch.ones(B, T), None, "mask must be boolean, got torch.float32"),
        (None, torch.ones(B), r"weights must have the elements' shape \[3, 4\], got \[3\]"),
        (None, -torch.ones(B, T), "not negative"),
        (None, torch.full((B, T), torch.nan), "finite"),
    ],
)
def test_masks_and_weights_that_do_not_fit_are_refused(mask, weights, words):
    with pytest.raises(DistillError, match=words):
        ForwardKL()(output(raw()), signal_for(ForwardKL()), mask, weights)


def test_a_signal_of_other_positions_is_refused():
    for objective in OBJECTIVES.values():
        signal = signal_for(objective)
        with pytest.raises(DistillError, match="student"):
            objective(output(raw()), signal.index(slice(0, 2)))


def test_a_sum_weighs_its_parts_and_reports_them():
    values = raw()
    kl, hidden = ForwardKL(), HiddenStateMatching({0: 0})
    both = WeightedSum({"kl": (0.5, kl), "hidden": (2.0, hidden)})
    signals = {"kl": signal_for(kl), "hidden": signal_for(hidden)}
    masks = {"kl": MASK, "hidden": None}
    student = output(leaves(values))
    total, parts = both.with_parts(student, signals, masks)
    expected = {"kl": kl(student, signals["kl"], MASK), "hidden": hidden(student, signals["hidden"])}
    torch.testing.assert_close(parts, {name: value.detach() for name, value in expected.items()})
    torch.testing.assert_close(total, 0.5 * expected["kl"] + 2.0 * expected["hidden"])
    assert total.requires_grad and not parts["kl"].requires_grad
    torch.testing.assert_close(both(student, signals, masks), total)


def test_one_signal_and_mask_serve_all_parts_of_a_sum():
    both = WeightedSum({"forward": (1.0, ForwardKL()), "reverse": (1.0, ReverseKL())})
    student, signal = output(raw()), signal_for(ForwardKL())
    expected = ForwardKL()(student, signal, MASK) + ReverseKL()(student, signal, MASK)
    torch.testing.assert_close(both(student, signal, MASK), expected)
    assert both.accepts == (DenseLogits, ProjectedLogits)


def test_a_sum_collects_what_its_parts_learn():
    hidden = HiddenStateMatching({0: 0}, widths=(5, 8))
    both = WeightedSum({"kl": (1.0, ForwardKL()), "hidden": (1.0, hidden)})
    assert [id(p) for p in both.parameters()] == [id(p) for p in hidden.parameters()] and list(both.parameters())
    other = WeightedSum({"kl": (1.0, ForwardKL()), "hidden": (1.0, HiddenStateMatching({0: 0}, (5, 8), seed=1))})
    assert not torch.equal(next(other.parameters()), next(both.parameters()))
    other.learned().load_state_dict(both.learned().state_dict())
    assert torch.equal(next(other.parameters()), next(both.parameters()))


def test_sums_that_cannot_be_are_refused():
    with pytest.raises(DistillError, match="at least one part"):
        WeightedSum({})
    with pytest.raises(DistillError, match="weight of 'kl' must be finite, got nan"):
        WeightedSum({"kl": (float("nan"), ForwardKL())})
    with pytest.raises(DistillError, match="must not hold a dot, got 'kl.forward'"):
        WeightedSum({"kl.forward": (1.0, ForwardKL())})
    both = WeightedSum({"kl": (1.0, ForwardKL()), "hidden": (1.0, HiddenStateMatching({0: 0}))})
    with pytest.raises(DistillError, match=r"parts \['hidden', 'kl'\], got values for \['kl'\]"):
        both(output(raw()), {"kl": signal_for(ForwardKL())})
    with pytest.raises(DistillError, match="HiddenStateMatching takes hidden states, got dense logits"):
        both(output(raw()), signal_for(ForwardKL()))
