"""`barkour distill vision`: models that see and rows with images in, a folder that transformers loads out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from barkour import main
from distill.core.collect import CollectionPlan
from distill.core.errors import DistillError
from distill.language import seeing as command
from distill.language.models import Shape
from distill.language.own_options import VisionOptions
from distill.language.pictured import SEVERAL, STRAY, Pictures
from distill.language.sparse import sparse_layers
from distill.language.text import END, PAD, bpe
from distill.language.vision import VisionShape, build_seeing, part_of
from distill.methods import kept
from sim.errors import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
WORDS = f"{' '.join(COLOURS)} what colour is it user assistant"
PATCHES = 16


def tokens_of(words: str = WORDS, **special: Any) -> PreTrainedTokenizerFast:
    made = bpe([words], 300).tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=PAD, eos_token=END, **special)


IMAGE = len(tokens_of())
"""Id of the token for an image, which is added after the others."""


def save_model(folder: Path, width: int, seed: int, tokenizer: Any = None, patch: int = 2, **about: Any) -> None:
    tokenizer = tokenizer or tokens_of(extra_special_tokens={"image_token": "<image>"})
    language = Shape(len(tokenizer), width, 2, 2, context=64)
    shape = VisionShape(language, tokenizer.get_vocab()["<image>"], patch=patch, width=8, heads=2)
    model = build_seeing(shape, seed, eyes=3)
    model.config.image_seq_length = 576  # as in folders that were made before it was no longer read
    model.save_pretrained(folder)
    images: Any = SiglipImageProcessorPil(size={"height": 8, "width": 8}, **about)
    LlavaProcessor(images, tokenizer, patch_size=patch, vision_feature_select_strategy="full").save_pretrained(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that see, a language model, and rows about images of one colour."""
    folder = tmp_path_factory.mktemp("home")
    save_model(folder / "teacher", 24, 0)
    save_model(folder / "small", 16, 1)
    VisionShape(Shape(IMAGE + 1, 16, 1, 2, context=64), IMAGE, width=8, heads=2).config().save_pretrained(
        folder / "config"
    )
    words = tokens_of()
    torch.manual_seed(2)
    AutoModelForCausalLM.from_config(Shape(len(words), 16, 2, 2, context=64).config()).save_pretrained(folder / "words")
    words.save_pretrained(folder / "words")
    (folder / "images").mkdir()
    rows, told = [], []
    rng = np.random.default_rng(0)
    for i in range(24):
        name, colour = list(COLOURS.items())[i % 3]
        pixels = np.clip(np.array(colour) + rng.integers(-20, 20, (11, 13, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{i}.png")
        rows.append({"image": f"images/{i}.png", "prompt": "what colour is it", "answer": name})
        told.append({"image": f"images/{i}.png", "prompt": "", "answer": f"it is {name}"})
    parts = [{"type": "image", "image": "images/0.png"}, {"type": "text", "text": "what colour is it"}]
    chat = [{"role": "user", "content": parts}, {"role": "assistant", "content": "red"}]
    more = [
        {"messages": chat}, {"prompt": "what is it", "answer": "it is"}, {**rows[0], "answer": None},
        {**rows[0], "messages": [*chat, *chat]}, {"prompt": "<image>", "answer": "red"},
        {**rows[1], "prompt": "<image>\nwhat colour is it"},
    ]  # fmt: skip
    for name, lines in (("rows", rows + more), ("captions", told), ("broken", [{**rows[0], "image": "half.png"}])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pairs = [{**row, "rejected": "blue" if row["answer"] != "blue" else "it is red"} for row in rows]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in pairs))
    (folder / "half.png").write_bytes((folder / "images/0.png").read_bytes()[:90])
    (folder / "gone.jsonl").write_text(json.dumps({**rows[0], "image": "gone.png"}))
    return folder


def options(home: Path, out: Path, **changed: Any) -> VisionOptions:
    given: dict[str, Any] = {
        "teacher": str(home / "teacher"), "student": str(home / "small"), "data": (home / "rows.jsonl",),
        "captions": (home / "captions.jsonl",), "out": out, "length": 40, "steps": 4, "batch": 8, "rounds": 2,
        "warmup": 1, "learning_rate": 0.01, "projector_rate": 0.02,
    }  # fmt: skip
    return VisionOptions(**{**given, **changed})


def test_a_student_learns_in_three_stages_and_the_folder_says_the_same_with_its_processor(home, tmp_path):
    out = tmp_path / "out"
    asked = options(home, out, steps=30)
    found = command.distil(asked)
    assert found["stages"] == ["DPT", "SFT", "DFT"] and found.steps == 90
    assert found.data["dropped"] == {"a field is empty or missing": 1, SEVERAL: 1, STRAY: 1}
    assert found.data["image_tokens"] == PATCHES and found.data["images"] == 24
    assert found.figures is not None and found.figures["end"]["nats"] < found.figures["start"]["nats"] - 0.5
    student: Any = AutoModelForImageTextToText.from_pretrained(out)
    processor: Any = AutoProcessor.from_pretrained(out)
    assert type(student).__name__ == "LlavaForConditionalGeneration"
    task = command.prepare(asked)
    kept = {name: tensor.clone() for name, tensor in task.module.state_dict().items()}
    task.module.load_state_dict(student.state_dict())
    assert task.figures() == pytest.approx(found.figures["end"], abs=1e-6)
    eyes = [name for name in kept if "vision_tower" in name]
    assert eyes and all(torch.equal(kept[name], student.state_dict()[name]) for name in eyes)
    image = Image.open(home / "images/1.png")
    parts = [{"type": "image"}, {"type": "text", "text": "what colour is it"}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    given = processor(text=text, images=image, return_tensors="pt")
    written = student.generate(**given, max_new_tokens=2, do_sample=False)
    assert (given["input_ids"] == IMAGE).sum() == PATCHES and written.shape[1] > given["input_ids"].shape[1]
    card = (out / "README.md").read_text()
    assert "LLaVA-KD" in card and all(digest in card for digest in found.data["files"].values())
    assert main(["distill", "card", str(out)]) == 0 and (out / "README.md").read_text() == card


def test_what_is_learned_is_the_formula_at_the_places_of_image_and_answer(home, tmp_path):
    task = command.prepare(options(home, tmp_path / "out", responses=0.7, visual=0.3, relation=0.4, temperature=1.5))
    stages = {stage.name: stage for stage in task.stages}
    student, objective, signals, domains = stages["DFT"].parts
    rows: Any = domains[0].collect(None, CollectionPlan(0, 1.0, 100, 0)).fields  # type: ignore[arg-type]
    places = np.arange(5)
    batch = {name: torch.from_numpy(np.asarray(rows[name][places])) for name in ("tokens", "target", "image", "mask")}
    found = objective(student.outputs(student.module, batch), signals.label(batch), batch["mask"])  # type: ignore[arg-type]
    teacher, own = (AutoModelForImageTextToText.from_pretrained(home / name).eval() for name in ("teacher", "small"))
    processor: Any = AutoProcessor.from_pretrained(home / "teacher")
    nats, kls, seen_kls, cosines = [], [], [], []
    for i, line in enumerate(_trained_rows(home, batch, processor)):
        text = f"user:\n<image>\n{line['prompt']}\nassistant:\n{line['answer']}{END}\n"
        both = processor(text=text, images=Image.open(home / line["image"]), return_tensors="pt")
        ids = both["input_ids"][0]
        assert ids.tolist() == batch["tokens"][i, : len(ids)].tolist()
        answer = processor.tokenizer(f"{line['answer']}{END}\n", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            z_t, z_s = (model(**both).logits[0, :-1] for model in (teacher, own))
        begin = len(ids) - 1 - len(answer)  # logits say what comes next
        due = torch.arange(begin, begin + len(answer))
        assert ids[due + 1].tolist() == answer
        p, q = ((z / 1.5).log_softmax(-1) for z in (z_t, z_s))
        kl, at = (p.exp() * (p - q)).sum(-1), ids[:-1] == IMAGE
        nats.append(F.cross_entropy(z_s[due], ids[due + 1], reduction="none"))
        kls.append(kl[due])
        seen_kls.append(kl[at])
        r_s, r_t = (z[at] @ z[at].T for z in (z_s, z_t))
        cosines.append((r_s * r_t).sum() / (r_s.norm() * r_t.norm()))
    wanted = torch.cat(nats).mean() + 0.7 * torch.cat(kls).mean() + 0.3 * torch.cat(seen_kls).mean()
    wanted = wanted + 0.4 * (1 - torch.stack(cosines).mean())
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def _trained_rows(home: Path, batch: dict[str, torch.Tensor], processor: Any) -> list[dict[str, str]]:
    """The lines of the file that a batch is of, found by their images and words."""
    lines = [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()][:24]
    found = []
    for i, number in enumerate(batch["image"].tolist()):
        said = processor.tokenizer.decode(batch["tokens"][i])
        same = [line for line in lines if f"/{number}.png" in line["image"] and line["answer"] in said]
        found.append(same[0])
    return found


def test_a_run_that_was_stopped_in_any_stage_goes_on_bit_for_bit(home, tmp_path, monkeypatch):
    whole = command.distil(options(home, tmp_path / "whole"))
    measure, calls = command.measured, []

    def stopping(*arguments: Any) -> dict[str, float]:
        calls.append(0)
        if len(calls) in (3, 5, 8):  # the start is measured first, then each of two rounds of three stages
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(command, "measured", stopping)
    out, again = tmp_path / "cut", None
    for resume in (False, True, True, True):
        again = command.distil(options(home, out, resume=resume))
    assert again is not None and not again["interrupted"] and len(calls) > 8
    assert again["figures"] == whole["figures"] and again["measured"] == whole["measured"]
    states = [AutoModelForImageTextToText.from_pretrained(path).state_dict() for path in (tmp_path / "whole", out)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_a_student_is_made_of_a_language_model_or_a_config_with_the_teachers_eyes(home, tmp_path):
    teacher = AutoModelForImageTextToText.from_pretrained(home / "teacher")
    words: Any = AutoModelForCausalLM.from_pretrained(home / "words")
    for changed in ({"student": "", "language_model": str(home / "words")}, {"student": str(home / "config")}):
        student: Any = command.prepare(options(home, tmp_path / "out", **changed)).module
        for name, tensor in part_of(student, "vision_tower").state_dict().items():
            assert torch.equal(tensor, part_of(teacher, "vision_tower").state_dict()[name])
        if "language_model" in changed:
            ids = torch.arange(5, 25)[None]
            assert student.get_input_embeddings().num_embeddings == IMAGE + 1
            said, wanted = student(input_ids=ids).logits[..., :IMAGE], words(input_ids=ids).logits
            assert torch.allclose(said, wanted, atol=1e-6)


def test_stages_that_need_no_captions_go_without(home, tmp_path):
    found = command.distil(options(home, tmp_path / "out", captions=(), stages=("SFT", "DFT"), steps=2))
    assert found["stages"] == ["SFT", "DFT"] and found.steps == 4


def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(home, tmp_path):
    save_model(tmp_path / "other", 16, 1, tokens_of("other words", extra_special_tokens={"image_token": "<image>"}))
    save_model(tmp_path / "coarse", 16, 1, patch=4)
    save_model(tmp_path / "dim", 16, 1, image_mean=[0.1, 0.1, 0.1])
    save_model(tmp_path / "blind", 16, 1)
    tokens_of().save_pretrained(tmp_path / "blind")
    processor = json.loads((tmp_path / "coarse" / "processor_config.json").read_text())
    save_model(tmp_path / "lies", 16, 1)
    (tmp_path / "lies" / "processor_config.json").write_text(json.dumps(processor))
    cases = [
        ({"teacher": ""}, "--teacher"), ({"student": ""}, "--student"), ({"teacher": str(home / "gone")}, "gone"),
        ({"teacher": str(home / "words")}, "no vision tower"), ({"student": str(home / "words")}, "no vision tower"),
        ({"data": (home / "gone.jsonl",)}, "gone.png does not exist"),
        ({"data": (home / "broken.jsonl",)}, "half.png cannot be read"),
        ({"captions": ()}, "--captions"), ({"length": 17}, "16 tokens"), ({"length": 65}, "64 at most"),
        ({"student": str(tmp_path / "other")}, "different tokenizers"),
        ({"student": str(tmp_path / "coarse")}, "4 tokens of an image, and the processor writes 16"),
        ({"student": str(tmp_path / "dim")}, "image_mean"),
        ({"teacher": str(tmp_path / "blind")}, "no token for an image"),
        ({"teacher": str(tmp_path / "lies")}, "makes 16 tokens of an image, and the processor writes 4"),
        ({"tokenizer": str(home / "words")}, "no processor"),
    ]  # fmt: skip
    for changed, about in cases:
        with pytest.raises(InputError, match=about) as raised:
            command.distil(options(home, tmp_path / "out", **changed))
        assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_the_front_door_checks_and_writes_nothing(home, tmp_path, capsys):
    line = f"distill vision --teacher {home / 'teacher'} --student {home / 'config'} --data {home / 'rows.jsonl'}"
    line += f" --captions {home / 'captions.jsonl'} --length 40 --out {tmp_path / 'out'} --dry-run --json"
    assert main(line.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "llava_kd" and found["data"]["held_out"] > 1 and not (tmp_path / "out").exists()
    for more in ("--steps 3 --epochs 2", "--stages DPT DPT", "--language-model x"):
        assert main([*line.split(), *more.split()]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def sparse(home: Path, out: Path, **changed: Any) -> VisionOptions:
    given: dict[str, Any] = {"method": "llava_mod", "data": (home / "pairs.jsonl",), "preference_rate": 0.005}
    return options(home, out, **{**given, **changed})


def test_a_student_with_experts_learns_to_prefer_and_its_folder_is_read_by_those_who_know_experts(home, tmp_path):
    out = tmp_path / "out"
    found = command.distil(sparse(home, out, steps=30, beta=0.02))
    assert found["stages"] == ["AI", "D2D", "D2S", "PD"] and found.data["pairs"] == 24
    start, end = found.figures["start"], found.figures["end"]  # type: ignore[index]
    assert end["nats"] < start["nats"] - 0.5 and end["preferred"] > max(start["preferred"], 0.9)
    assert found["beside"]["experts"]["distance"] > 0 and found["beside"]["before PD"]["worse answers"] != 0
    student: Any = AutoModelForImageTextToText.from_pretrained(out)
    assert type(student).__name__ == "SparseLlavaForConditionalGeneration"
    layers = sparse_layers(student)
    assert len(layers) == 1 and [len(layer.experts) for layer in layers.values()] == [4]
    assert sum(p.numel() for p in student.parameters()) == found.parameters["student"]
    task = command.prepare(sparse(home, tmp_path / "again", student=str(out)))
    assert task.figures() == pytest.approx(end, abs=1e-6), "with all of its weights"
    said = subprocess.run(
        [sys.executable, "-c", "from transformers import AutoModelForImageTextToText as A; import sys; "
         "A.from_pretrained(sys.argv[1])", str(out)], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode and "sparse_llava" in said.stderr, "nobody reads it without its experts"
    assert isinstance(kept.load(out), type(student))
    card = (out / "README.md").read_text()
    assert "LLaVA-MoD" in card and main(["distill", "card", str(out)]) == 0 and (out / "README.md").read_text() == card


@pytest.mark.parametrize("preference", ["kto", "dpo"])
def test_preferences_are_their_formula_against_the_teacher(home, tmp_path, preference):
    task = command.prepare(sparse(home, tmp_path / "out", stages=("PD",), captions=(), preference=preference, beta=0.3))
    student, objective, signals, domains = next(iter(task.stages)).parts
    rows: Any = domains[0].collect(None, CollectionPlan(0, 1.0, 100, 0)).fields  # type: ignore[arg-type]
    batch = {n: torch.from_numpy(np.asarray(rows[n][:6])) for n in ("tokens", "target", "image", "mask")}
    found = objective(student.outputs(student.module, batch), signals.label(batch), batch["mask"])  # type: ignore[arg-type]
    models = [AutoModelForImageTextToText.from_pretrained(home / name).eval() for name in ("small", "teacher")]
    processor: Any = AutoProcessor.from_pretrained(home / "teacher")
    lines = [json.loads(line) for line in (home / "pairs.jsonl").read_text().splitlines()]
    d = torch.zeros(6, 2)
    for i, number in enumerate(batch["image"].tolist()):
        line = next(line for line in lines if f"/{number}.png" in line["image"])
        for which, answer in enumerate((line["answer"], line["rejected"])):
            text = f"user:\n<image>\n{line['prompt']}\nassistant:\n{answer}{END}\n"
            given = processor(text=text, images=Image.open(home / line["image"]), return_tensors="pt")
            ids, due = given["input_ids"][0], len(processor.tokenizer(f"{answer}{END}\n")["input_ids"])
            with torch.no_grad():
                own, theirs = (model(**given).logits[0, -due - 1 : -1].log_softmax(-1) for model in models)
            d[i, which] = (own - theirs).gather(-1, ids[-due:, None]).sum()
    up, down = d.mean(0).clamp(min=0)
    kto = torch.cat([1 - torch.sigmoid(0.3 * (d[:, 0] - down)), 1 - torch.sigmoid(0.3 * (up - d[:, 1]))]).mean()
    wanted = kto if preference == "kto" else -F.logsigmoid(0.3 * (d[:, 0] - d[:, 1])).mean()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_a_run_that_grows_experts_goes_on_bit_for_bit(home, tmp_path, monkeypatch):
    whole = command.distil(sparse(home, tmp_path / "whole"))
    measure, calls = command.measured, []

    def stopping(*arguments: Any) -> dict[str, float]:
        calls.append(0)
        if len(calls) in (5, 8, 11):  # in D2D, D2S and PD
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(command, "measured", stopping)
    for resume in (False, True, True, True):
        again = command.distil(sparse(home, tmp_path / "cut", resume=resume))
    assert not again["interrupted"] and again["figures"] == whole["figures"] and len(calls) > 11
    states = [kept.load(tmp_path / name).state_dict() for name in ("whole", "cut")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_all_but_the_eyes_learns_where_that_is_asked(home, tmp_path):
    for name in ("part", "all"):
        asked = sparse(home, tmp_path / name, stages=("D2S",), captions=(), learn_all=name == "all", steps=2)
        before = AutoModelForImageTextToText.from_pretrained(home / "small").state_dict()
        command.distil(asked)
        after = kept.load(tmp_path / name).state_dict()
        moved = {key for key, tensor in before.items() if key in after and not torch.equal(tensor, after[key])}
        assert not any("vision_tower" in key for key in moved)
        assert any("self_attn" in key for key in moved) == (name == "all")
        assert any(".mlp." in key for key in moved), "of the layer without experts"


def test_what_experts_and_preferences_lack_is_one_sentence(home, tmp_path, capsys):
    cases = [
        ({"data": (home / "rows.jsonl",)}, "--stages AI D2D D2S"), ({"stages": ("DPT",)}, "not DPT"),
        ({"batch": 1}, "--batch 2"), ({"captions": ()}, "--stages D2S PD"),
    ]  # fmt: skip
    for changed, about in cases:
        with pytest.raises(InputError, match=about) as raised:
            command.distil(sparse(home, tmp_path / "out", **changed))
        assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()
    for more in ("--method llava_mod --visual 2", "--experts 8", "--learn-all", "--method llava_mod --top-k 5"):
        assert main(["distill", "vision", "--dry-run", *more.split()]) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1 and more.split()[2 if "--method" in more else 0] in said


def test_a_plan_times_every_stage_and_writes_nothing(home, tmp_path, capsys):
    line = f"distill vision --teacher {home / 'teacher'} --student {home / 'small'} --data {home / 'rows.jsonl'}"
    line += f" --captions {home / 'captions.jsonl'} --length 40 --steps 50 --out {tmp_path / 'out'} --plan --json"
    assert main(line.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["seconds"]) == {"DPT", "SFT", "DFT"} and found["steps"] == 150 and found["peak_gb"] > 0
    assert found["training_gb"] == pytest.approx(16e-9 * found["parameters"]["student"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["pipe", "device", "folder", "empty", "bomb", "PostScript"])
def test_what_is_no_image_is_refused_at_once_and_without_other_lines(how, tmp_path, monkeypatch, recwarn, spoil):
    path = tmp_path / "image.png"
    if how == "bomb":  # between the size of which Pillow warns and the one that it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
        Image.new("RGB", (10, 10)).save(path)
    elif how != "PostScript":
        spoil(path, how)
    else:
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n")
    pictures = Pictures(None)
    with pytest.raises(DistillError, match=r"image\.png") as error:
        pictures.prepared(pictures.add(path))
    assert "\n" not in str(error.value) and not recwarn.list
    assert "Ghostscript" not in str(error.value)


def test_a_finished_student_is_asked_about_other_rows(home, tmp_path, capsys):
    out = tmp_path / "out"
    found = command.distil(options(home, out, steps=2))
    rows = tmp_path / "more.jsonl"
    picture = {"image": str(home / "images/1.png"), "prompt": "what colour is it", "answer": "green"}
    rows.write_text("".join(json.dumps(each) + "\n" for each in (picture, picture, {**picture, "answer": ""})))
    assert main(["distill", "evaluate", str(out), str(rows), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["figures"]
    one = told[str(rows)]
    assert one["rows"] == 2 and {"divergence", "right", "the teacher's right"} < set(one)
    student, teacher = (AutoModelForImageTextToText.from_pretrained(path) for path in (out, home / "teacher"))
    given = AutoProcessor.from_pretrained(out)(
        text=f"user:\n<image>\nwhat colour is it\nassistant:\ngreen{END}\n",
        images=Image.open(home / "images/1.png"), return_tensors="pt",
    )  # fmt: skip
    ids = given["input_ids"][0]
    due = len(AutoProcessor.from_pretrained(out).tokenizer(f"green{END}\n")["input_ids"])
    for name, model in (("nats", student), ("the teacher's nats", teacher)):
        with torch.no_grad():
            logits: Any = model(**given).logits[0]
        nats = F.cross_entropy(logits[-due - 1 : -1], ids[-due:])
        assert one[name] == pytest.approx(nats.item(), rel=1e-5)
    assert f"on {rows}" in (out / "README.md").read_text()
    assert found.figures is not None and json.loads((out / "summary.json").read_text())["measured_later"] == told
    assert main(["distill", "evaluate", str(out), str(tmp_path / "gone.jsonl")]) == 2
    for name, changed in (
        ("processor_config.json", {"patch_size": 0}), ("config.json", {"image_token_id": "a"}),
        ("config.json", {"image_token_id": 3}),
    ):  # fmt: skip
        text = (out / name).read_text()
        (out / name).write_text(json.dumps({**json.loads(text), **changed}))
        assert main(["distill", "evaluate", str(out), str(rows)]) == 2, changed
        (out / name).write_text(text)
