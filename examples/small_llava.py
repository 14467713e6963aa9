"""A small LLaVA that knows colours and places, a smaller one that knows nothing, and rows with images, on the spot.

    python examples/small_llava.py --out small_llava

What `barkour distill vision` makes of them stands in docs/distil_language.md. Nothing is downloaded."""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import LlavaProcessor, PreTrainedTokenizerFast, SiglipImageProcessor

from distill.core.fit import fit
from distill.core.objectives.divergences import CrossEntropy
from distill.core.tables import Epochs
from distill.language.models import Shape
from distill.language.pictured import PicturedEncoder, Pictures, laid_out, read_pictured
from distill.language.seeing import Models
from distill.language.seeing_models import open_processor, open_seeing
from distill.language.text import END, PAD, bpe
from distill.language.vision import VisionShape, build_seeing, train_only
from distill.methods.llava_kd.method import parts, rows

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
PLACES = ("top left", "top right", "bottom left", "bottom right")
ASKED = "which colour is", "which place has a colour like", "nowhere"
WORDS = f"{' '.join(COLOURS)} {' '.join(PLACES)} {' '.join(ASKED)} the user assistant what do you see"


def picture(rng: np.random.Generator, path: Path) -> list[str]:
    """Writes four squares of random colours, and says which."""
    names = [str(name) for name in rng.choice(list(COLOURS), 4)]
    squares = np.array([COLOURS[name] for name in names], np.uint8).reshape(2, 2, 3)
    Image.fromarray(squares.repeat(4, 0).repeat(4, 1)).save(path)
    return names


def question(rng: np.random.Generator, names: list[str]) -> tuple[str, str, str]:
    """What colour is somewhere, or where the same colour is once more; its answer, and a wrong one."""
    at = int(rng.integers(4))
    if rng.random() < 0.5:
        return f"which colour is {PLACES[at]}", names[at], next(name for name in COLOURS if name != names[at])
    like = next((PLACES[i] for i in range(4) if i != at and names[i] == names[at]), "nowhere")
    return f"which place has a colour like {PLACES[at]}", like, PLACES[at]


def write(folder: Path) -> None:
    """Images, captions, questions and, of other images, a test."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for name, first, count in (("captions", 0, 400), ("questions", 400, 400), ("test", 800, 200)):
        lines: list[dict[str, str]] = []
        for i in range(first, first + count):
            names = picture(rng, folder / f"images/{i}.png")
            two = zip(PLACES, names, strict=True)
            said = [("what do you see", " ".join(f"{place} {colour}" for place, colour in two))]
            for row in said if name == "captions" else [question(rng, names) for _ in range(4)]:
                about = zip(("prompt", "answer", "rejected"), row, strict=False)
                lines.append({"image": f"images/{i}.png", **dict(about)})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def save(folder: Path, width: int, layers: int, seed: int) -> None:
    """A model that sees, with random weights, and its processor; all see with the same eyes."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe([WORDS], 400).tokenizer, pad_token=PAD, eos_token=END,
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    shape = Shape(len(tokenizer), width, layers, 4, context=64)
    build_seeing(VisionShape(shape, tokenizer.get_vocab()["<image>"], patch=4), seed, eyes=1).save_pretrained(folder)
    images = SiglipImageProcessor(size={"height": 8, "width": 8})
    LlavaProcessor(images, tokenizer, 4, vision_feature_select_strategy="full").save_pretrained(folder)


def teach(folder: Path, steps: int) -> None:
    """The teacher learns what the rows say."""
    model, processor = open_seeing("teacher", str(folder / "teacher")), open_processor(str(folder / "teacher"))
    pictures = Pictures(processor.whole.image_processor)
    encoder = PicturedEncoder(processor.tokenizer, 64, processor.word, model.config.image_seq_length)
    told = read_pictured([folder / "captions.jsonl", folder / "questions.jsonl"], pictures, processor.word)
    read = Models(None, model, processor, pictures, encoder).read
    laid = laid_out(told.rows, encoder, processor.tokenizer.pad_token_id)
    table = rows(laid.tokens, laid.images, laid.responses, processor.token)
    train_only(model, language=True)
    given = parts(model, None, table, {"labels": (1.0, CrossEntropy())}, read)
    fit(*given, folder / "learning", steps=steps, batch=32, seed=0, learning_rate=2e-3, sampler=Epochs(), keep=False)
    model.save_pretrained(folder / "teacher")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("small_llava"))
    parser.add_argument("--steps", type=int, default=1500, help="that the teacher learns for")
    asked = parser.parse_args()
    write(asked.out)
    save(asked.out / "teacher", 96, 3, 0)
    save(asked.out / "student", 32, 1, 1)
    teach(asked.out, asked.steps)
