"""Teacher's signals: what is refused, top-k buckets against the full softmax, slicing, the way to a file and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from distill.core.errors import DistillError
from distill.core.signals import (
    Actions,
    Attention,
    DenseLogits,
    HiddenStates,
    SampledLogProbs,
    TeacherSignal,
    Text,
    TopKLogits,
)

torch.set_num_threads(1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def examples() -> dict[str, TeacherSignal]:
    """One of each kind, for a batch of 4 rows."""
    logits = normal(4, 3, 11)
    logits[0, 0, :4] = -torch.inf
    return {
        "dense": DenseLogits(logits),
        "top-k": TopKLogits.from_logits(logits, 5, temperature=1.7),
        "everything": TopKLogits.from_logits(logits, 11),
        "sampled": SampledLogProbs(torch.arange(12).reshape(4, 3), -normal(4, 3).abs()),
        "text": Text(("a gate", "", "Sprünge über 0,5 m", "4")),
        "hidden": HiddenStates(
            tuple(normal(4, 3, width, seed=width) for width in range(2, 14))
        ),  # more than ten layers
        "attention": Attention((normal(4, 2, 3, 3).softmax(-1), normal(4, 1, 3, 3).softmax(-1))),
        "scores": Attention(
            (normal(4, 2, 3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf),), scores=True
        ),
        "actions": Actions(normal(4, 12)),
        "stochastic": Actions(normal(4, 12), normal(4, 12).exp()),
    }


def same(a: TeacherSignal, b: TeacherSignal) -> bool:
    left, right = a.tensors(), b.tensors()
    return type(a) is type(b) and left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("name", examples())
def test_a_signal_comes_back_from_a_file_as_it_was(name):
    signal = examples()[name]
    tensors = {key: value.contiguous() for key, value in signal.tensors().items()}
    again = type(signal).from_tensors(load(save(tensors)))
    assert same(signal, again)
    assert vars(signal).keys() == vars(again).keys()
    for setting in signal.SETTINGS:
        assert getattr(again, setting) == getattr(signal, setting) and type(getattr(again, setting)) is not torch.Tensor


@pytest.mark.parametrize("name", examples())
def test_rows_are_chosen_by_slices_places_and_booleans_alike(name):
    signal = examples()[name]
    middle = signal.index(slice(1, 3))
    assert same(middle, signal.index(torch.tensor([1, 2])))
    assert same(middle, signal.index(torch.tensor([False, True, True, False])))
    assert not same(middle, signal.index(slice(2, 4)))
    if not isinstance(signal, Text):
        assert all(len(value) == 2 for key, value in middle.tensors().items() if key not in signal.SETTINGS)


def test_text_is_chosen_by_row():
    assert Text(("a", "b", "c")).index(torch.tensor([2, 0])).texts == ("c", "a")


@pytest.mark.parametrize("name", [name for name in examples() if name != "text"])
def test_a_signal_moves_to_a_device_with_every_tensor_and_keeps_its_settings(name):
    signal = examples()[name]
    moved = signal.to("meta")
    values = [v for value in vars(moved).values() for v in (value if isinstance(value, tuple) else (value,))]
    assert {value.device.type for value in values if isinstance(value, torch.Tensor)} == {"meta"}
    assert [getattr(moved, s) for s in signal.SETTINGS] == [getattr(signal, s) for s in signal.SETTINGS]


def test_a_signal_carries_no_gradient():
    logits = normal(2, 5).requires_grad_()
    hidden = HiddenStates([logits * 2])  # type: ignore[arg-type] # a list is taken too
    assert not DenseLogits(logits).logits.requires_grad and not TopKLogits.from_logits(logits, 2).tail.requires_grad
    assert isinstance(hidden.layers, tuple) and not hidden.layers[0].requires_grad


@given(st.integers(1, 9), st.floats(0.2, 5), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_top_k_buckets_are_the_softmax_with_the_rest_summed(k, temperature, seed):
    logits = 4 * normal(3, 9, seed=seed).double()
    signal = TopKLogits.from_logits(logits, k, temperature)
    ordered, places = (logits / temperature).softmax(-1).sort(-1, descending=True)
    torch.testing.assert_close(signal.log_probs.exp(), ordered[:, :k])
    torch.testing.assert_close(signal.tail.exp(), ordered[:, k:].sum(-1))
    assert torch.equal(signal.indices, places[:, :k]) and signal.temperature == temperature


def test_a_tail_far_below_rounding_is_still_exact():
    """1 - sum of the top probabilities would be 0: the tail is summed by itself."""
    logits = torch.tensor([[100.0, 0.0, 0.0, 0.0]])
    signal = TopKLogits.from_logits(logits, 1)
    assert signal.tail.item() == pytest.approx(torch.tensor(3.0).log().item() - 100, rel=1e-6)


def test_half_precision_top_k_passes_its_own_check():
    for dtype in (torch.float16, torch.bfloat16):
        exact = TopKLogits.from_logits(5 * normal(64, 500), 5)
        rounded = TopKLogits(exact.log_probs.to(dtype), exact.indices, exact.tail.to(dtype))
        assert rounded.log_probs.dtype is dtype


BAD = {
    "NaN logits": (lambda: DenseLogits(torch.tensor([[0.0, torch.nan]])), "finite largest"),
    "infinite logits": (lambda: DenseLogits(torch.tensor([[0.0, torch.inf]])), "finite largest"),
    "nothing possible": (lambda: DenseLogits(torch.full((2, 3), -torch.inf)), "finite largest"),
    "integer logits": (lambda: DenseLogits(torch.ones(2, 3, dtype=torch.int64)), "floating-point"),
    "no tensor": (lambda: DenseLogits([[0.0, 1.0]]), "must be a tensor, got"),  # type: ignore[arg-type]
    "none": (lambda: DenseLogits(None), "must be a tensor, got NoneType"),  # type: ignore[arg-type]
    "k above V": (lambda: TopKLogits.from_logits(normal(2, 3), 4), "between 1 and the vocabulary of 3, got 4"),
    "no k": (lambda: TopKLogits.from_logits(normal(2, 3), 0), "got 0"),
    "NaN under top-k": (lambda: TopKLogits.from_logits(normal(2, 3) * torch.nan, 1), "finite largest"),
    "cold": (lambda: TopKLogits.from_logits(normal(2, 3), 1, 0.0), "above 0, got 0"),
    "twice the same token": (
        lambda: TopKLogits(torch.tensor([0.5, 0.5]).log(), torch.tensor([1, 1]), torch.tensor(-torch.inf)),
        "different token ids",
    ),
    "more than 1": (
        lambda: TopKLogits(torch.tensor([0.5, 0.4]).log(), torch.tensor([1, 2]), torch.tensor(0.2).log()),
        "off by 0.0953",
    ),
    "NaN log-prob": (
        lambda: TopKLogits(torch.tensor([torch.nan, 0.4]), torch.tensor([1, 2]), torch.tensor(0.2).log()),
        "off by nan",
    ),
    "one index too few": (
        lambda: TopKLogits(torch.tensor([0.5, 0.5]).log(), torch.tensor([1]), torch.tensor(-torch.inf)),
        r"\[2\] and indices \[1\] differ",
    ),
    "short ids": (
        lambda: TopKLogits(torch.tensor([1.0]).log(), torch.tensor([1], dtype=torch.int32), torch.tensor(-torch.inf)),
        "int64, got torch.int32",
    ),
    "positive log-prob": (lambda: SampledLogProbs(torch.tensor([1]), torch.tensor([0.5])), "at most 0"),
    "NaN sample": (lambda: SampledLogProbs(torch.tensor([1]), torch.tensor([torch.nan])), "must be finite"),
    "sample shapes": (lambda: SampledLogProbs(torch.tensor([1, 2]), torch.tensor([0.0])), "differ"),
    "bytes": (lambda: Text((b"a",)), "must be strings, got bytes"),  # type: ignore[arg-type]
    "no layers": (lambda: HiddenStates(()), "at least one layer"),
    "different lengths": (lambda: HiddenStates((normal(2, 3, 4), normal(2, 4, 4))), "differ"),
    "NaN state": (lambda: HiddenStates((normal(2, 3, 4) * torch.nan,)), "finite"),
    "infinite state": (lambda: HiddenStates((torch.tensor([[torch.inf, -1.0]]),)), "finite"),
    "no square": (lambda: Attention((normal(1, 2, 3, 4).softmax(-1),)), "square"),
    "scores as maps": (lambda: Attention((normal(1, 2, 3, 3),)), "scores=True"),
    "not normalised": (lambda: Attention((torch.full((1, 1, 2, 2), 0.4),)), "sum to 1"),
    "negative": (lambda: Attention((torch.tensor([[[[1.5, -0.5], [0.5, 0.5]]]]),)), "probabilities"),
    "NaN scores": (lambda: Attention((torch.full((1, 1, 2, 2), torch.nan),), scores=True), "NaN"),
    "NaN maps": (lambda: Attention((torch.full((1, 1, 2, 2), torch.nan),)), "sum to 1"),
    "infinite action": (lambda: Actions(torch.tensor([torch.inf])), "finite"),
    "std of 0": (lambda: Actions(torch.zeros(2, 3), torch.zeros(2, 3)), "positive"),
    "std shape": (lambda: Actions(torch.zeros(2, 3), torch.ones(3)), "differ"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_signal_is_refused_in_one_sentence(case):
    make, words = BAD[case]
    with pytest.raises(DistillError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_padded_queries_may_have_empty_rows_of_attention():
    Attention((torch.tensor([[[[0.3, 0.7], [0.0, 0.0]]]]),))


def test_a_stored_signal_with_other_names_is_refused():
    with pytest.raises(DistillError, match=r"dense logits is stored as \['logits'\], got \['mean'\]"):
        DenseLogits.from_tensors({"mean": torch.zeros(2)})
    with pytest.raises(DistillError, match="text is stored"):
        Text.from_tensors({"utf8": torch.zeros(2)})
    with pytest.raises(DistillError, match="top-k logits is stored"):
        TopKLogits.from_tensors({"log_probs": torch.zeros(1), "indices": torch.zeros(1, dtype=torch.int64)})
