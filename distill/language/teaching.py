"""What a student learns of its teacher where that is not all of its logits: likeliest tokens, kept or asked for."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from distill.core.errors import DistillError
from distill.core.tables import Rows
from distill.core.teachers import Teacher
from distill.language.collect import RecordedTopK, labelled
from distill.language.endpoint.client import EndpointOptions, served
from distill.language.endpoint.scoring import Scorer, ScoringTeacher
from distill.language.models import Read, causal
from distill.language.options import LanguageOptions
from distill.language.output_layer import measured_scaling
from distill.language.several import Several, named, projected_of_each
from distill.language.student import AbsentTeacher, ChunkedStudent, TopKCache, dense, projected_top_k, top_k
from distill.language.text import Tokens
from distill.methods.method import Method, MethodOptions, TextDomain, fitting

SERVED = 20
"""Tokens that are asked for at each position: what vLLM tells at most, unless it is started otherwise."""
PATIENCE = 10.0
"""Seconds in which a server says that it is there."""
BLOCK, FEW = 16, 4096
"""Rows that are labelled and kept together; small sets are kept row by row, so that other splits find them as well."""
D = TypeVar("D", bound=TextDomain)


def check(options: LanguageOptions, method: Method, settings: MethodOptions) -> None:
    """Raises `DistillError` where a method cannot do with what the options leave of its teacher."""
    if options.teachers:
        return
    remote, kept = options.teacher_url is not None, options.cache is not None
    if options.teacher_key is not None and not remote:
        raise DistillError("--teacher-key is of a server: give --teacher-url")
    if remote and options.teacher is None:
        raise DistillError("--teacher-url needs --teacher, the model's name there")
    if kept and not options.teacher_top_k and not remote and options.teacher is not None:
        raise DistillError("--cache keeps likeliest tokens: say how many, --teacher-top-k")
    if not (remote or kept or options.teacher_top_k):
        return
    if method.aligns or method.stage is not None or method.choose is not None or method.teacher_writes(settings) > 0:
        raise DistillError(f"the method {method.name} needs the whole teacher, not its likeliest tokens alone")
    if not method.needs_teacher(settings):
        raise DistillError(f"the method {method.name} reads no teacher's distribution")
    fitting(method.losses(settings), RecordedTopK())
    if remote and settings.temperature != 1:
        raise DistillError("a server tells probabilities at temperature 1: leave out --temperature")
    if kept and not remote and (method.student_writes(settings) > 0 or method.rewrites):
        raise DistillError(f"the method {method.name} writes its own texts, which no --cache can hold beforehand")


def narrow(options: LanguageOptions) -> bool:
    """Whether no more than the teacher's likeliest tokens are known."""
    return options.teacher_url is not None or options.cache is not None or options.teacher_top_k > 0


def routes(options: LanguageOptions, method: Method, settings: MethodOptions) -> dict[str, str]:
    """Name -> model of several teachers, none where there is one at most.

    Raises:
      DistillError: names that are none, a teacher beside them, a method that asks otherwise than row by row.
    """
    found = named(options.teachers)
    if not found:
        return found
    if options.teacher is not None or options.candidates or narrow(options):
        raise DistillError("--teachers are in place of --teacher, and give all of their logits")
    if not method.needs_teacher(settings):
        raise DistillError(f"the method {method.name} reads no teacher's distribution")
    rewritten = method.teacher_writes(settings) > 0 or method.rewrites or method.convert is not None
    if rewritten or method.aligns or method.inside or method.views is not None or method.choose is not None:
        raise DistillError(f"the method {method.name} takes one teacher")
    return found


def places(name: str, routes: Sequence[str], teachers: Sequence[str]) -> list[int | None]:
    """Which of the teachers each example names. Raises `DistillError` for a name that none has."""
    unknown = sorted(set(routes) - set(teachers))
    if unknown:
        raise DistillError(f"{name}: there is no teacher '{unknown[0]}'; there are {', '.join(teachers)}")
    return [teachers.index(each) for each in routes]


def of_each(teachers: Several, vocabulary: int, rows: Rows) -> Teacher:
    """Each row's own teacher; logits are made chunk by chunk where that gives the models' own."""
    some = torch.from_numpy(rows["tokens"][:2, :65])
    try:
        return projected_of_each(teachers, vocabulary, [measured_scaling(model, some) for model in teachers.models])
    except DistillError:
        return dense(teachers, causal(vocabulary))


