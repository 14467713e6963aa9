"""Every family of models: what is trained on are its own logits, and nothing but the tokens decides them."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from distill.core.errors import DistillError
from distill.core.objectives.divergences import CrossEntropy, ForwardKL, JensenShannon
from distill.language.evaluate import nats_per_token
from distill.language.generation import generate
from distill.language.models import Shape, build, causal, classifier, packs, sequence_to_sequence
from distill.language.output_layer import measured_scaling
from distill.language.student import ChunkedStudent, ModelStudent, Next, dense, projected
from distill.language.writing import answers

V, PAD = 97, 0
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
FAMILIES = {
    "llama": SIZES, "qwen2": SIZES, "qwen3": {**SIZES, "head_dim": 8}, "mistral": {**SIZES, "head_dim": 8},
    "gemma2": {**SIZES, "head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 30.0},
    "gemma3_text": {**SIZES, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "cohere": {**SIZES, "logit_scale": 0.0625}, "granite": {**SIZES, "logits_scaling": 8.0},
    "phi": SIZES, "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4},
    "mixtral": {**SIZES, "num_local_experts": 4, **EXPERTS},
}  # fmt: skip
WITHOUT_POSITIONS = ("mamba",)


def model(family: str, **more):
    """Random weights whose logits are as peaked as trained ones: a scale or cap that is left out shows."""
    torch.manual_seed(0)
    ids = {"vocab_size": V, "pad_token_id": PAD, "eos_token_id": 1, "bos_token_id": None}
    found = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **ids, **FAMILIES[family], **more)).eval()
    with torch.no_grad():
        found.get_output_embeddings().weight.mul_(20)
        bias = getattr(found.get_output_embeddings(), "bias", None)
        if bias is not None:
            bias.normal_()
    return found


def tokens(rows: int = 2, length: int = 10) -> torch.Tensor:
    return torch.randint(2, V, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_on_are_the_models_own_logits(family):
    own, batch = model(family), {"tokens": tokens()}
    with torch.no_grad():
        logits = own(input_ids=batch["tokens"][:, :-1]).logits
    whole, chunked = ModelStudent(own, causal(V)), ChunkedStudent(own, V)
    torch.testing.assert_close(projected(own, V).label(batch).logits, logits, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(dense(own, causal(V)).label(batch).logits, logits, rtol=0, atol=0)
    # a model that is taught by itself has nothing to learn, whichever way either is read
    for student in (whole, chunked):
        for teacher in (dense(own, causal(V)), projected(own, V)):
            loss = ForwardKL()(student.outputs(own, batch), teacher.label(batch))
            assert loss.item() == pytest.approx(0.0, abs=1e-5)
    # the same gradients, of all parameters
    losses, gradients = [], []
    for student in (whole, chunked):
        own.zero_grad()
        loss = CrossEntropy(chunk_size=3 * V)(student.outputs(own, batch), Next().label(batch))
        loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad.clone() for n, p in own.named_parameters() if p.grad is not None})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and gradients[0].keys() == gradients[1].keys()
    for name, wanted in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], wanted, rtol=1e-3, atol=1e-5 * max(wanted.abs().max().item(), 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_packing_and_other_rows_change_nothing(family):
    own, rows = model(family), tokens(2, 7)
    student = ChunkedStudent(own, V)
    table = {"tokens": rows.numpy(), "mask": torch.ones(2, 6, dtype=torch.bool).numpy()}
    nats = nats_per_token(own, student, table)
    padded = torch.full((2, 12), PAD)
    padded[:, :7] = rows
    mask = torch.zeros(2, 11, dtype=torch.bool)
    mask[:, :6] = True
    assert nats_per_token(own, student, {"tokens": padded.numpy(), "mask": mask.numpy()}) == pytest.approx(nats, 1e-4)
    assert nats_per_token(own, causal(V), table) == pytest.approx(nats, 1e-4)
    assert packs(own, V) == (family not in WITHOUT_POSITIONS)
    if packs(own, V):
        one = {"tokens": rows.reshape(1, 14).numpy(), "mask": torch.ones(1, 13, dtype=torch.bool).numpy()}
        one["mask"][0, 6] = False  # the first token of the second text
        one["positions"] = torch.tensor([[*range(7), *range(6)]]).numpy()
        assert nats_per_token(own, student, one) == pytest.approx(nats, 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_those_of_generate(family):
    own, prompts = model(family), tokens(2, 5)
    wanted = own.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=4, do_sample=False)
    wanted = [row[5:] for row in wanted.tolist()]
    ours = [row[5:] for row in generate(own, prompts, 4, V, 0, 0.0, end=1, pad=PAD)[0].tolist()]
    shorter = answers(own, [prompts[0].tolist(), prompts[1, 1:].tolist()], 4, V, [1], PAD, 0, 0.0)
    assert ours == [row + [PAD] * (4 - len(row)) for row in wanted]
    ends = wanted[0].index(1) + 1 if 1 in wanted[0] else 4
    assert shorter[0] == wanted[0][:ends]


def test_encoders_and_encoder_decoders_are_read_as_they_are():
    torch.manual_seed(0)
    t5 = build(Shape(V, 32, 2, kind="encoder-decoder"))
    batch = {"inputs": tokens(2, 6), "tokens": tokens(2, 5)}
    own = t5(input_ids=batch["inputs"], decoder_input_ids=batch["tokens"][:, :-1]).logits
    torch.testing.assert_close(sequence_to_sequence(V)(t5, batch), own, rtol=0, atol=0)
    padded = {**batch, "inputs": torch.cat([batch["inputs"], torch.zeros(2, 3, dtype=torch.int64)], 1)}
    torch.testing.assert_close(sequence_to_sequence(V)(t5, padded), own)
    bert = build(Shape(V, 32, 2, kind="encoder", classes=3))
    own = bert(input_ids=batch["tokens"]).logits
    padded = {"tokens": torch.cat([batch["tokens"], torch.zeros(2, 3, dtype=torch.int64)], 1)}
    torch.testing.assert_close(classifier()(bert, padded), own)
    for each, read, data in ((t5, sequence_to_sequence(V), batch), (bert, classifier(), {"tokens": batch["tokens"]})):
        loss = ForwardKL()(ModelStudent(each, read).outputs(each, data), dense(each, read).label(data))
        assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_logits_that_are_made_otherwise_are_refused():
    own = model("llama")
    own.lm_head.register_forward_hook(lambda layer, inputs, out: out + out.square())
    with pytest.raises(DistillError, match="its output layer"):
        measured_scaling(own)


def test_a_bare_number_is_an_objectives_own_parameter():
    assert JensenShannon(0.25).beta == 0.25 and JensenShannon(0.25).chunk_size is None
    with pytest.raises(TypeError):
        ForwardKL(2.0)
