"""Divergences over a vocabulary: closed forms, torch's own, limits, extreme logits, chunks and their memory, top-k."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.divergences import (
    CrossEntropy,
    Divergence,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    SkewForwardKL,
    SkewReverseKL,
    TopKKL,
    VocabularyObjective,
)
from distill.core.signals import DenseLogits, ProjectedLogits, SampledLogProbs, TopKLogits

torch.set_num_threads(1)

DENSE = [ForwardKL, ReverseKL, JensenShannon, SkewForwardKL, SkewReverseKL]
EVERY = [*DENSE, TopKKL, CrossEntropy]
P, Q = (0.7, 0.2, 0.1), (0.2, 0.5, 0.3)
SEEDS = st.integers(0, 2**31)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def loss(objective: VocabularyObjective, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    signal = TopKLogits.from_logits(teacher, 2) if isinstance(objective, TopKKL) else DenseLogits(teacher)
    return objective(StudentOutput(logits=student), signal)


def by_hand(a, b) -> float:
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x)


def mix(share: float) -> list[float]:
    return [share * p + (1 - share) * q for p, q in zip(P, Q, strict=True)]


@pytest.mark.parametrize(
    "objective, expected",
    [
        (ForwardKL(), by_hand(P, Q)),
        (ReverseKL(), by_hand(Q, P)),
        (JensenShannon(), (by_hand(P, mix(0.5)) + by_hand(Q, mix(0.5))) / 2),
        (JensenShannon(beta=0.1), 0.1 * by_hand(P, mix(0.1)) + 0.9 * by_hand(Q, mix(0.1))),
        (JensenShannon(beta=0.9), 0.9 * by_hand(P, mix(0.9)) + 0.1 * by_hand(Q, mix(0.9))),
        (SkewForwardKL(), by_hand(P, mix(0.1))),
        (SkewForwardKL(alpha=0.4), by_hand(P, mix(0.4))),
        (SkewReverseKL(), by_hand(Q, mix(0.9))),
        (SkewReverseKL(alpha=0.4), by_hand(Q, mix(0.6))),
        (TopKKL(), by_hand(P, Q)),  # three tokens: two and a tail are everything
        (TopKKL(direction="reverse"), by_hand(Q, P)),
        (TopKKL(tail="drop"), by_hand((7 / 9, 2 / 9), (2 / 7, 5 / 7))),
    ],
)
def test_values_worked_by_hand(objective, expected):
    assert loss(objective, logs(*P)[None], logs(*Q)[None] + 3.0) == pytest.approx(expected, abs=1e-12)


def test_values_published_for_these_distributions():
    """Printed to five digits elsewhere, computed by other code."""
    values = [loss(o, logs(*P), logs(*Q)).item() for o in (ForwardKL(), ReverseKL(), JensenShannon(), SkewReverseKL())]
    assert values == pytest.approx([0.58381, 0.53718, 0.13292, 0.42742], abs=5e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_both_directions_are_those_of_torch(temperature):
    teacher, student = normal(4, 5, 9, seed=0), normal(4, 5, 9, seed=1)
    p, q = Categorical(logits=teacher / temperature), Categorical(logits=student / temperature)
    forward = loss(ForwardKL(temperature=temperature), teacher, student)
    torch.testing.assert_close(forward, kl_divergence(p, q).mean())
    torch.testing.assert_close(loss(ReverseKL(temperature=temperature), teacher, student), kl_divergence(q, p).mean())
    reference = F.kl_div(
        (student / temperature).log_softmax(-1).flatten(0, 1),
        (teacher / temperature).log_softmax(-1).flatten(0, 1),
        reduction="batchmean",
        log_target=True,
    )
    torch.testing.assert_close(forward, reference)
    scaled = loss(ForwardKL(temperature=temperature, scale_by_temperature=True), teacher, student)
    torch.testing.assert_close(scaled, reference * temperature**2)


def test_cross_entropy_is_torchs_and_differs_from_the_forward_kl_by_the_teachers_entropy():
    student, tokens = normal(4, 5, 9, seed=1), torch.arange(20).reshape(4, 5) % 9
    value = CrossEntropy()(StudentOutput(logits=student), SampledLogProbs.labels(tokens))
    torch.testing.assert_close(value, F.cross_entropy(student.flatten(0, 1), tokens.flatten()))
    certain = torch.full_like(student, -torch.inf).scatter(-1, tokens[..., None], 0.0)  # entropy 0
    torch.testing.assert_close(value, loss(ForwardKL(), certain, student))


@given(SEEDS, st.floats(0.1, 20), st.sampled_from(DENSE))
@settings(max_examples=60, deadline=None)
def test_a_divergence_is_positive_unless_the_distributions_are_equal(seed, scale, kind):
    teacher, student = scale * normal(1, 8, seed=seed), scale * normal(1, 8, seed=seed + 1)
    if (teacher.softmax(-1) - student.softmax(-1)).abs().max() > 1e-3:
        assert loss(kind(), teacher, student) > 1e-9
    assert loss(kind(), teacher, teacher + 5.0).abs() < 1e-9  # logits shifted by a constant are the same distribution


@given(SEEDS, st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_jensen_shannon_changes_places_with_beta_and_is_bounded(seed, beta):
    a, b = 5 * normal(3, 8, seed=seed), 5 * normal(3, 8, seed=seed + 1)
    torch.testing.assert_close(loss(JensenShannon(beta=beta), a, b), loss(JensenShannon(beta=1 - beta), b, a))
    entropy = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
    assert loss(JensenShannon(beta=beta), a, b) <= entropy
    torch.testing.assert_close(loss(JensenShannon(), a, b), loss(JensenShannon(), b, a))
    apart = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])  # no token in common
    assert loss(JensenShannon(beta=beta), *apart) == pytest.approx(entropy, rel=1e-5)


@given(SEEDS, st.floats(0.01, 0.9))
@settings(max_examples=30, deadline=None)
def test_skew_divergences_are_bounded_by_minus_log_alpha(seed, alpha):
    a, b = 50 * normal(3, 8, seed=seed), 50 * normal(3, 8, seed=seed + 1)
    for kind in (SkewForwardKL, SkewReverseKL):
        assert loss(kind(alpha=alpha), a, b) <= -math.log(alpha) + 1e-12
    torch.testing.assert_close(loss(SkewForwardKL(alpha=alpha), a, b), loss(SkewReverseKL(alpha=alpha), b, a))


def test_limits_are_the_plain_divergences():
    teacher, student = normal(3, 8, seed=0), normal(3, 8, seed=1)
    forward, reverse = loss(ForwardKL(), teacher, student), loss(ReverseKL(), teacher, student)
    small = 1e-7

    def near(objective: Divergence, share: float, limit: torch.Tensor) -> None:
        torch.testing.assert_close(loss(objective, teacher, student) / share, limit, rtol=1e-5, atol=0)

    near(JensenShannon(beta=small), small, forward)
    near(JensenShannon(beta=1 - small), small, reverse)
    near(SkewForwardKL(alpha=small), 1, forward)
    near(SkewReverseKL(alpha=small), 1, reverse)


def test_at_high_temperature_the_scaled_kl_is_half_the_variance_of_the_logits_difference():
    """Hinton et al., arXiv 1503.02531, section 2.1: matching logits is the limit of distillation."""
    teacher, student = normal(6, 8, seed=0), normal(6, 8, seed=1)
    limit = (teacher - student).var(-1, correction=0).mean() / 2
    for kind in (ForwardKL, ReverseKL):
        value = loss(kind(temperature=1e4, scale_by_temperature=True), teacher, student)
        torch.testing.assert_close(value, limit, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_logits_in_float32_give_what_float64_gives(kind, size):
    """In float32, with finite gradients."""
    teacher, student = size * normal(16, 8, seed=0).sign(), size * normal(16, 8, seed=1)
    values, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        leaf = student.float().to(dtype).requires_grad_()
        if kind is CrossEntropy:
            value = kind()(StudentOutput(logits=leaf), SampledLogProbs.labels(teacher.argmax(-1)))
        else:
            value = loss(kind(), teacher.to(dtype), leaf)
        value.backward()
        values.append(value.item())
        gradients.append(leaf.grad)
    assert math.isfinite(values[0]) and values[0] == pytest.approx(values[1], rel=1e-4)
    torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=1e-3, atol=1e-3)


def test_opposite_certainties_of_1e4_cost_1e4_each_way():
    teacher, student = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    for kind in (ForwardKL, ReverseKL):
        assert loss(kind(), teacher, student) == pytest.approx(2e4)


RULED_OUT = torch.tensor([False, True, False, False, True, False])


@pytest.mark.parametrize("kind", EVERY[:-1])
@pytest.mark.parametrize("student_too", [False, True])
def test_tokens_that_the_teacher_rules_out_give_finite_losses_and_gradients(kind, student_too):
    teacher = normal(5, 6, seed=0).masked_fill(RULED_OUT, -torch.inf)
    student = normal(5, 6, seed=1)
    if student_too:
        student = student.masked_fill(RULED_OUT, -torch.inf)
    student.requires_grad_()
    value = loss(kind(), teacher, student)
    value.backward()
    assert value.isfinite() and value > 0 and student.grad is not None and student.grad.isfinite().all()
    if student_too:  # then the vocabulary is simply smaller
        small = loss(kind(), teacher[:, ~RULED_OUT], student.detach()[:, ~RULED_OUT])
        torch.testing.assert_close(value.detach(), small)
        assert not student.grad[:, RULED_OUT].any()


def test_the_forward_kl_presses_on_ruled_out_tokens_and_the_reverse_one_leaves_them_alone():
    teacher = normal(5, 6, seed=0).masked_fill(RULED_OUT, -torch.inf)
    grads = {}
    for kind in (ForwardKL, JensenShannon, SkewForwardKL, SkewReverseKL, ReverseKL):
        student = normal(5, 6, seed=1).requires_grad_()
        loss(kind(), teacher, student).backward()
        assert student.grad is not None
        grads[kind] = student.grad[:, RULED_OUT]
    assert all((grads[kind] > 1e-6).all() for kind in (ForwardKL, JensenShannon, SkewForwardKL, SkewReverseKL))
    assert grads[ReverseKL].abs().max() < 1e-15
    same = torch.where(RULED_OUT, 0.7, teacher)  # equal on what the teacher allows
    assert loss(ReverseKL(), teacher, same).abs() < 1e-12


# Chunks


def student_of(hidden: torch.Tensor, head: torch.Tensor, whole: bool) -> StudentOutput:
    return StudentOutput(logits=hidden @ head.T) if whole else StudentOutput(hidden=(hidden,), lm_head=head)


def signal_of(kind: type, logits: torch.Tensor):
    if kind is TopKKL:
        return TopKLogits.from_logits(logits, 3)
    return SampledLogProbs.labels(logits.argmax(-1)) if kind is CrossEntropy else DenseLogits(logits)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
@pytest.mark.parametrize("masked", [False, True])
def test_chunks_and_the_heads_path_change_neither_value_nor_gradient(kind, rows, masked):
    teacher = 2 * normal(3, 4, 10, seed=0)
    mask = normal(3, 4, seed=3) > 0 if masked else None
    results = []
    for objective, whole in ((kind(), True), (kind(chunk_size=10 * rows), True), (kind(chunk_size=10 * rows), False)):
        hidden, head = normal(3, 4, 6, seed=1).requires_grad_(), normal(10, 6, seed=2).requires_grad_()
        value = objective(student_of(hidden, head, whole), signal_of(kind, teacher), mask)
        (3 * value).backward()
        results.append((value.detach(), hidden.grad, head.grad))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


@pytest.mark.parametrize("kind", EVERY)
def test_the_heads_gradients_are_those_of_finite_differences(kind):
    signal = signal_of(kind, 2 * normal(5, 7, seed=0))
    hidden, head = normal(5, 3, seed=1).requires_grad_(), normal(7, 3, seed=2).requires_grad_()
    objective = kind(chunk_size=14)
    assert torch.autograd.gradcheck(
        lambda h, w: objective(StudentOutput(hidden=(h,), lm_head=w), signal), (hidden, head), fast_mode=True
    )


def test_a_frozen_head_gets_no_gradient_and_hidden_states_the_same():
    signal = DenseLogits(normal(5, 7, seed=0))
    grads = []
    for frozen in (False, True):
        hidden, head = normal(5, 3, seed=1).requires_grad_(), normal(7, 3, seed=2).requires_grad_(not frozen)
        ForwardKL()(StudentOutput(hidden=(hidden,), lm_head=head), signal).backward()
        assert (head.grad is None) == frozen
        grads.append(hidden.grad)
    assert torch.equal(*grads)


def test_half_precision_logits_are_summed_in_float32_and_get_gradients_of_their_own_kind():
    teacher, student = normal(64, 500, seed=0), normal(64, 500, seed=1)
    exact = loss(ForwardKL(), teacher, student)
    for dtype in (torch.bfloat16, torch.float16):
        leaf = student.to(dtype).requires_grad_()
        value = loss(ForwardKL(), teacher.to(dtype), leaf)
        value.backward()
        assert value.dtype is torch.float32 and leaf.grad is not None and leaf.grad.dtype is dtype
        assert value.item() == pytest.approx(exact.item(), rel=5e-3)


@pytest.mark.parametrize("averaged", [True, False])
def test_under_autocast_every_pass_over_a_chunk_has_the_same_numbers(averaged):
    """The head's product is in bfloat16, also where single losses are computed again backwards, outside of autocast."""
    seen: list[torch.Tensor] = []

    class Watched(ForwardKL):
        def token_losses(self, logits, signal):
            seen.append(logits.detach().clone())
            return super().token_losses(logits, signal)

    hidden, head = normal(12, 6, seed=1).float().requires_grad_(), normal(10, 6, seed=2).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        student, signal = StudentOutput(hidden=(hidden,), lm_head=head), DenseLogits(normal(12, 10, seed=0).float())
        objective = Watched(chunk_size=30)
        value = (
            objective(student, signal) if averaged else objective.losses(student, signal, torch.arange(12), None).mean()
        )
    value.backward()
    assert len(seen) == (4 if averaged else 8)
    assert averaged or all(torch.equal(a, b) for a, b in zip(seen[:4], seen[4:], strict=True))
    assert not torch.equal(torch.cat(seen[:4]), hidden.detach() @ head.detach().T)  # rounded, so autocast was on
    assert hidden.grad is not None and hidden.grad.dtype is torch.float32 and hidden.grad.abs().max() > 0


