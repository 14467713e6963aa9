"""Methods for own models: every loss is what its paper's formula gives, and each says what it cannot do."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PhiConfig

import barkour
from distill.core.collect import CollectionPlan
from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.signals import DenseLogits
from distill.language.aligned import RecordedSpans
from distill.language.evaluate import perplexities, token_log_probs
from distill.language.examples import Chat, Pair, Text
from distill.language.models import Shape, build, causal
from distill.language.states import STATES
from distill.language.views import Views
from distill.language.writing import answers
from distill.methods.capacity_gap.method import chosen
from distill.methods.hidden_states.method import blocks
from distill.methods.method import CLASSIFIERS, METHODS, Material, MethodOptions, TextDomain, Writing, find
from distill.methods.multi_granularity.method import phrases, prompt_of
from distill.methods.self_distillation.method import targets
from distill.methods.universal_ner.method import absent, conversations, parsed, strict_scores

SIZE, LENGTH = 11, 6


@pytest.fixture(scope="module")
def material() -> Material:
    """Two random models of two layers, and two domains of random rows of which not every token counts."""
    rng = np.random.default_rng(0)

    def rows(count: int) -> dict[str, np.ndarray]:
        mask = rng.random((count, LENGTH)) < 0.6
        mask[:, 0] = True
        return {"tokens": rng.integers(SIZE, size=(count, LENGTH + 1)), "mask": mask}

    teacher, student = (build(Shape(SIZE, 16, 2, 2), seed) for seed in (1, 2))
    with torch.no_grad():  # random models say nearly the same of everything
        for model in (teacher, student):
            model.lm_head.weight.mul_(30)
    domains = [
        TextDomain(name, rows(8), rows(4), [[1, 2], [3]], views=[rows(8)], held_out_views=[rows(4)])
        for name in ("a", "b")
    ]
    return Material(student, teacher, causal(SIZE), domains, Writing(LENGTH, 3, SIZE, [0], 0, [4, 7]))


def batch_of(material: Material) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(values)) for name, values in material.domains[0].rows.items()}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def kl(log_a: np.ndarray, log_b: np.ndarray) -> np.ndarray:
    return (np.exp(log_a) * (log_a - log_b)).sum(-1)


def sinkhorn(p: np.ndarray, q: np.ndarray, group: int, epsilon: float = 0.1, iterations: int = 20) -> float:
    """The public code's loop in probability space, and its sum over the batch divided by the batch."""
    total = 0.0
    for first in range(0, len(p), group):
        ours, theirs = q[first : first + group], p[first : first + group]
        costs = np.abs(ours[:, None] - theirs[None]).sum(-1)
        plan = np.exp(-costs / epsilon)
        for _ in range(iterations):
            plan = plan / plan.sum(1, keepdims=True)
            plan = plan / plan.sum(0, keepdims=True)
        total += float((plan * costs).sum())
    return total / len(p)


def rescaled(z_t: np.ndarray, z_s: np.ndarray, k: int, level: float) -> float:
    """FIRST's loss, position by position: the head's probabilities through a softmax at the level, 0 for the rest."""
    losses = []
    for p, q in zip(np.exp(log_softmax(z_t)), log_softmax(z_s), strict=True):
        head = np.argsort(-p)[:k]
        target = np.exp(p[head] / level)
        target = target / target.sum()
        losses.append((target * (np.log(target) - q[head])).sum())
    return float(np.mean(losses))


TWO_VIEWS = ("step_by_step", "multi_granularity")
VIEWS = (*TWO_VIEWS, "nesycd")
"""Methods whose rows are several texts of one example."""
FOUND: dict[str, dict[str, float]] = {}
"""Method -> what its stage found."""


