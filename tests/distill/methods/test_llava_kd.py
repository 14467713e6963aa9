"""LLaVA-KD: losses as their formulas, gradients, what learns in a stage, text alone, students that load again."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.fit import fit
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.gram import GramMatching
from distill.core.signals import DenseLogits
from distill.language.models import Shape
from distill.language.vision import EYES, PROJECTOR, VisionShape, build_seeing, part_of, seeing, train_only
from distill.methods.kept import load, save
from distill.methods.llava_kd.method import losses, parts, rows, stages
from distill.methods.llava_kd.picture_world import (
    COLOUR,
    IMAGE,
    KINDS,
    NUMBER,
    PLACE,
    PLACES,
    SHAPE,
    VOCABULARY,
    YES,
    captions,
    drawn,
    questions,
)
from distill.methods.method import MethodOptions

READ = seeing(VOCABULARY, IMAGE)


def model(width: int = 12, seed: int = 0):
    return build_seeing(VisionShape(Shape(VOCABULARY, width, 1, 2, context=64), IMAGE, width=8, heads=2), seed, eyes=3)


def table(count: int = 6) -> dict[str, np.ndarray]:
    return rows(*questions(np.random.default_rng(0), count)[:3], IMAGE)


def tensors(found: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(values)) for name, values in found.items()}


def test_the_loss_is_its_formula():
    student, teacher, batch = model(), model(16, 1), tensors(table())
    every = losses(MethodOptions(temperature=1.5), 0.7, 0.3, 0.4)
    learner, objective, signals, _ = parts(student, teacher, table(), every, READ)
    found = objective(learner.outputs(student, batch), signals.label(batch), batch["mask"])  # type: ignore[arg-type]
    with torch.no_grad():
        z_s, z_t = READ(student, batch), READ(teacher, batch)
        seen = batch["tokens"][:, :-1] == IMAGE
        p, q = ((z / 1.5).log_softmax(-1) for z in (z_t, z_s))
        kl = (p.exp() * (p - q)).sum(-1)
        wanted = F.cross_entropy(z_s[:, -1], batch["tokens"][:, -1]) + 0.7 * kl[:, -1].mean() + 0.3 * kl[seen].mean()
        cosines = []
        for ours, theirs, which in zip(z_s, z_t, seen, strict=True):
            r_s, r_t = (y[which] @ y[which].T for y in (ours, theirs))
            cosines.append((r_s * r_t).sum() / (r_s.norm() * r_t.norm()))
        wanted = wanted + 0.4 * (1 - torch.stack(cosines).mean())
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_relations_have_right_gradients_and_never_read_what_does_not_count():
    torch.manual_seed(0)
    logits, other = torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(2, 5, 7, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])
    weights = torch.tensor([[2.0] * 5, [1.0] * 5], dtype=torch.float64)
    loss = GramMatching()

    def of(values: torch.Tensor) -> torch.Tensor:
        return loss(StudentOutput(logits=values), DenseLogits(other), mask, weights)

    assert torch.autograd.gradcheck(of, [logits.clone().requires_grad_()])
    assert of(logits) == pytest.approx(of(torch.where(mask[..., None], logits, torch.nan)).item())
    assert of(3.0 * other).item() == pytest.approx(0.0, abs=1e-12)
    each = [
        loss(StudentOutput(logits=logits[i : i + 1]), DenseLogits(other[i : i + 1]), mask[i : i + 1]) for i in (0, 1)
    ]
    assert of(logits).item() == pytest.approx((2 * each[0].item() + each[1].item()) / 3)
    nothing = torch.zeros_like(mask)
    assert loss(StudentOutput(logits=logits), DenseLogits(other), nothing).item() == 0.0
    with pytest.raises(DistillError):
        loss(StudentOutput(logits=logits), DenseLogits(other[:, :4]))


def test_each_stage_trains_its_own_part_and_the_eyes_stay(tmp_path):
    student, teacher, rng = model(), model(16, 1), np.random.default_rng(1)
    told = rows(*captions(rng, 8), IMAGE)

    def state() -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in student.state_dict().items()}

    before, names = state(), []
    projector = {id(p) for p in part_of(student, PROJECTOR).parameters()}
    eyes = {id(p) for p in part_of(student, EYES).parameters()}
    for name, given in stages(student, teacher, told, table(8), READ):
        fit(*given, tmp_path / name, steps=3, batch=4, seed=0)
        after, changed = state(), set()
        for key, tensor in student.named_parameters():
            if not torch.equal(before[key], after[key]):
                changed.add("projector" if id(tensor) in projector else "eyes" if id(tensor) in eyes else "language")
        names.append((name, changed))
        before = after
    both = {"projector", "language"}
    assert names == [("DPT", {"projector"}), ("SFT", both), ("DFT", both)]


def test_text_alone_has_no_visual_part_and_goes_with_images_in_a_batch():
    student, teacher = model(), model(16, 1)
    found = table(4)
    tokens = found["tokens"].copy()
    tokens[2:][tokens[2:] == IMAGE] = PLACE
    mixed = rows(tokens, found["image"], np.eye(tokens.shape[1], dtype=bool)[[-1] * 4], IMAGE)
    batch = tensors(mixed)
    assert batch["mask"][2:, 2:].sum() == 0
    alone = READ(student, tensors(rows(tokens[2:], found["image"][2:], np.ones_like(tokens[2:], bool), IMAGE)))
    assert torch.allclose(READ(student, batch)[2:], alone, atol=1e-5)
    learner, objective, signals, _ = parts(student, teacher, mixed, losses(MethodOptions()), READ)
    assert objective(learner.outputs(student, batch), signals.label(batch), batch["mask"]).isfinite()  # type: ignore[arg-type]


def test_students_load_again(tmp_path):
    student, batch = model(), tensors(table())
    save(student, tmp_path / "student")
    assert torch.equal(READ(load(tmp_path / "student"), batch), READ(student, batch))


def test_vocabularies_that_were_padded_apart_are_cut_and_bad_input_is_refused():
    wider = build_seeing(VisionShape(Shape(VOCABULARY + 5, 12, 1, 2, context=64), IMAGE, width=8, heads=2), 0, eyes=3)
    assert READ(wider, tensors(table())).shape[-1] == VOCABULARY
    with pytest.raises(DistillError):
        seeing(VOCABULARY + 9, IMAGE)(wider, tensors(table()))
    with pytest.raises(DistillError):
        rows(np.zeros((2, 4), np.int64), np.zeros((2, 3, 8, 8)), np.zeros((2, 4), bool), IMAGE)
    with pytest.raises(DistillError):
        parts(model(), None, table(), losses(MethodOptions()), READ)
    with pytest.raises(DistillError):
        train_only(torch.nn.Linear(2, 2), language=True)


def test_answers_are_right_by_the_pictures():
    tokens, images, response, kinds = questions(np.random.default_rng(2), 400)
    patches = images.reshape(-1, 3, 4, 2, 4, 2).transpose(0, 2, 4, 1, 3, 5).reshape(-1, PLACES, 3, 2, 2)
    assert response[:, -1].all() and response.sum() == len(tokens) and set(kinds) == set(range(len(KINDS)))
    colours = np.sign(patches[:, :, :, 0, 0])  # every shape has its first pixel
    for row, kind, colour, patch in zip(tokens, kinds, colours, patches, strict=True):
        first, second, answer = row[-3:]
        if KINDS[kind] == "equal":
            same = np.array_equal(patch[first - PLACE], patch[second - PLACE])
            assert (answer == YES) == same
        elif KINDS[kind] == "count":
            one = np.sign(drawn(np.full((1, PLACES), second - COLOUR), np.zeros((1, PLACES), int)))[0, :, 0, 0]
            assert answer - NUMBER == (colour == one).all(-1).sum()
        elif KINDS[kind] == "left":
            at = [
                int(
                    np.flatnonzero(
                        (
                            colour
                            == np.sign(drawn(np.full((1, PLACES), word - COLOUR), np.zeros((1, PLACES), int)))[
                                0, :, 0, 0
                            ]
                        ).all(-1)
                    )[0]
                )
                % 4
                for word in (first, second)
            ]
            assert (answer == YES) == (at[0] < at[1])
        else:
            base = COLOUR if KINDS[kind] == "colour" else SHAPE
            given = np.full((1, PLACES), answer - base)
            zero = np.zeros_like(given)
            made = drawn(given, zero) if base == COLOUR else drawn(zero, given)
            if base == COLOUR:
                assert np.array_equal(np.sign(made[0, :, 0, 0]), colour[second - PLACE])
            else:
                assert np.array_equal(made[0, :, :2, :2].any(0), patch[second - PLACE].any(0))


def test_a_row_with_too_few_tokens_for_its_image_is_refused():
    batch = tensors(table())
    batch["tokens"][0, 0] = PLACE
    with pytest.raises(DistillError):
        READ(model(), batch)
