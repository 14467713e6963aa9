"""MEND: the loss as its formula, gradients through a frozen model that stays, padding that changes nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GPT2Config

from distill.core.errors import DistillError
from distill.core.fit import fit
from distill.core.objectives.base import OwnMasks, StudentOutput
from distill.core.signals import DenseLogits, SampledLogProbs
from distill.language.models import Shape, build
from distill.methods.kept import load, save
from distill.methods.mend.experiment import FIRST_LABEL, KEYS, USED, VOCABULARY, maps, repeated, stream_rows, tasks_rows
from distill.methods.mend.method import PARTS, Compressor, SharedPrompt, losses, parts
from distill.methods.method import MethodOptions

SMALL = Shape(VOCABULARY, 8, 1, 2, context=64)


def compressor(width: int = 12) -> Compressor:
    torch.manual_seed(0)
    return Compressor.like(SMALL.config().to_dict(), 3, width).eval()


def given(count: int = 4) -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor]]:
    rows = stream_rows(np.random.default_rng(0), count, 8)
    rows["mask"] = np.random.default_rng(1).random(rows["mask"].shape) < 0.7
    rows["mask"][:, :, 0] = True
    return rows, {name: torch.from_numpy(np.asarray(values)) for name, values in rows.items()}


def test_the_loss_is_its_formula_and_the_frozen_model_stays(tmp_path):
    frozen = build(Shape(VOCABULARY, 12, 2, 2, context=64), 1).double()
    model, (rows, batch) = compressor().double(), given()
    learner, objective, teacher, _ = parts(model, frozen, rows, losses(MethodOptions(temperature=1.5), 0.7, 0.4))
    signal: Any = teacher.label(batch)
    found = objective(learner.outputs(model, batch), signal, batch["mask"]).item()
    with torch.no_grad():
        words, n = frozen.get_input_embeddings()(batch["tokens"][:, :-1]), batch["shown"].shape[1]
        states = model.model(
            inputs_embeds=torch.cat(
                [model.model.get_input_embeddings()(batch["shown"]), model.places.expand(4, -1, -1)], 1
            )
        ).last_hidden_state
        assert model.map is not None
        vectors = torch.tanh(model.map(states[:, n:]))
        z_s = frozen(inputs_embeds=torch.cat([vectors, words], 1)).logits[:, 3:]
        z_t = frozen(input_ids=torch.cat([batch["shown"], batch["tokens"][:, :-1]], 1)).logits[:, n:]
        ce = F.cross_entropy(z_s[batch["mask"][:, 0]], batch["tokens"][:, 1:][batch["mask"][:, 0]])
        p, q = ((z / 1.5).log_softmax(-1)[batch["mask"][:, 1]] for z in (z_t, z_s))
        wanted = 0.7 * ce + 0.4 * (p.exp() * (p - q)).sum(-1).mean()
    assert found == pytest.approx(wanted.item(), rel=1e-6)
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    fit(*parts(model.float(), frozen.float(), rows, losses(MethodOptions())), tmp_path, steps=3, batch=4, seed=0)
    assert all(torch.equal(before[name].float(), tensor) for name, tensor in frozen.state_dict().items())


def test_gradients_reach_the_vectors_through_the_frozen_model():
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 64}
    torch.manual_seed(1)  # its norms keep float64, as those of Llama do not
    frozen = AutoModelForCausalLM.from_config(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1)).double()
    prompt = SharedPrompt(2, 8).double()
    rows, batch = given(2)
    learner, objective, teacher, _ = parts(prompt, frozen, rows, losses(MethodOptions()))
    signal: Any = teacher.label(batch)

    def loss(vectors: torch.Tensor) -> torch.Tensor:
        output: Any = learner.outputs(lambda *_: vectors.expand(2, -1, -1), batch)  # pyright: ignore[reportArgumentType]
        return objective(output, signal, batch["mask"])

    assert torch.autograd.gradcheck(loss, [prompt.vectors.detach().clone().requires_grad_()])


def test_padding_on_either_side_changes_nothing():
    model = compressor()
    text, pad = torch.tensor([[3, 4, 5]]), torch.zeros(1, 2, dtype=torch.int64)
    there, gone = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bool)
    with torch.no_grad():
        alone = model(text, there)
        for first in (True, False):
            order = (slice(None), slice(None, None, -1))[first]
            both = [(text, there), (pad, gone)][order]
            assert torch.allclose(model(*(torch.cat(x, 1) for x in zip(*both, strict=True))), alone, atol=1e-5)


def test_both_kinds_of_vectors_load_again(tmp_path):
    for i, module in enumerate((compressor(), SharedPrompt(3, 12))):
        save(module, tmp_path / str(i))
        again, text = load(tmp_path / str(i)), torch.tensor([[3, 4, 5]])
        assert torch.equal(again(text, text > 0), module(text, text > 0))


def test_masks_are_by_name_and_missing_ones_refused():
    signal = {"labels": SampledLogProbs.labels(torch.tensor([[0, 1]])), "teacher": DenseLogits(torch.zeros(1, 2, 3))}
    objective, logits = OwnMasks(losses(MethodOptions()), PARTS), torch.randn(1, 2, 3)
    mask = torch.tensor([[[True, False], [False, True]]])
    found = objective(StudentOutput(logits=logits), signal, mask)
    q = logits.log_softmax(-1)
    assert found.item() == pytest.approx((-q[0, 0, 0] - q[0, 1].mean() - np.log(3)).item(), rel=1e-5)
    for bad in (lambda: objective(StudentOutput(logits=logits), signal), lambda: OwnMasks(losses(MethodOptions()), [])):
        with pytest.raises(DistillError):
            bad()


def test_the_key_that_is_asked_for_is_always_shown_and_labels_are_few():
    rows = tasks_rows(np.random.default_rng(0), 200, 16)
    for text, tokens in zip(rows["shown"], rows["tokens"], strict=True):
        pairs = set(zip(text[::2].tolist(), text[1::2].tolist(), strict=True))
        assert tuple(tokens.tolist()) in pairs and len(dict(pairs)) == len(pairs)
    tasks = maps(np.random.default_rng(1), 50)
    assert tasks.shape == (50, KEYS) and tasks.min() >= FIRST_LABEL and max(len(set(t)) for t in tasks.tolist()) <= USED


def test_text_that_repeats_itself_is_learned_where_it_repeats():
    rows = repeated(np.random.default_rng(2), 200, 34)
    tokens, mask = rows["tokens"], rows["mask"]
    assert tokens.shape == (200, 34) and mask.shape == (200, 33) and tokens.min() > 0
    for row, learned in zip(tokens, mask, strict=True):
        after = 33 - int(learned.sum()) + 1
        assert 3 <= after <= 12
        np.testing.assert_array_equal(row[after:], row[:-after])
        assert not learned[: after - 1].any() and learned[after - 1 :].all()