def scored(options: LanguageOptions, tokenizer: Any) -> ScoringTeacher:
    """The server that `options` name. Raises `DistillError` for an address or key that are none."""
    return _teacher(options, tokenizer, options.cache or options.out / "run" / "scores", EndpointOptions.retries)


def _teacher(options: LanguageOptions, tokenizer: Any, folder: Path, retries: int) -> ScoringTeacher:
    assert options.teacher is not None and options.teacher_url is not None
    about = EndpointOptions(options.teacher, options.teacher_url, options.teacher_key, retries=retries)
    scorer = Scorer(about, folder, options.teacher_top_k or SERVED)
    return ScoringTeacher(scorer, lambda token: tokenizer.decode([token]))


def require_server(options: LanguageOptions) -> None:
    """Asks the server that `options` name once. Raises `DistillError` where nobody answers there, or not us."""
    if options.teacher_url is not None and options.teacher is not None:
        served(EndpointOptions(options.teacher, options.teacher_url, options.teacher_key, timeout_s=PATIENCE))


def require_scores(options: LanguageOptions, tokenizer: Any, rows: Rows) -> None:
    """Has the server score one row, before a run begins.

    Raises:
      DistillError: it does not know the model, tells no log-probabilities or too few, or splits texts otherwise.
    """
    one = {name: torch.from_numpy(rows[name][:1]) for name in ("tokens", "mask", "positions") if name in rows}
    with tempfile.TemporaryDirectory() as folder:
        _teacher(options, tokenizer, Path(folder), retries=0).label(one)


def likeliest_of(teacher: Any, reader: Any, read: Read, vocabulary: int, k: int, temperature: float) -> Teacher:
    """The teacher's likeliest tokens, asked for as they are needed. Raises `DistillError` for more than there are."""
    if k > vocabulary:
        raise DistillError(f"--teacher-top-k {k} is more than the {vocabulary} tokens that there are")
    if isinstance(reader, ChunkedStudent):
        return projected_top_k(teacher, reader.vocabulary, k, temperature, reader.scaling)
    return top_k(teacher, read, k, temperature)


def recorded(
    domains: Sequence[D], teacher: Teacher | None, options: LanguageOptions, tokenizer: Any, temperature: float,
    device: torch.device | str = "cpu",
) -> tuple[Teacher, list[D]]:  # fmt: skip
    """The teacher of rows that hold its likeliest tokens, and the domains with such rows.

    What is not in `options.cache` is asked for and written there, in blocks, so that an interruption loses one.

    Raises:
      DistillError: a folder of another teacher, tokenizer, K or temperature, or no teacher for what it lacks.
    """
    assert options.cache is not None
    known = TopKCache.about(options.cache)
    if teacher is None:
        if known is None or "teacher" not in known:
            raise DistillError(f"{options.cache} holds no answers of a teacher: give --teacher, or another --cache")
        teacher = AbsentTeacher(str(known["teacher"]))
    settings = {"top_k": options.teacher_top_k or int((known or {}).get("top_k", 0)), "temperature": temperature}
    cache = TopKCache(teacher, options.cache, Tokens(tokenizer.backend_tokenizer, *_ends(tokenizer)), settings)

    count = sum(len(d.rows["tokens"]) + len(d.held_out["tokens"]) for d in domains)

    def with_labels(rows: Any) -> Any:
        return labelled(rows, cache, 1 if count <= FEW else BLOCK, device)

    found = [replace(d, rows=with_labels(d.rows), held_out=with_labels(d.held_out)) for d in domains]
    return RecordedTopK(temperature), found


def told(options: LanguageOptions, rows: Rows) -> dict[str, int]:
    """`likeliest`: of how many tokens at each position is known what the teacher says, where it is not of all."""
    if not narrow(options):
        return {}
    return {"likeliest": rows["indices"].shape[-1] if "indices" in rows else options.teacher_top_k or SERVED}


def cached(folder: Path | None) -> bool:
    """Whether a folder says whose answers it holds."""
    return folder is not None and TopKCache.about(folder) is not None


def _ends(tokenizer: Any) -> tuple[str, str]:
    return tokenizer.pad_token, tokenizer.eos_token