@pytest.mark.parametrize(("vocabulary", "chunk_size", "rows"), [(152_064, None, 32), (8192, None, 64), (9, 45, 5)])
def test_chunks_are_of_enough_rows_for_the_vocabulary(vocabulary, chunk_size, rows):
    """A row or two of a large vocabulary at once would read both output layers again for each."""
    seen: list[int] = []

    class Watched(ForwardKL):
        def token_losses(self, logits, signal):
            seen.append(len(logits))
            return super().token_losses(logits, signal)

    student = StudentOutput(hidden=(normal(64, 2, seed=0).float(),), lm_head=normal(vocabulary, 2, seed=1).float())
    teacher = ProjectedLogits(normal(64, 3, seed=2).float(), normal(vocabulary, 3, seed=3).float())
    Watched(chunk_size=chunk_size)(student, teacher)
    assert sum(seen) == 64 and min(seen[:-1], default=64) >= rows


def test_a_bfloat16_head_sums_the_gradients_of_many_chunks_in_float32():
    """Summed in bfloat16, with its 8 bits, a thousand small terms would lose far more than one rounding."""
    teacher, grads = DenseLogits(normal(2000, 4, seed=0).float()), []
    hidden, start = normal(2000, 3, seed=1).bfloat16() + 2, normal(4, 3, seed=2).bfloat16()
    for chunk_size in (4, 2**24):
        head = start.clone().requires_grad_()
        ForwardKL(chunk_size=chunk_size)(StudentOutput(hidden=(hidden,), lm_head=head), teacher).backward()
        grads.append(head.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=2**-7, atol=0)


