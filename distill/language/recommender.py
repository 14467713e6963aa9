"""`barkour distill recommender`: a language model and patients of one's own into a recommender's folder.

from distill.language.recommender import Recommender

recommend = Recommender("runs/recommender")
recommend({"visits": [{"diagnoses": ["I10"], "procedures": []}]})      # [("C09AA", 0.81), ("C03CA", 0.44)]
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from distill.core.checkpoints import write_json
from distill.core.errors import DistillError
from distill.core.reading import check_regular, read_json
from distill.core.tables import Rows
from distill.core.teachers import digest_of
from distill.language.adapters import with_adapters
from distill.language.evaluate import over
from distill.language.examples import add_files, require_different
from distill.language.labelled import Reader, chosen_rows
from distill.language.models import body, parameters
from distill.language.own import RUN, Stage, Task, held_out_rows, require_room
from distill.language.own import distil as distil_own
from distill.language.own_options import RecommenderOptions
from distill.language.places import loading
from distill.language.visits import (
    KINDS,
    Naming,
    Patient,
    Patients,
    Vocabulary,
    clashes,
    described,
    naming,
    patient_of,
    read_names,
    read_pairs,
    read_patients,
)
from distill.methods import kept
from distill.methods.leader.measures import clash_rate, recommended
from distill.methods.leader.method import (
    PatientReader,
    VisitRecommender,
    losses,
    parts,
    standardised,
    taught,
    two,
)
from distill.results import OwnDistilled

VOCABULARY, STATES = "vocabulary.json", "states.safetensors"
UNKNOWN = "no patient's medications of the last visit are known"
Pairs = Sequence[tuple[str, str]]


def distil(options: RecommenderOptions) -> OwnDistilled:
    """Distils as the options say and writes the recommender's folder. Raises `InputError` for what cannot be used."""
    return distil_own(options, prepare)


def _reader(options: RecommenderOptions, drugs: int) -> tuple[PatientReader, Reader]:
    """The teacher with random weights for drugs, and its tokenizer, which keeps the end of what is too long."""
    text = Reader(options.tokenizer or options.teacher, options.length)
    text.tokenizer.truncation_side = "left"
    with loading("teacher", options.teacher):
        model = body(options.teacher)
        torch.manual_seed(options.seed)
        reader = PatientReader(model, drugs)
    require_room(model, options.length, "--length")
    known = model.get_input_embeddings().num_embeddings
    if known < len(text.tokenizer):
        raise DistillError(f"the teacher knows {known} tokens, and its tokenizer has {len(text.tokenizer)}")
    if options.lora:
        reader.model = with_adapters(model, options.lora, 2.0 * options.lora, options.seed, "FEATURE_EXTRACTION")
    if torch.cuda.is_available():
        reader.to("cuda")
    return reader.eval(), text


@dataclass(frozen=True)
class Examples:
    """Patients as they are learned from and measured."""

    learned: Sequence[Patient]
    """Of some the medications of the last visit are not known."""
    held_out: Sequence[Patient]
    judged: Sequence[Patient]
    """Whom the figures are of: those that are held out, or those of `--test`."""


def _examples(options: RecommenderOptions, told: Patients) -> Examples:
    def of(patients: Patients) -> list[list[Patient]]:
        return [one.examples(options.every_visit, options.visits) for one in patients.rows]

    every = of(told)
    known = [place for place, own in enumerate(every) if any(one.known for one in own)]
    held = {known[i] for i in np.flatnonzero(held_out_rows(len(known), options.held_out, options.seed))}
    held_out = [one for place in sorted(held) for one in every[place] if one.known]
    judged = held_out
    if options.test is not None:
        tested = read_patients([options.test])
        add_files(told.files, tested.files)
        judged = [one for own in of(tested) for one in own if one.known]
        if not judged:
            raise DistillError(f"{options.test}: {UNKNOWN}")
    return Examples([one for place, own in enumerate(every) if place not in held for one in own], held_out, judged)


