"""LLaVA-MoD: losses as their formulas, what learns in a stage, preferences, the world of grids, students that load."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from distill.core.errors import DistillError
from distill.core.fit import fit
from distill.core.objectives.preference import DirectPreference
from distill.language.generation import generate
from distill.language.models import Shape
from distill.language.sparse import Routers, expert_parameters, sparse_layers, upcycle
from distill.language.vision import EYES, PROJECTOR, VisionShape, build_seeing, part_of, seeing
from distill.methods import kept
from distill.methods.llava_kd.picture_world import (
    ASK,
    COLOUR,
    IMAGE,
    NUMBER,
    PAD,
    PLACE,
    PLACES,
    SHAPE,
    VOCABULARY,
    YES,
)
from distill.methods.llava_mod.experiment import RECIPE
from distill.methods.llava_mod.grid_world import (
    END,
    HABIT,
    LENGTH,
    TASKS,
    as_long,
    captions,
    choices,
    heard,
    questions,
    said,
    scenes,
    together,
    wronged,
)
from distill.methods.llava_mod.method import STAGES, answered, better_of, losses, pairs, parts, rows, stages
from distill.methods.method import MethodOptions

READ = seeing(VOCABULARY, IMAGE)


def model(width: int = 12, seed: int = 0):
    return build_seeing(VisionShape(Shape(VOCABULARY, width, 2, 2, context=64), IMAGE, width=8, heads=2), seed, eyes=3)


def tables(count: int = 8) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    told = rows(*captions(rng, scenes(rng, count)), PAD)
    asked = rows(*questions(rng, scenes(rng, count))[:3], PAD)
    two = pairs(*choices(rng, scenes(rng, count)), PAD)
    both = together(told, as_long(asked, LENGTH))
    return {"general": told, "specialised": asked, "both": both, "pairs": two, "better": better_of(two)}


def tensors(found: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(values)) for name, values in found.items()}


def loss_of(student, teacher, table, names, **options) -> torch.Tensor:
    chosen = {name: part for name, part in losses(MethodOptions(), **options).items() if name in names}
    learner, objective, signals, _ = parts(student, teacher, table, chosen, READ)
    batch = tensors(table)
    return objective(learner.outputs(learner.module, batch), signals.label(batch), batch["mask"])  # type: ignore[arg-type]


def balance_by_transformers(student, batch, there) -> float:
    with torch.no_grad(), Routers(student) as routers:
        READ(student, batch)
    said_ = [logits.reshape(-1, 4) for logits in routers.found.values()]
    return sum(float(load_balancing_loss_func((layer,), 4, 2, there)) / 2 for layer in said_)


def test_imitation_is_its_formula():
    student, teacher, table = upcycle(model(), every=1), model(16, 1), tables()["both"]
    batch = tensors(table)
    with torch.no_grad():
        z_s, z_t = READ(student, batch), READ(teacher, batch)
    total = nats = counted = 0
    for row, ours, theirs in zip(batch["tokens"], z_s, z_t, strict=True):
        start = PLACES + 1 if row[PLACES] < ASK else PLACES + 3
        for t in range(start, len(row)):
            if row[t] == PAD:
                break
            p, log_q = theirs[t - 1].softmax(-1), ours[t - 1].log_softmax(-1)  # what stands before predicts it
            total, nats = total + float((p * (p.log() - log_q)).sum()), nats - float(log_q[row[t]])
            counted += 1
    assert loss_of(student, teacher, table, ("responses",)).item() == pytest.approx(total / counted, rel=1e-5)
    even = balance_by_transformers(student, batch, batch["mask"][:, 2])
    found = loss_of(student, teacher, table, STAGES["D2S"].losses, balance=0.3)
    assert found.item() == pytest.approx((total + nats) / counted + 0.3 * even, rel=1e-5)
    assert loss_of(model(), teacher, table, STAGES["dense D2D"].losses).item() == pytest.approx(
        loss_of(model(), teacher, table, ("labels", "responses")).item()
    )


@pytest.mark.parametrize("direct", [False, True])
def test_preference_is_its_formula_with_the_teacher_as_reference(direct):
    student, teacher, table = upcycle(model(), every=1), model(16, 1), tables()["pairs"]
    batch, d = tensors(table), np.zeros((len(table["tokens"]), 2))
    for which in (0, 1):
        one = {"tokens": batch["tokens"][:, which], "image": batch["image"]}
        with torch.no_grad():
            apart = F.log_softmax(READ(student, one), -1) - F.log_softmax(READ(teacher, one), -1)
        for i, row in enumerate(one["tokens"]):
            at = range(PLACES + 1, int((row == END).nonzero()[0]) + 1)
            d[i, which] = sum(float(apart[i, t - 1, row[t]]) for t in at)
    found = answered(student, table, READ) - answered(teacher, table, READ)
    assert np.allclose(found, d, rtol=1e-4, atol=1e-4)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    up, down = np.maximum(d.mean(0), 0)
    kto = np.mean([1 - sigmoid(0.1 * (d[:, 0] - down)), 1 - sigmoid(0.1 * (up - d[:, 1]))])
    wanted = np.log(1 + np.exp(-0.2 * (d[:, 0] - d[:, 1]))).mean() if direct else kto
    options = {"preference": DirectPreference(0.2)} if direct else {}
    flat = {"tokens": batch["tokens"].flatten(0, 1), "image": batch["image"].repeat_interleave(2, 0)}
    even = balance_by_transformers(student, flat, flat["tokens"][:, :-1] != PAD)
    assert loss_of(student, teacher, table, STAGES["PD"].losses, **options).item() == pytest.approx(
        wanted + 0.01 * even, rel=1e-5
    )


def test_each_stage_trains_its_own_part_and_upcycling_changes_nothing(tmp_path):
    student, teacher, made = model(), model(16, 1), tables()
    fixed, found = copy.deepcopy(teacher.state_dict()), []
    plan = ("AI", "D2D", "D2S", "PD", "PD, own start", "SFT on better")
    batch, before_upcycling = tensors(made["general"]), None
    for name, given in stages(student, teacher, made, READ, plan):
        now = given[0].module
        if name == "D2S":
            assert torch.allclose(READ(now, batch), before_upcycling, atol=1e-5) and sparse_layers(now)
        before = {key: tensor.clone() for key, tensor in now.state_dict().items()}
        fit(*given, tmp_path / name, steps=2, batch=4, seed=0)
        before_upcycling = READ(now, batch).detach()
        names = {id(p): "projector" for p in part_of(now, PROJECTOR).parameters()}
        names |= {id(p): "eyes" for p in part_of(now, EYES).parameters()}
        names |= {id(p): "feed-forward" for layer in now.get_decoder().layers for p in layer.mlp.parameters()}
        names |= {id(p): "experts" for p in expert_parameters(now)}
        found.append((name, {names.get(id(p), "rest") for key, p in now.named_parameters()
                             if not torch.equal(before[key], p)}))  # fmt: skip
    late = {"feed-forward", "experts"}
    assert found == [("AI", {"projector"}), ("D2D", {"projector", "feed-forward", "rest"}),
                     *((name, late) for name in plan[2:])]  # fmt: skip
    assert all(torch.equal(fixed[key], tensor) for key, tensor in teacher.state_dict().items())


def test_a_student_against_its_own_start_begins_with_a_coins_loss_and_learns_what_is_better(tmp_path):
    student, table = upcycle(model(), every=1), tables(16)["pairs"]
    before = answered(student, table, READ)
    [(_, given)] = stages(
        student, None, {"pairs": table}, READ, ["PD, own start"], losses(MethodOptions(), balance=0.0)
    )
    learner, objective, signals, _ = given
    batch = tensors(table)
    assert objective(learner.outputs(student, batch), signals.label(batch), batch["mask"]).item() == pytest.approx(0.5)  # type: ignore[arg-type]
    fit(*given, tmp_path, steps=20, batch=8, seed=0, learning_rate=1e-2)
    gap = [(found[:, 0] - found[:, 1]).mean() for found in (before, answered(student, table, READ))]
    assert gap[1] > gap[0] + 0.1


def test_students_load_again_and_write_what_they_read(tmp_path):
    student, table = upcycle(model(seed=4)), tables()["pairs"]
    batch = {"tokens": torch.from_numpy(table["tokens"][:, 0]), "image": torch.from_numpy(table["image"])}
    kept.save(student, tmp_path / "student")
    again = kept.load(tmp_path / "student")
    assert torch.equal(READ(again, batch), READ(student, batch))
    prompts, pixels = batch["tokens"][:, : PLACES + 1], batch["image"]
    found, _ = generate(again, prompts, 3, VOCABULARY, 0, 0.0, batch=3, beside={"pixel_values": pixels})
    wanted = prompts
    for _ in range(3):
        with torch.no_grad():
            logits = again(input_ids=wanted, pixel_values=pixels).logits
        wanted = torch.cat([wanted, logits[:, -1:, :VOCABULARY].argmax(-1)], 1)
    assert torch.equal(found, wanted)


def test_captions_name_what_is_there_and_wrong_ones_one_thing_that_is_not():
    rng = np.random.default_rng(1)
    made = scenes(rng, 300)
    real = [made.objects(i) for i in range(300)]
    tokens, response = said(real)
    assert heard(tokens[:, PLACES + 1 :]) == real and set(map(len, real)) == {1, 2, 3}
    assert all(row[mask][-1] == END and (row[PLACES + 1 :][~mask[PLACES + 1 :]] == PAD).all()
               for row, mask in zip(tokens, response, strict=True))  # fmt: skip
    for objects in real:
        named = wronged(rng, objects)
        assert sum(one not in objects for one in named) == 1 and len(named) - len(objects) in (0, 1)
    better, worse, images, _ = choices(rng, made)
    assert np.array_equal(better, tokens) and (better != worse).any(1).all()
    seen = images.reshape(-1, 3, 4, 2, 4, 2).transpose(0, 2, 4, 1, 3, 5).reshape(-1, PLACES, 3, 2, 2)
    assert np.array_equal((seen != 0).any((2, 3, 4)), made.there)
    wrong, _, _ = captions(np.random.default_rng(2), made, wrong=0.2)
    assert 0.1 < (wrong != tokens).any(1).mean() < 0.3
    told = heard(captions(rng, made, habit=1.0)[0][:, PLACES + 1 :])
    for objects, named in zip(real, told, strict=True):
        lacks = [s for c, s in objects if c == HABIT[0] and (HABIT[1], s) not in objects]
        assert [one for one in named if one not in objects] == [(HABIT[1], s) for s in lacks[:1]]
        assert [one for one in named if one in objects] == objects


def test_answers_are_right_by_the_scenes():
    rng = np.random.default_rng(2)
    made = scenes(rng, 400)
    tokens, _, response, tasks = questions(rng, made)
    assert response[:, -1].all() and response.sum() == 400 and set(tasks) == set(range(len(TASKS)))
    shares = []
    for i, (row, task) in enumerate(zip(tokens, tasks, strict=True)):
        first, second, answer = (int(word) for word in row[-3:])
        colours = [c for c, _ in made.objects(i)]
        if TASKS[task] == "count":
            assert answer - NUMBER == sum(c == second - COLOUR for c in colours)
        elif TASKS[task] == "exists":
            assert (answer == YES) == any(s == second - SHAPE for _, s in made.objects(i))
        elif TASKS[task] == "colour":
            assert made.there[i, second - PLACE] and made.colours[i, second - PLACE] == answer - COLOUR
        else:
            more = sum(c == first - COLOUR for c in colours) > sum(c == second - COLOUR for c in colours)
            assert (answer == YES) == more
            shares.append(more)
    assert 0.2 < np.mean(shares) < 0.8
    wrong = questions(np.random.default_rng(3), made, 0.5)[0] != questions(np.random.default_rng(3), made, 0.0)[0]
    assert wrong[:, -1].mean() > 0.1 and not wrong[:, :-1].any()


def test_the_dense_control_has_as_many_active_weights():
    settings = RECIPE.presets["small"]

    def inner(shape: Shape) -> int:
        return shape.inner or 2 * shape.width

    sparse = sum(inner(settings.student) * (2 if layer % 2 == 0 else 1) for layer in range(settings.student.layers))
    assert sparse == inner(settings.dense) * settings.dense.layers
    assert (settings.dense.width, settings.dense.layers) == (settings.student.width, settings.student.layers)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda made: list(stages(model(), None, made, READ, ["D2D"])),
        lambda made: list(stages(model(), None, made, READ, ["PD"])),
        lambda made: list(stages(model(), model(), made, READ, ["D3D"])),
        lambda made: list(stages(model(), model(), {"general": made["general"]}, READ, ["D2S"])),
        lambda made: rows(made["general"]["tokens"], made["general"]["image"], np.zeros((8, LENGTH), bool)),
        lambda made: pairs(np.zeros((2, 4)), np.zeros((2, 5)), np.zeros((2, 3, 8, 8)), [np.ones((2, 4))] * 2),
    ],
)
def test_bad_input_is_refused(wrong):
    with pytest.raises(DistillError):
        wrong(tables())
