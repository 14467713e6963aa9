"""What `barkour distill tagger` and commands like it are asked for. Light to import: shown without PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from distill.language.trained_options import Rate, RunOptions, Share, TrainedOptions
from sim.errors import InputError
from sim.options import Range, Seed


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
class CompressorOptions(TrainedOptions):
    """Distil demonstrations into a few vectors that a frozen language model reads in their place.

    Rows have demonstrations of a task, a prompt and its completion; a smaller language model learns to turn the first
    into vectors, for tasks that it has not seen too. The method is mend.
    """

    teacher: str = ""
    """folder or published name of the causal model that stays frozen and reads the vectors"""
    student: str = ""
    """folder or published name of a language model with the teacher's tokens that becomes the compressor, or a config
    for random weights"""
    data: tuple[Path, ...] = ()
    """files or folders of rows with demonstrations (a text, or a list of them), a prompt and a completion"""
    general: tuple[Path, ...] = ()
    """files or folders of plain text for a first stage of as many epochs or steps: a piece's beginning stands for
    demonstrations, its end for a query; none: no first stage"""
    out: Path = Path("runs/compressor")
    """folder for the student, as transformers loads it after distill.methods.mend.method, and for its run"""
    vectors: Annotated[int, Range(1, 2**16)] = 100
    """that stand for the demonstrations, however long these are"""
    shown: Annotated[int, Range(1, 2**16)] = 896
    """tokens of the demonstrations at most; rows with more are dropped and counted"""
    weight: Annotated[float, Range(0, 1000)] = 1.0
    """of the divergence from what the frozen model says after the demonstrations, beside the answers; of tasks"""
    temperature: Annotated[float, Range(0, 100, above=True)] = 1.0
    """both distributions' logits are divided by it"""