class Allocations(TorchDispatchMode):
    """Number of elements of every tensor that an operation allocates, forwards and backwards."""

    def __init__(self, *known: torch.Tensor):
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        inputs = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in inputs | self.known:
                self.sizes.append(tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("tokens", [256, 1024])
@pytest.mark.parametrize("averaged", [True, False])
def test_memory_of_the_heads_path_does_not_grow_with_tokens_times_vocabulary(kind, tokens, averaged):
    width, vocabulary, rows = 4, 100, 8
    hidden = torch.randn(tokens, width, requires_grad=True)
    head, teacher = torch.randn(vocabulary, width, requires_grad=True), torch.randn(tokens, vocabulary)
    signal, objective = signal_of(kind, teacher), kind(chunk_size=rows * vocabulary)
    student, every = StudentOutput(hidden=(hidden,), lm_head=head), torch.arange(tokens)
    held: list[torch.Tensor] = []

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        return tensor

    with Allocations(hidden, head, teacher) as seen, torch.autograd.graph.saved_tensors_hooks(hold, lambda t: t):
        value = objective(student, signal) if averaged else objective.losses(student, signal, every, None).mean()
    if not averaged:
        assert 0 < sum(tensor.numel() for tensor in held) <= tokens * (width + 4) + head.numel()
    with Allocations(hidden, head, teacher) as backwards:
        value.backward()
    limit = max(rows * vocabulary, tokens * width)
    assert backwards.sizes and max(seen.sizes) <= limit and max(backwards.sizes) <= limit


def test_neither_models_logits_exist_as_a_whole_where_the_teachers_are_projected():
    tokens, width, vocabulary, rows = 512, 4, 100, 8
    hidden, states = torch.randn(tokens, width, requires_grad=True), torch.randn(tokens, 3)
    head, theirs = torch.randn(vocabulary, width, requires_grad=True), torch.randn(vocabulary, 3)
    with Allocations(hidden, head, states, theirs) as seen:
        student = StudentOutput(hidden=(hidden,), lm_head=head)
        JensenShannon(chunk_size=rows * vocabulary)(student, ProjectedLogits(states, theirs)).backward()
    assert max(seen.sizes) <= tokens * width


@pytest.mark.parametrize("kind", DENSE)
def test_projected_logits_are_worth_the_logits(kind):
    states, theirs = normal(3, 4, 5, seed=0), normal(10, 5, seed=4)
    results = []
    for signal in (ProjectedLogits(states, theirs), DenseLogits(states @ theirs.T)):
        hidden, head = normal(3, 4, 6, seed=1).requires_grad_(), normal(10, 6, seed=2).requires_grad_()
        value = kind(chunk_size=30)(StudentOutput(hidden=(hidden,), lm_head=head), signal, normal(3, 4, seed=3) > 0)
        value.backward()
        results.append((value.detach(), hidden.grad, head.grad))
    torch.testing.assert_close(*results)


def test_memory_for_given_logits_is_one_gradient_of_their_size():
    tokens, vocabulary, rows = 512, 100, 8
    logits, teacher = torch.randn(tokens, vocabulary, requires_grad=True), torch.randn(tokens, vocabulary)
    with Allocations(logits, teacher) as seen:
        value = ForwardKL(chunk_size=rows * vocabulary)(StudentOutput(logits=logits), DenseLogits(teacher))
        (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.shape == logits.shape
    assert [size for size in seen.sizes if size > rows * vocabulary] == [tokens * vocabulary]


def test_a_loss_is_differentiated_twice_with_the_same_result():
    """Its gradients are made in the forward pass, and must outlive the first use."""
    logits, teacher = normal(6, 5, seed=1).requires_grad_(), DenseLogits(normal(6, 5, seed=0))
    value = 0.5 * ForwardKL()(StudentOutput(logits=logits), teacher)
    first, again = (torch.autograd.grad(value, logits, retain_graph=True)[0].clone() for _ in range(2))
    assert torch.equal(first, again)


def test_without_gradients_none_are_made():
    logits, teacher = torch.randn(64, 100, requires_grad=True), torch.randn(64, 100)
    with torch.no_grad(), Allocations(logits, teacher) as seen:
        value = ForwardKL(chunk_size=400)(StudentOutput(logits=logits), DenseLogits(teacher))
    assert not value.requires_grad and max(seen.sizes) <= 400


def test_the_memory_gauge_sees_an_unchunked_loss():
    """Otherwise the two tests above could not fail."""
    logits, teacher = torch.randn(64, 100, requires_grad=True), torch.randn(64, 100)
    with Allocations(logits, teacher) as seen:
        torch.autograd.grad(F.kl_div(logits.log_softmax(-1), teacher.softmax(-1), reduction="sum"), logits)
    assert seen.sizes.count(6400) > 4


# Top-k


@given(SEEDS, st.integers(1, 8), st.sampled_from(["forward", "reverse"]), st.floats(0.3, 3))
@settings(max_examples=60, deadline=None)
def test_a_top_k_divergence_lies_between_0_and_the_full_one(seed, k, direction, temperature):
    teacher, student = 3 * normal(4, 9, seed=seed), 3 * normal(4, 9, seed=seed + 1)
    full = (ForwardKL if direction == "forward" else ReverseKL)(temperature=temperature)
    signal = TopKLogits.from_logits(teacher, k, temperature)
    value = TopKKL(direction=direction)(StudentOutput(logits=student), signal)
    bound = loss(full, teacher, student)
    assert -1e-12 < value <= bound + 1e-9
    if k == 8:  # one token left: its bucket is the token
        torch.testing.assert_close(value, bound)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("tail", ["bucket", "drop"])
def test_all_tokens_as_top_k_are_the_full_divergence(direction, tail):
    teacher, student = normal(4, 9, seed=0), normal(4, 9, seed=1)
    signal = TopKLogits.from_logits(teacher, 9)
    value = TopKKL(direction=direction, tail=tail)(StudentOutput(logits=student), signal)
    torch.testing.assert_close(value, loss(ForwardKL() if direction == "forward" else ReverseKL(), teacher, student))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_share_out_of_the_tail_is_free(direction):
    """What the buckets do not tell costs nothing: the same top tokens with another order in the tail."""
    teacher = torch.tensor([[3.0, 2.0, 0.0, -1.0, -2.0]], dtype=torch.float64)
    student = teacher[:, [0, 1, 4, 2, 3]].requires_grad_()
    value = TopKKL(direction=direction)(StudentOutput(logits=student), TopKLogits.from_logits(teacher, 2))
    value.backward()
    assert value.abs() < 1e-12 and student.grad is not None and student.grad.abs().max() < 1e-12


def test_only_the_bucket_holds_the_students_tail_down():
    """A teacher that rules its tail out (FIRST with a target of 0 for the rest): the bucket presses on the tail."""
    teacher = TopKLogits(logs(0.6, 0.4)[None], torch.tensor([[0, 1]]), torch.tensor([-torch.inf]))
    grads = {}
    for name, objective in {
        "bucket": TopKKL(),
        "drop": TopKKL(tail="drop"),
        "reverse": TopKKL(direction="reverse"),
    }.items():
        student = normal(1, 5, seed=1).requires_grad_()
        objective(StudentOutput(logits=student), teacher).backward()
        assert student.grad is not None
        grads[name] = student.grad[0, 2:]
    assert (grads["bucket"] > 0.05).all()
    assert grads["drop"].abs().max() < 1e-12 and grads["reverse"].abs().max() < 1e-12


def test_a_top_k_objective_uses_the_signals_own_temperature():
    teacher, student = normal(4, 9, seed=0), normal(4, 9, seed=1)
    warm = TopKKL()(StudentOutput(logits=student), TopKLogits.from_logits(teacher, 8, temperature=4.0))
    torch.testing.assert_close(warm, loss(ForwardKL(temperature=4.0), teacher, student))


# Refusals


def test_other_vocabularies_and_shapes_are_refused():
    signal = DenseLogits(torch.zeros(2, 40))
    with pytest.raises(DistillError, match="student's vocabulary has 32 tokens, the teacher's 40; cut both"):
        ForwardKL()(StudentOutput(logits=torch.zeros(2, 32)), signal)
    with pytest.raises(DistillError, match="student's vocabulary has 32 tokens"):
        ForwardKL()(StudentOutput(hidden=(torch.zeros(2, 3),), lm_head=torch.zeros(32, 3)), signal)
    with pytest.raises(DistillError, match="lm_head takes width 4, the last hidden states have 3"):
        ForwardKL()(StudentOutput(hidden=(torch.zeros(2, 3),), lm_head=torch.zeros(40, 4)), signal)
    with pytest.raises(DistillError, match="needs the student's hidden"):
        ForwardKL()(StudentOutput(lm_head=torch.zeros(40, 4)), signal)
    with pytest.raises(DistillError, match="vocabulary of 32, got 0 to 33"):
        CrossEntropy()(StudentOutput(logits=torch.zeros(2, 32)), SampledLogProbs.labels(torch.tensor([0, 33])))
    with pytest.raises(DistillError, match="vocabulary of 2"):
        TopKKL()(StudentOutput(logits=torch.zeros(2, 2)), TopKLogits.from_logits(torch.eye(2, 40).flip(-1), 2))
    with pytest.raises(DistillError, match=r"positions \[3\], the teacher's signal \[2\]"):
        ForwardKL()(StudentOutput(logits=torch.zeros(3, 40)), signal)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: ForwardKL(temperature=0), "temperature must be above 0, got 0"),
        (lambda: ForwardKL(temperature=float("nan")), "temperature must be above 0, got nan"),
        (lambda: JensenShannon(beta=1.0), "beta must lie between 0 and 1, got 1.0; at the ends take"),
        (lambda: SkewForwardKL(alpha=0.0), "alpha must lie"),
        (lambda: SkewReverseKL(alpha=-1, temperature=2), "alpha must lie"),
        (lambda: JensenShannon(temperature=-1), "temperature"),
        (lambda: CrossEntropy(chunk_size=0), "chunk_size must be above 0"),
        (lambda: TopKKL(direction="sideways"), "direction must be forward or reverse"),
        (lambda: TopKKL(tail="cut"), "tail must be bucket or drop"),
    ],
)
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(DistillError, match=words):
        make()