def prepare(options: RecommenderOptions) -> Task:
    """Reads teacher and patients, and checks that they fit together. Raises `DistillError` where they do not."""
    asks = bool(options.features or options.outputs)
    for name, value in (("data", options.data), *([("teacher", options.teacher)] if asks else [])):
        if not value:
            raise DistillError(f"there is nothing to begin with: give --{name}")
    if options.width % options.heads:
        raise DistillError(f"--width {options.width} cannot be shared out among --heads {options.heads}")
    require_different([*options.data, *(() if options.test is None else (options.test,))])
    told = read_patients(options.data)
    examples = _examples(options, told)
    vocabulary = Vocabulary.of(examples.learned, options.rare)
    if options.align and not vocabulary.profile:
        raise DistillError("--align needs patients with a profile")
    names = read_names(options.names, told.files)
    called = naming(names)
    named = sum(called(kind, code) != code for kind in KINDS for code in getattr(vocabulary, kind))
    if names and not named:
        raise DistillError(f"{options.names}: no code that is learned has a name")
    pairs = read_pairs(options.interactions, vocabulary.medications, told.files)
    torch.manual_seed(options.seed)
    student = VisitRecommender(**vocabulary.sizes(), width=options.width, heads=options.heads).eval()
    learned, held_out = _rows(vocabulary, examples)
    known = learned["mask"][:, 0]
    cut: dict[str, int] = {}
    long = sum(len(patient.visits) > options.visits for patient in told.rows)
    if long:
        cut[f"earlier visits than the last {options.visits}"] = long

    def measured(probabilities: np.ndarray) -> dict[str, float]:
        return figures_of(probabilities, examples.judged, vocabulary, options.threshold, pairs)

    def figures() -> dict[str, float]:
        return measured(likely(student, vocabulary, examples.judged))

    def judge() -> dict[str, float]:
        said = likely(student, vocabulary, examples.held_out)
        found = figures_of(said, examples.held_out, vocabulary, options.threshold, pairs)
        return {"golden": found["prauc"], **found}

    about: dict[str, Any] = {
        "method": "leader", "teacher": options.teacher or None, "student": "a recommender of codes",
        "settings": {name: getattr(options, name) for name in ("features", "outputs", "align", "threshold")},
        "parameters": {"student": parameters(student)},
        "measured_on": "held-out patients" if options.test is None else "test",
    }  # fmt: skip
    asked: Asked | None = None
    if asks:
        asked = Asked(options, vocabulary, examples, called)
        about["parameters"] = {"teacher": parameters(asked.reader.model), **about["parameters"]}
        if asked.text.cut:
            cut["texts longer than --length"] = asked.text.cut
    about["data"] = {
        "patients": len(told.rows), "rows": len(learned["mask"]) + len(held_out["mask"]),
        "trained": len(known), "held_out": len(held_out["mask"]), "judged": len(examples.judged),
        "without_labels": int((~known).sum()), "cut": cut,
        "codes": {kind: len(getattr(vocabulary, kind)) for kind in KINDS}, "named": named,
        "dropped": dict(told.dropped), "files": told.files,
    }  # fmt: skip

    def stages() -> Iterator[Stage]:
        heard: Mapping[str, np.ndarray] = {}
        if asked is not None:
            if options.teacher_epochs:
                yield asked.stage(learned, held_out)
            heard = asked.heard()
        width = heard["states"].shape[1] if heard else 1
        chosen = losses(2 * options.width, width, options.features, options.align, options.outputs)
        rows, held = ({**own, **{n: v[where] for n, v in heard.items()}} for own, where in (
            (learned, slice(None, len(known))), (held_out, slice(len(known), None))
        ))  # fmt: skip
        tuned = asked is not None and bool(options.teacher_epochs)
        yield Stage(parts(student, rows, chosen, held), len(known), judge, "student" if tuned else "")

    def save(folder: Path) -> dict[str, Any]:
        kept.save(student, folder)
        others = {name: getattr(options, name) for name in ("threshold", "visits", "every_visit")}
        write_json(folder / VOCABULARY, {**vars(vocabulary), **others, "interactions": pairs})
        usual = learned["label"][known].mean(0)
        beside = {"most frequent medications": measured(np.tile(usual, (len(examples.judged), 1)))}
        if asked is not None and options.teacher_epochs:
            beside["teacher"] = measured(asked.judged())
        if pairs:
            given = vocabulary.labels(examples.judged) > 0
            beside["as prescribed"] = {"ddi_rate": clash_rate(given, clashes(pairs, vocabulary.medications))}
        return {"beside": beside}

    return Task(about, student, stages(), figures, save)