@dataclass(frozen=True, kw_only=True)
class StrategiesOptions(RunOptions):
    """Teach a chat model that stays as it is by a library of strategies, which a stronger model writes in words.

    The student talks to customers that the judge plays. Where its answer is worse than the teacher's, the teacher
    writes a strategy, which is kept where it helps. The method is strategy_teaching.
    """

    student: str = ""
    """folder or published name of a causal model; no weight of it changes"""
    tokenizer: str | None = None
    """folder or published name, where the student comes without one"""
    data: tuple[Path, ...] = ()
    """files or folders of rows with a text: who a customer is and what they want"""
    out: Path = Path("runs/strategies")
    """folder for library.jsonl and the student beside it, as transformers loads it, and for the run"""
    seed: Seed = 0
    """of which personas are held out"""
    teacher: str = ""
    """folder or published name of a causal model, or what the server at --teacher-url calls it"""
    teacher_url: str | None = None
    """address of an OpenAI-compatible server that the teacher answers at"""
    judge: str = ""
    """as --teacher, better of another family: it compares answers, and plays the customers"""
    judge_url: str | None = None
    """as --teacher-url"""
    key: str | None = None
    """environment variable that holds the servers' key"""
    library: Path | None = None
    """library.jsonl to go on with, such as one that people have read and corrected"""
    policy: str = "You are the service agent. Answer the customer briefly and politely."
    """what the student and the teacher are told before every dialogue"""
    held_out: Annotated[float, Range(0, 0.9, above=True)] = 0.2
    """share of the personas that only the figures are of, one at least"""
    calls: Annotated[int, Range(3, 10**7)] = 2500
    """of the teacher, at most, while strategies are written"""
    tries: Annotated[int, Range(1, 100)] = 3
    """strategies that are written at one turn of a dialogue, at most"""
    found: Annotated[int, Range(1, 100)] = 3
    """scenarios whose strategies the student is given at a turn"""
    novelty: Share = 0.2
    """turns that are less new than that to the library are looked at no more than once in a pass"""
    passes: Annotated[int, Range(1, 1000)] = 10
    """times that all dialogues are held anew, at most"""
    turns: Annotated[int, Range(1, 100)] = 4
    """of the customer, in each dialogue"""
    new_tokens: Annotated[int, Range(1, 2**16)] = 128
    """of an answer, at most"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_url is None and self.judge_url is None:
            self.refuse(("key",), "without --teacher-url or --judge-url")
        for role, url in (("teacher", self.teacher_url), ("judge", self.judge_url)):
            if url is not None and not url.startswith(("http://", "https://")):
                raise InputError(f"--{role}-url must be an address such as http://HOST:8000/v1, got {url!r}")
        if self.calls < self.tries + 2:
            raise InputError(f"--calls {self.calls} are too few for one turn, which takes up to {self.tries + 2}")


@dataclass(frozen=True, kw_only=True)
class VisionOptions(TrainedOptions):
    """Distil a vision-language model, such as a LLaVA, into a smaller one that transformers loads.

    Rows have an image (a file), a prompt and an answer, or messages with an image among their parts, and for
    preferences a rejected answer.
    """

    teacher: str = ""
    """folder or published name of a model with a vision tower, a projector and a language model, and its processor"""
    student: str = ""
    """the same of a model with the teacher's tokens; or a config for random weights, with the teacher's vision tower"""
    language_model: str = ""
    """folder or published name of a causal model that becomes the student, in place of --student: it is given the
    teacher's vision tower and a new projector"""
    tokenizer: str | None = None
    """folder or published name of a processor, where the teacher comes without one"""
    data: tuple[Path, ...] = ()
    """files or folders of rows that instruct: CSV, JSONL, JSON, Parquet"""
    captions: tuple[Path, ...] = ()
    """the same of rows that describe their images, for the stages PT and DPT, or AI and D2D"""
    out: Path = Path("runs/vision")
    """folder for the student and its processor, as transformers loads them, and for its run"""
    method: Literal["llava_kd", "llava_mod"] = "llava_kd"
    """what is learned from: the teacher's distribution at answers and images (llava_kd), or at answers, then by a
    student with experts, then which of two answers is better (llava_mod)"""
    stages: tuple[Literal["PT", "DPT", "SFT", "DFT", "AI", "D2D", "D2S", "PD"], ...] = ()
    """in place of the method's own. llava_kd: PT, DPT (projector), SFT, DFT (all but the vision tower), with D
    distilled. llava_mod: AI (projector), D2D (all but the vision tower), D2S (experts), PD (experts, preferences)"""
    length: Annotated[int, Range(4, 2**16)] = 1024
    """tokens of a row at most, those of the image among them"""
    learning_rate: Rate = 2e-5
    """largest, after the warm-up; it falls to a tenth along a cosine"""
    projector_rate: Rate = 1e-3
    """the same where the projector alone learns"""
    preference_rate: Rate = 2e-6
    """llava_mod: the same where preferences are learned"""
    responses: Annotated[float, Range(0, 1000)] = 1.0
    """llava_kd: weight of the divergence from the teacher where a response is due"""
    visual: Annotated[float, Range(0, 1000)] = 1.0
    """llava_kd: weight of the divergence at the image's tokens"""
    relation: Annotated[float, Range(0, 1000)] = 0.5
    """llava_kd: weight of how the outputs at the image's tokens lie to each other"""
    temperature: Annotated[float, Range(0, 100, above=True)] = 1.0
    """both models' logits are divided by it"""
    experts: Annotated[int, Range(2, 1024)] = 4
    """llava_mod: that take the place of a feed-forward part of the language model, each a copy of it at first"""
    top_k: Annotated[int, Range(1, 1024)] = 2
    """llava_mod: experts that each token goes to"""
    capacity: Annotated[float, Range(0, 1000)] = 1.5
    """llava_mod: times its even share of a batch that an expert takes in training, the rest is dropped; 0: no bound"""
    sparse_every: Annotated[int, Range(1, 1000)] = 2
    """llava_mod: the first, and then every so-manieth, layer has experts"""
    learn_all: bool = False
    """llava_mod: all but the vision tower learns in every stage, as a student of random weights needs"""
    balance: Annotated[float, Range(0, 1000)] = 0.01
    """llava_mod: weight of how evenly tokens go to experts"""
    preference: Literal["kto", "dpo"] = "kto"
    """llava_mod: the loss of pairs, measured against the teacher"""
    beta: Annotated[float, Range(0, 1000, above=True)] = 0.1
    """llava_mod: how fast a gain against the teacher counts"""
    plan: bool = False
    """train a few steps of each stage, say what the run would take, write nothing"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dry_run:
            self.refuse(("plan",), "with --dry-run")
        if self.student and self.language_model:
            raise InputError("--language-model is in place of --student: give one of them")
        if len(set(self.stages)) < len(self.stages):
            raise InputError(f"--stages names one twice: {' '.join(self.stages)}")

    def refuse_unused(self) -> None:
        """Raises `InputError` for options that the method would ignore, or that do not go together."""
        sparse = "experts", "top_k", "capacity", "sparse_every", "learn_all", "balance"
        others = {
            "llava_kd": (*sparse, "preference_rate", "preference", "beta"),
            "llava_mod": ("responses", "visual", "relation"),
        }
        self.refuse(others[self.method], f"with --method {self.method}")
        if self.top_k > self.experts:
            raise InputError(f"--top-k {self.top_k} is more than the {self.experts} --experts")


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


@dataclass(frozen=True, kw_only=True)
class RecommenderOptions(TrainedOptions):
    """Distil what a language model thinks of patients into a small recommender of medications, which knows codes alone.

    Rows have visits with diagnoses, procedures and medications; the last is the one to prescribe for. A language model
    reads the codes' names, learns to prescribe, and its state of each patient is what the recommender follows beside
    the true medications. The method is leader.
    """

    teacher: str = ""
    """folder or published name of a language model that gives a state of each token, causal or not"""
    tokenizer: str | None = None
    """folder or published name, where the teacher comes without one"""
    data: tuple[Path, ...] = ()
    """files or folders of patients; those whose last visit has no medications (null) serve for the teacher's states"""
    test: Path | None = None
    """the same, never used but for the figures at the end; without it those are of held-out patients"""
    names: Path | None = None
    """rows with a code, its name and perhaps the kind of code (diagnoses, procedures, medications): what the teacher
    reads in place of codes"""
    interactions: Path | None = None
    """rows with first and second, medications that should not be given together: for the DDI rate"""
    out: Path = Path("runs/recommender")
    """folder for the student, as distill.language.recommender loads it, and for its run"""
    every_visit: bool = False
    """learn from and measure each visit as if it were the last, in place of the last alone"""
    visits: Annotated[int, Range(2, 1000)] = 10
    """of a patient at most; earlier ones are not looked at"""
    rare: Annotated[int, Range(1, 10**6)] = 2
    """diagnoses and procedures of fewer patients than that are all one to the student"""
    threshold: Annotated[float, Range(0, 1)] = 0.3
    """probability above which a medication is recommended"""
    width: Annotated[int, Range(1, 2**16)] = 64
    """of the student's layers"""
    heads: Annotated[int, Range(1, 1000)] = 4
    """of its attention"""
    features: Annotated[float, Range(0, 1000)] = 0.4
    """weight of the distance from the teacher's states, beside the true medications"""
    outputs: Annotated[float, Range(0, 1000)] = 0.0
    """weight of the divergence from the teacher's probabilities"""
    align: Annotated[float, Range(0, 1000)] = 0.0
    """weight of telling profiles apart by the medications; the paper has 0.005 to 0.01"""
    teacher_epochs: Annotated[float, Range(0, 1000)] = 3.0
    """passes in which the teacher learns to prescribe; 0: it stays as it is"""
    teacher_learning_rate: Rate = 5e-5
    """as --learning-rate, of the teacher"""
    lora: Annotated[int, Range(0, 2**16)] = 0
    """rank of adapters that learn in place of the teacher's weights (extra peft); 0: all weights learn"""
    micro_batch: Annotated[int, Range(0, 2**16)] = 0
    """rows that the teacher computes at once while it learns; 0: the whole batch"""
    epochs: Annotated[float, Range(0, 1000, above=True)] = 30.0
    """passes of the student over the data"""
    steps: Annotated[int, Range(0, 10**7)] = 0
    """optimiser steps of the student in place of --epochs; 0: as the epochs say"""
    length: Annotated[int, Range(4, 2**16)] = 512
    """tokens that the teacher reads of a patient at most: the last ones"""
    learning_rate: Rate = 5e-4
    """of the student: largest, after the warm-up; it falls to a tenth along a cosine"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse(("student",), "with the recommender: it is made from the data")
        if not self.features and not self.outputs:
            about = "teacher", "tokenizer", "names", "length", "teacher_epochs", "teacher_learning_rate"
            self.refuse((*about, "lora", "micro_batch"), "where neither --features nor --outputs has a weight")
        if not self.teacher_epochs:
            tuned = "outputs", "teacher_learning_rate", "lora", "micro_batch"
            self.refuse(tuned, "where --teacher-epochs is 0: the teacher learns nothing")