def reference(name: str, o: MethodOptions, z_t: np.ndarray, z_s: np.ndarray, tokens: np.ndarray) -> float:
    """The loss by its formula, of positions that count: logits `[N, V]` in float64, tokens `[N]`."""
    ce = -log_softmax(z_s)[np.arange(len(tokens)), tokens].mean()
    p, q = (log_softmax(z / o.temperature) for z in (z_t, z_s))
    if name in ("labels", "sequence_kd", "miniplm", "universal_ner", "frontier_synthetic"):
        return ce
    if name == "kd":
        return (1 - o.alpha) * ce + o.alpha * o.temperature**2 * kl(p, q).mean()
    if name in ("capacity_gap", "self_distillation"):
        return (1 - o.alpha) * ce + o.alpha * kl(log_softmax(z_t), log_softmax(z_s)).mean()
    if name == "gkd":
        m = np.log(o.beta * np.exp(p) + (1 - o.beta) * np.exp(q))
        return (o.beta * kl(p, m) + (1 - o.beta) * kl(q, m)).mean()
    if name == "reverse_kl":
        return kl(q, p).mean()
    if name == "teacher_hacking":
        return kl(p, q).mean()
    if name == "first":
        return rescaled(z_t, z_s, o.top_k, FOUND[name]["level"])
    if name == "ddk":
        return ce + o.alpha * kl(p, q).mean()
    if name == "alm":  # each token a piece of its own
        a, b = (log_softmax(z)[np.arange(len(tokens)), tokens] / o.temperature for z in (z_t, z_s))
        yes, no = np.exp(a) * (a - b), (1 - np.exp(a)) * (np.log1p(-np.exp(a)) - np.log1p(-np.exp(b)))
        return (1 - o.alpha) * ce + o.alpha * o.temperature * (yes + no).mean()
    assert name == "sinkd"
    apart = sinkhorn(*(np.exp(log_softmax(z / 2)) for z in (z_t, z_s)), group=64)
    return (1 - o.alpha) * ce + o.alpha * kl(p, q).mean() + o.weight * apart


def in_pieces(material: Material) -> Material:
    """With the teacher's log-probability of each token that counts written beside it, in place of the teacher."""
    domains = []
    for domain in material.domains:
        parts = []
        for rows in (domain.rows, domain.held_out):
            ends = np.where(rows["mask"], np.arange(LENGTH), -1)
            told = token_log_probs(material.teacher, material.read, rows)
            parts.append({**rows, "span": ends, "span_log_prob": told.astype(np.float32)})
        domains.append(replace(domain, rows=parts[0], held_out=parts[1]))
    return replace(material, teacher=None, domains=domains, signal=RecordedSpans())


def test_hidden_states_are_those_of_the_block_at_the_same_depth(material):
    """Of models with one width each and two, and of an output layer with a bias, against transformers' own states."""
    torch.manual_seed(3)
    phi = AutoModelForCausalLM.from_config(
        PhiConfig(vocab_size=SIZE, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2)
    ).eval()  # fmt: skip
    torch.nn.init.normal_(phi.lm_head.bias)
    wide = build(Shape(SIZE, 24, 3, 2), 5)
    for teacher, places in ((material.teacher, (1, 2)), (wide, (2, 3)), (phi, (2, 4))):
        method, batch = find("hidden_states"), batch_of(material)
        options = method.settings({"alpha": 0.3, "temperature": 1.7, "weight": 0.45})
        stage = method.build(replace(material, teacher=teacher), options)
        signal: Any = stage.teacher.label(batch)
        found = stage.objective(stage.student.outputs(stage.student.module, batch), signal, batch["mask"])
        counts = batch["mask"]
        with torch.no_grad():
            theirs, ours = (
                model(input_ids=batch["tokens"][:, :-1], output_hidden_states=True)
                for model in (teacher, material.student)
            )
        z_t, z_s = (said.logits[..., :SIZE].double().numpy()[counts.numpy()] for said in (theirs, ours))
        wanted = reference("kd", options, z_t, z_s, batch["tokens"].numpy()[:, 1:][counts.numpy()])
        learned = stage.objective.named[STATES][1].projections
        assert len(learned) == (teacher is wide)
        for block, place in enumerate(places, 1):
            mine = ours.hidden_states[block][counts]
            mine = learned[0](mine).detach() if learned else mine
            wanted += 0.45 * float((mine - theirs.hidden_states[place][counts]).square().mean())
        assert found.item() == pytest.approx(wanted, rel=1e-5)
    none = method.build(material, method.settings({"weight": 0.0}))
    assert STATES not in none.objective.named


def test_depths_are_shared_out():
    assert blocks(2, 2) == {1: 1, 2: 2} and blocks(3, 12) == {1: 4, 2: 8, 3: 12} and blocks(4, 2)[4] == 2
    assert blocks(1, 24) == {1: 24} and set(blocks(5, 7).values()) <= set(range(1, 8))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in (*VIEWS, "hidden_states")])