def _rows(vocabulary: Vocabulary, examples: Examples) -> tuple[Rows, Rows]:
    """What `distill.methods.leader.method.parts` wants, but for what the teacher says."""
    both = [*examples.learned, *examples.held_out]
    label = vocabulary.labels(both)
    mask = np.repeat(np.array([one.known for one in both])[:, None], label.shape[1], 1)
    every, first = {**vocabulary.rows(both), "label": label, "mask": mask}, np.arange(len(both)) < len(examples.learned)
    return chosen_rows(every, first), chosen_rows(every, ~first)


class Asked:
    """A teacher, and the patients as it reads them."""

    def __init__(self, options: RecommenderOptions, vocabulary: Vocabulary, examples: Examples, called: Naming) -> None:
        """Raises `DistillError` for a teacher that cannot be had."""
        self.options = options
        self.reader, self.text = _reader(options, len(vocabulary.medications))

        def rows(patients: Sequence[Patient]) -> dict[str, np.ndarray]:
            return self.text.rows([described(patient, called) for patient in patients])

        self.texts, self.learned = rows([*examples.learned, *examples.held_out]), len(examples.learned)
        self.judged_texts = rows(examples.judged) if examples.judged is not examples.held_out else None

    def stage(self, learned: Rows, held_out: Rows) -> Stage:
        """The teacher learns to prescribe, from patients whose medications are known."""
        known = learned["mask"][:, 0]
        own = {name: values[: self.learned][known] for name, values in self.texts.items()}
        theirs = {name: values[self.learned :] for name, values in self.texts.items()}
        rows = {**own, "label": learned["label"][known]}
        held = {**theirs, "label": held_out["label"]}

        def judge() -> dict[str, float]:
            nats = over(self.reader, held, lambda batch: torch.nn.functional.binary_cross_entropy_with_logits(
                self.reader(batch).float(), batch["label"].float(), reduction="none"
            ))  # fmt: skip
            return {"golden": -float(nats.mean())}

        given = taught(self.reader, lambda reader, batch: reader(batch), rows, held)
        changed = {
            "epochs": self.options.teacher_epochs, "steps": 0, "learning_rate": self.options.teacher_learning_rate
        }  # fmt: skip
        return Stage(given, len(rows["label"]), judge, "teacher", changed, self.options.micro_batch)

    def judged(self) -> np.ndarray:
        """Probabilities `[N, M]` of the patients that the figures are of."""
        rows = self.judged_texts or {name: values[self.learned :] for name, values in self.texts.items()}
        return torch.sigmoid(over(self.reader, rows, lambda batch: self.reader(batch).float(), 16)).numpy()

    def heard(self) -> dict[str, np.ndarray]:
        """The teacher's standardised `states` `[N, D]` and `logits` `[N, M, 2]` of all that is learned from and held
        out; asked once, and then read from the run's folder."""
        path = self.options.out / RUN / STATES
        digest = hashlib.sha256(b"".join(values.tobytes() for values in self.texts.values())).hexdigest()
        found = _kept(path, digest)
        if found is None:
            self.reader.eval()
            states = over(self.reader, self.texts, lambda batch: self.reader.state(batch).float(), 16)
            logits = over(self.reader.head, {"states": states.numpy()}, lambda b: self.reader.head(b["states"]))
            found = {"states": states.contiguous(), "logits": logits.contiguous()}
            partial = path.with_suffix(".partial")
            partial.unlink(missing_ok=True)  # a pipe, to which writing would wait for ever
            save_file(found, partial, {"sha256": digest_of(digest, found)})  # one entry: several have no set order
            os.replace(partial, path)
        states = found["states"].numpy()
        return {"states": standardised(states, states[: self.learned]), "logits": two(found["logits"]).numpy()}


