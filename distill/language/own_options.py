"""What `barkour distill tagger` and `encoder` are asked for. Light to import: shown without PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from distill.language.options import Rate, Share
from sim.errors import InputError
from sim.options import Options, Range, Seed


@dataclass(frozen=True, kw_only=True)
class TrainedOptions(Options):
    """How a student is trained."""

    student: str = ""
    """folder or published name of an encoder, or a config for random weights"""
    tokenizer: str | None = None
    """folder or published name, where the model comes without one"""
    data: tuple[Path, ...] = ()
    """files or folders: CSV, JSONL, JSON, Parquet, plain text"""
    out: Path
    """folder for the student and for its run"""
    resume: bool = False
    """continue the run in --out"""
    dry_run: bool = False
    """read and check everything, train nothing, write nothing"""
    seed: Seed = 0
    """of random weights, held-out rows and batches"""
    epochs: Annotated[float, Range(0, 1000, above=True)] = 3.0
    """passes over the data"""
    steps: Annotated[int, Range(0, 10**7)] = 0
    """optimiser steps in place of --epochs; 0: as the epochs say"""
    batch: Annotated[int, Range(1, 2**16)] = 32
    """rows in a batch"""
    length: Annotated[int, Range(4, 2**16)] = 128
    """tokens of a row at most"""
    rounds: Annotated[int, Range(1, 1000)] = 8
    """times that the student is measured on held-out rows"""
    held_out: Annotated[float, Range(0, 0.9, above=True)] = 0.1
    """share of the rows that is never trained on, one at least"""
    learning_rate: Rate = 5e-5
    """largest, after the warm-up; it falls to a tenth along a cosine"""
    warmup: Annotated[int, Range(0, 10**7)] = 20
    """optimiser steps in which the learning rate rises"""
    weight_decay: Share = 0.01
    """of AdamW"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """of the arithmetic in training: float32, or mixed; weights stay in float32"""
    checkpoint_minutes: Annotated[float, Range(0, 24 * 60)] = 3.0
    """minutes between checkpoints: the most that an interruption can lose"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps:
            self.refuse(("epochs",), "beside --steps")


@dataclass(frozen=True, kw_only=True)
class TaggerOptions(TrainedOptions):
    """Distil a labelling model's answers into a small tagger, which finds what each mention in a text is said to do.

    Rows have a text, its mentions (a list, such as the drugs that it names) and an answer: the list of objects that a
    strong model was asked for, as it wrote it. The method is ade_extraction.
    """

    out: Path = Path("runs/tagger")
    """folder for the student, as distill.language.tagger loads it, and for its run"""
    test: Path | None = None
    """rows of the same form, never used but for the figures at the end; without it those are of the held-out rows"""
    about: str = "drug"
    """field of an answer's objects that names the mention"""
    finds: str = "event"
    """field of what was found for it"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.about == self.finds:
            raise InputError(f"--about and --finds are both {self.about}")


@dataclass(frozen=True, kw_only=True)
class EncoderOptions(TrainedOptions):
    """Distil a BERT-like masked language model into a smaller encoder of the best size within limits.

    Students of many sizes learn together from plain text, and the one that keeps most of the teacher's relations is
    taken as it is. The method is autodistil.
    """

    out: Path = Path("runs/encoder")
    """folder for the student, as transformers loads it after distill.language.supernet, and for its run"""
    teacher: str = ""
    """folder or published name of a BERT with its masked-language-model head; the student is cut out of it"""
    space: Literal["tiny", "small", "base"] = "small"
    """sizes to choose among, the paper's for BERT-base: widths of 128 to 224, 256 to 352 or 544 to 640"""
    layers: tuple[Annotated[int, Range(1, 1000)], ...] = ()
    """numbers of layers in place of the space's"""
    widths: tuple[Annotated[int, Range(1, 2**16)], ...] = ()
    """widths in place of the space's"""
    ratios: tuple[Annotated[float, Range(0, 100, above=True)], ...] = ()
    """widths of feed-forward parts over the model's, in place of the space's"""
    heads: tuple[Annotated[int, Range(1, 1000)], ...] = ()
    """numbers of attention heads in place of the space's"""
    most_flops: Annotated[float, Range(0, 1, above=True)] = 0.5
    """share of the teacher's multiplications that the student may take"""
    most_parameters: Annotated[int, Range(0, 10**12)] = 0
    """parameters that it may have; 0: any number"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse(("student",), "with the encoder: it is cut out of --teacher")