def test_the_loss_of_a_method_is_its_formula(name, material):
    method = find(name)
    given = {"alpha": 0.3, "temperature": 1.7, "beta": 0.35, "weight": 0.45, "top_k": 4}
    options = method.settings({key: value for key, value in given.items() if key in method.reads})
    read = in_pieces(material) if method.aligns else material
    stage, batch = method.build(read, options), batch_of(read)
    FOUND[name] = dict(stage.found)
    signal: Any = stage.teacher.label(batch)
    found = stage.objective(stage.student.outputs(stage.student.module, batch), signal, batch["mask"])
    counts = batch["mask"].numpy()
    with torch.no_grad():
        z_t, z_s = (
            model.double()(batch["tokens"][:, :-1]).logits.numpy()[counts]
            for model in (material.teacher, material.student)
        )
    for model in (material.teacher, material.student):
        model.float()
    wanted = reference(name, options, z_t, z_s, batch["tokens"].numpy()[:, 1:][counts])
    assert found.item() == pytest.approx(wanted, rel=2e-6)


def cross_entropy(logits: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> float:
    """Mean over what counts; logits `[B, T, V]`, tokens and mask `[B, T]`."""
    return float(-np.take_along_axis(log_softmax(logits), tokens[..., None], -1)[..., 0][mask].mean())


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_each_view_is_averaged_by_itself(name, material):
    method = find(name)
    options = method.settings({"alpha": 0.3} if name == "step_by_step" else {"weight": 0.45})
    stage = method.build(material, options)
    brought = stage.collectors[0].collect(None, CollectionPlan(0, 1.0, 5, 3)).fields
    batch = {key: torch.from_numpy(np.asarray(brought[key])) for key in ("tokens", "mask")}
    signal: Any = stage.teacher.label(batch)
    found = stage.objective(stage.student.outputs(stage.student.module, batch), signal, batch["mask"]).item()
    tokens, mask = batch["tokens"].numpy(), batch["mask"].numpy()
    with torch.no_grad():
        ours = [material.read(material.student, {"tokens": batch["tokens"][:, i]}).double().numpy() for i in (0, 1)]
        theirs = material.read(material.teacher, {"tokens": batch["tokens"][:, 1]}).double().numpy()
    wanted = cross_entropy(ours[0], tokens[:, 0, 1:], mask[:, 0])
    if name == "step_by_step":
        wanted = 0.7 * wanted + 0.3 * cross_entropy(ours[1], tokens[:, 1, 1:], mask[:, 1])
    else:
        assert isinstance(stage.objective, Views)
        adaptive: Any = stage.objective.named["tokens"][1]
        output = StudentOutput(logits=torch.from_numpy(ours[1]))
        wanted += adaptive(output, DenseLogits(torch.from_numpy(theirs)), batch["mask"][:, 1]).item()
        p, q = (np.exp(log_softmax(z)) for z in (theirs, ours[1]))
        pairs = [each[:, :-1] * each[:, 1:] for each in (p, q)]
        theirs, our = (pair / pair.sum(-1, keepdims=True) for pair in pairs)
        apart = ((theirs - our) ** 2).sum(-1)
        wanted += 0.45 * float(apart[mask[:, 2, :-1]].mean())
    assert found == pytest.approx(wanted, rel=2e-6)


def test_an_answer_is_corrected_where_the_teacher_disagrees_most(material):
    method, how = find("multi_granularity"), material.writing
    collector = method.build(material, method.settings({})).collectors[0]
    brought = collector.collect(None, CollectionPlan(0, 1.0, 6, 3))
    count = len(brought.episodes) - len(material.domains[0].held_out["tokens"])
    assert count == 3, "half of the rows: there are two domains of about one size"
    right, written = (torch.from_numpy(brought.fields["tokens"][:count, view]) for view in (0, 1))
    prompts = [prompt_of(row, mask) for row, mask in zip(right.numpy(), brought.fields["mask"][:count, 0], strict=True)]
    first = answers(material.student, prompts, how.new_tokens, how.vocabulary, how.ends, how.pad, 3)
    for prompt, answer, row in zip(prompts, first, written, strict=True):
        whole = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            log_p, log_q = (
                material.read(m, {"tokens": whole})[0, len(prompt) - 1 :].log_softmax(-1).double().numpy()
                for m in (material.teacher, material.student)
            )
        apart = np.where(log_p.argmax(-1) == answer, -np.inf, kl(log_p, log_q))
        place = int(apart.argmax())
        kept = [*prompt, *answer] if np.isinf(apart).all() else [*prompt, *answer[:place], int(log_p[place].argmax())]
        assert row[: len(kept)].tolist() == kept


def test_prompts_and_phrases_are_found_in_rows():
    tokens = np.array([5, 6, 7, 8, 9, 3])
    assert prompt_of(tokens, np.array([0, 1, 0, 1, 1], bool)) == [5, 6, 7, 8]
    assert phrases(tokens[None], [7, 9]).tolist() == [[0, -1, 1, -1, 2]]


def test_self_distillation_learns_targets_that_are_mixed_of_both(material):
    method = find("self_distillation")
    stage, batch = method.build(material, method.settings({"alpha": 0.3})), batch_of(material)
    signal: Any = stage.teacher.label(batch)
    logits = material.read(material.student, batch).detach().requires_grad_()
    stage.objective(StudentOutput(logits=logits), signal, batch["mask"]).backward()
    with torch.no_grad():
        said = material.read(material.teacher, batch).softmax(-1)
    truth = torch.nn.functional.one_hot(batch["tokens"][:, 1:], SIZE).float()
    again = logits.detach().clone().requires_grad_()
    mixed = targets(truth, said, 0.7)
    (-(mixed * again.log_softmax(-1)).sum(-1)[batch["mask"]].mean()).backward()
    assert logits.grad is not None and again.grad is not None
    assert torch.allclose(logits.grad, again.grad, atol=1e-7)


def test_only_examples_with_a_rationale_have_two_views():
    views = find("step_by_step").views
    assert views is not None and views(Pair("a", "b")) is None and views(Text("a")) is None
    assert views(Pair("a", "b", "c")) == [Pair("a", "b", "c"), Pair("explain: a", "c")]
    chat = Chat(({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}), rationale="r")
    found = views(chat)
    assert found is not None and isinstance(found[1], Chat) and chat.messages[0]["content"] == "q"
    assert [turn["content"] for turn in found[1].messages] == ["explain: q", "r"]


def test_methods_take_their_own_values_and_refuse_what_they_do_not_read():
    assert find("ddk").settings({"alpha": None}).alpha == 0.2 and find("ddk").settings({"alpha": 0.4}).alpha == 0.4
    assert find("kd").settings({}).alpha == 0.5
    with pytest.raises(DistillError, match="does not read beta"):
        find("kd").settings({"beta": 0.3})
    with pytest.raises(DistillError, match="alpha"):
        find("kd").settings({"alpha": 1.5})


def test_ddk_asks_for_the_lag_on_held_out_rows(material):
    method = find("ddk")
    stage = method.build(material, method.settings({}))
    rows = {domain.name: domain.held_out for domain in material.domains}
    ours, theirs = (perplexities(model, material.read, rows) for model in (material.student, material.teacher))
    for collector in stage.collectors:
        found = collector.collect(None, CollectionPlan(0, 1.0, 8, 0)).measured["ratio"]
        assert found == pytest.approx(ours[collector.name] / theirs[collector.name], rel=1e-5)
    one = Material(material.student, material.teacher, material.read, material.domains[:1], material.writing)
    with pytest.raises(DistillError, match="domains"):
        method.build(one, method.settings({}))


def test_the_teacher_nearest_to_the_law_is_chosen():
    assert chosen(100, [120, 240, 500]) == 1 and chosen(100, [100, 10_000]) == 0
    with pytest.raises(DistillError):
        chosen(100, [])


def test_first_finds_the_level_at_which_the_head_is_calibrated_on_held_out_tokens(material):
    method = find("first")
    level = method.build(material, method.settings({"top_k": 4})).found["level"]
    found = []
    for rows in (domain.held_out for domain in material.domains):
        with torch.no_grad():
            p = material.read(material.teacher, {"tokens": torch.from_numpy(rows["tokens"])}).softmax(-1).double()
        found += [(p[i, t].numpy(), rows["tokens"][i, t + 1]) for i, t in zip(*np.nonzero(rows["mask"]), strict=True)]

    def error(scale: float) -> float:
        bins: dict[int, list[tuple[float, bool]]] = {}
        for p, token in found:
            head = np.argsort(-p)[:4]
            q = np.exp(p[head] / scale) / np.exp(p[head] / scale).sum()
            bins.setdefault(min(int(q.max() * 10), 9), []).append((q.max(), bool(head[q.argmax()] == token)))
        gaps = [abs(np.mean([ok for _, ok in b]) - np.mean([c for c, _ in b])) * len(b) for b in bins.values()]
        return float(sum(gaps) / len(found))

    assert error(level) <= min(error(scale) for scale in np.arange(1, 11) / 10) + 1e-6


def test_miniplm_keeps_what_the_teacher_prefers_a_token():
    options = find("miniplm").settings({"keep": 0.5})
    teacher, reference, lengths = (
        np.array([-10.0, -4.0, -9.0, -2.0]),
        np.array([-30.0, -4.0, -12.0, -1.0]),
        [10, 2, 1, 1],
    )
    choose = find("miniplm").choose
    assert choose is not None
    assert choose(teacher, reference, np.array(lengths), options).tolist() == [0, 2]
    assert choose(teacher, reference, None, options).tolist() == [0, 2]


def test_labelled_texts_become_questions_for_each_type_and_for_types_that_they_lack():
    options = find("universal_ner").settings({"negatives": 1})
    texts = [Text("Ada met Bo in Rome", {"person": ("Ada", "Bo", "Ada"), "city": ("Rome",), "MISC": ("met",)})]
    texts += [Text("Nile", {"river": ("Nile",)}), Text("nothing"), Pair("a", "b")]
    found = conversations(texts, np.random.default_rng(0), options)
    assert found[2:] == [None, None]
    for chat, wanted in zip(found[:2], ({"person": ["Ada", "Bo"], "city": ["Rome"]}, {"river": ["Nile"]}), strict=True):
        assert isinstance(chat, Chat)
        asked = [turn["content"] for turn in chat.messages[::2]]
        said = [json.loads(turn["content"]) for turn in chat.messages[1::2]]
        told = {kind: spans for kind in wanted for text, spans in zip(asked, said, strict=True) if f'"{kind}"' in text}
        assert {kind: spans for kind, spans in told.items() if spans} == wanted
        assert sum(spans == [] for spans in said) == 1 and len(said) == len(wanted) + 1
        assert asked[0].startswith(("Ada", "Nile")) and not any(text.startswith(("Ada", "Nile")) for text in asked[1:])


def test_types_that_a_text_lacks_are_drawn_as_often_as_they_occur():
    rng, counts = np.random.default_rng(0), {"a": 60, "b": 30, "c": 10, "d": 1000}
    drawn = [absent(["d"], counts, 1, rng)[0] for _ in range(4000)]
    shares = [drawn.count(kind) / 4000 for kind in "abcd"]
    assert shares == pytest.approx([0.6, 0.3, 0.1, 0.0], abs=0.03)
    assert sorted(absent(["d"], counts, 9, rng)) == ["a", "b", "c"] and absent("abcd", counts, 2, rng) == []


def test_mentions_are_scored_letter_for_letter():
    assert parsed(' ["x", "y"]\n') == ["x", "y"] and parsed("no") == parsed('{"a": 1}') == []
    found = strict_scores([{"p": ["a", "b"]}, {"p": ["c"]}], [{"p": ["a", "A"], "q": ["b"]}, {"p": ["c"]}])
    assert found["precision"] == pytest.approx(2 / 4) and found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(4 / 7)


@pytest.mark.parametrize("command", ["distill language", "distill classifier"])
def test_help_says_what_each_method_takes_without_its_options(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        barkour.parse([*command.split(), "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "default: None" not in text
    (names,) = re.findall(r"--method {([^}]*)}", text)
    methods = [find(name.strip(), METHODS + CLASSIFIERS) for name in names.split(",")]
    flags = {option: f" --{option.replace('_', '-')} " for method in methods for option in method.reads}
    for option, flag in flags.items():
        before, _, after = text[text.index(flag) + len(flag) :].partition("; without it ")
        assert not [other for other in flags.values() if other in before], f"{flag} does not say it"
        (said,) = re.findall(r"^[\d.]+(?:, of \w+ [\d.]+)*", after)
        usual, *others = said.split(", of ")
        assert float(usual) == getattr(MethodOptions(), option)
        own = {name: float(value) for name, value in (other.split() for other in others)}
        assert own == {m.name: m.defaults[option] for m in methods if option in m.defaults}