def _kept(path: Path, digest: str) -> dict[str, torch.Tensor] | None:
    """What a teacher said of these texts, None where it was not asked or the file is damaged."""
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as opened:
            found = {name: opened.get_tensor(name) for name in ("states", "logits")}
            if (opened.metadata() or {}).get("sha256") == digest_of(digest, found):
                return found
    except (OSError, DistillError, SafetensorError):
        pass
    return None


def likely(student: VisitRecommender, vocabulary: Vocabulary, patients: Sequence[Patient]) -> np.ndarray:
    """Probabilities `[N, M]` of the medications that are known."""
    return torch.sigmoid(over(student, vocabulary.rows(patients), lambda b: student(b)["logits"].float())).numpy()


def figures_of(
    probabilities: np.ndarray, patients: Sequence[Patient], vocabulary: Vocabulary, threshold: float, pairs: Pairs
) -> dict[str, float]:
    """`recommended` of probabilities `[N, M]`, and `ddi_rate` where there are pairs. Medications that were right and
    are not known count as missed."""
    others = vocabulary.unknown(patients)
    every = np.pad(probabilities, ((0, 0), (0, len(others))))
    first = np.array([patient.first for patient in patients])
    found = recommended(every, vocabulary.labels(patients, others), threshold, first)
    if pairs:
        found["ddi_rate"] = clash_rate(probabilities > threshold, clashes(pairs, vocabulary.medications))
    return found


class Recommender:
    """A recommender's folder, to be asked."""

    def __init__(self, folder: Path | str) -> None:
        """Raises `DistillError` for a folder that `barkour distill recommender` did not write."""
        model = kept.load(Path(folder))
        if not isinstance(model, VisitRecommender):
            raise DistillError(f"{folder} holds a {type(model).__name__}, no recommender")
        try:
            about = read_json(Path(folder) / VOCABULARY)
            self.vocabulary = Vocabulary.from_json(about)
            others = {name: about[name] for name in ("threshold", "visits", "every_visit")}
            RecommenderOptions(**others)  # in the ranges that they were asked in
            self.threshold, self.visits, self.every_visit = others.values()
            self.pairs = [(first, second) for first, second in about["interactions"]]
            clashes(self.pairs, self.vocabulary.medications)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DistillError(f"{folder} holds no recommender: {error}") from error
        if self.vocabulary.sizes() != {n: v for n, v in model.settings.items() if n not in ("width", "heads")}:
            raise DistillError(f"{folder} holds no recommender: {VOCABULARY} is of another one")
        self.model = model

    def probabilities(self, patients: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """`[N, M]` of `vocabulary.medications`, for rows such as those that were learned from; what the last visit has
        of medications is not looked at.

        Raises:
          DistillError: rows of another form.
        """
        found = [patient_of(row, f"patient {place}") for place, row in enumerate(patients, 1)]
        latest = [one for each in found for one in each.examples(False, self.visits)]
        return likely(self.model, self.vocabulary, latest)

    def __call__(self, patient: Mapping[str, Any]) -> list[tuple[str, float]]:
        """Medications that are likelier than the threshold, with their probabilities, likeliest first."""
        each = zip(self.vocabulary.medications, self.probabilities([patient])[0].tolist(), strict=True)
        return sorted((one for one in each if one[1] > self.threshold), key=lambda one: -one[1])

    def measure(self, paths: Sequence[Path]) -> dict[str, float]:
        """The figures of patients in files. Raises `DistillError` where there are none."""
        every = [one for row in read_patients(paths).rows for one in row.examples(self.every_visit, self.visits)]
        read = [one for one in every if one.known]
        if not read:
            raise DistillError(f"{', '.join(map(str, paths))}: {UNKNOWN}")
        said = likely(self.model, self.vocabulary, read)
        return figures_of(said, read, self.vocabulary, self.threshold, self.pairs)
