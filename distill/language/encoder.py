"""`barkour distill encoder`: a masked language model and plain text of one's own into a smaller encoder's folder.

import distill.language.supernet    # makes its kind of model known to transformers

AutoModelForSequenceClassification.from_pretrained("runs/encoder")
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from distill.core.errors import DistillError
from distill.language.examples import Text, add_files, read_examples, require_different
from distill.language.labelled import Reader, chosen_rows
from distill.language.models import parameters, require_finite, require_memory
from distill.language.own import Stage, Task, held_out_rows, require_room
from distill.language.own import distil as distil_own
from distill.language.own_options import EncoderOptions
from distill.language.places import loading
from distill.language.supernet import Space, SuperNet, cost
from distill.methods.autodistil.method import SPACES, chosen, parts, relation_loss, scored, whole_size
from distill.results import OwnDistilled


def distil(options: EncoderOptions) -> OwnDistilled:
    """Distils as the options say and writes the encoder's folder. Raises `InputError` for what cannot be used."""
    return distil_own(options, prepare)


def prepare(options: EncoderOptions) -> Task:
    """Reads model and text, and checks that they fit together. Raises `DistillError` where they do not."""
    for name, value in (("teacher", options.teacher), ("data", options.data)):
        if not value:
            raise DistillError(f"there is nothing to begin with: give --{name}")
    require_different(options.data)
    reader = Reader(options.tokenizer or options.teacher, options.length)
    teacher = _teacher(options.teacher)
    if torch.cuda.is_available():
        teacher.to("cuda")
    require_room(teacher, options.length, "--length")
    space = space_of(options)
    net = SuperNet.of(teacher, space)
    most = cost(teacher.config, whole_size(teacher), options.length).flops * options.most_flops
    parameters_most = options.most_parameters or math.inf
    costs = {size: cost(net.model.config, size, options.length) for size in space}
    within = [size for size, each in costs.items() if each.flops <= most and each.parameters <= parameters_most]
    if not within:
        least = min(each.flops for each in costs.values()) / most * options.most_flops
        raise DistillError(
            f"no size of the space is within the limits: the least takes {least:.2g} of the teacher's multiplications "
            f"and {min(each.parameters for each in costs.values()):,} parameters"
        )
    files: dict[str, str] = {}
    texts: list[str] = []
    others = 0
    for path in options.data:
        read = read_examples(path)
        texts += [each.text for each in read.examples if isinstance(each, Text)]
        others += sum(not isinstance(each, Text) for each in read.examples)
        add_files(files, read.files, path.name)
    if not texts:
        raise DistillError(f"{', '.join(map(str, options.data))}: there is no plain text")
    pieces = reader.pieces(texts)
    if int(pieces["tokens"].max()) >= teacher.config.vocab_size:
        raise DistillError(f"the tokenizer has tokens that the teacher, of {teacher.config.vocab_size}, does not know")
    every = {"tokens": pieces["tokens"], "mask": pieces["seen"]}
    held = held_out_rows(len(every["tokens"]), options.held_out, options.seed)
    trained, held_out = chosen_rows(every, ~held), chosen_rows(every, held)

    def figures() -> dict[str, float]:
        ends = {"smallest": space.smallest, "largest": space.largest}
        return {f"relation loss, {name}": relation_loss(net, teacher, held_out, size) for name, size in ends.items()}

    def judge() -> dict[str, float]:
        found = figures()
        return {"golden": -float(np.mean([*found.values()])), **found}

    def save(folder: Path) -> dict[str, Any]:
        best = chosen(scored(net, teacher, held_out, within), most, parameters_most)
        student = net.extract(best.size)
        student.save_pretrained(folder)
        reader.tokenizer.save_pretrained(folder)
        taken = {"size": vars(best.size), "relation_loss": best.loss, "flops": best.cost.flops,
                 "parameters": best.cost.parameters}  # fmt: skip
        return {"taken": taken, "parameters": {**about["parameters"], "student": parameters(student)}}

    data = {
        "texts": len(texts), "rows": len(held), "trained": int((~held).sum()), "held_out": int(held.sum()),
        "dropped": {"no plain text": others} if others else {}, "files": files,
    }  # fmt: skip
    about: dict[str, Any] = {
        "method": "autodistil", "student": f"one of {len(within)} sizes", "teacher": options.teacher,
        "parameters": {"teacher": parameters(teacher), "super-net": parameters(net.model)}, "data": data,
        "measured_on": "held-out rows",
    }  # fmt: skip
    given = parts(teacher, net, trained, held_out, options.seed)
    require_memory(net.model, options.batch, trained["tokens"].shape[1])
    return Task(about, given[0].module, [Stage(given, len(trained["tokens"]), judge)], figures, save)


def space_of(options: EncoderOptions) -> Space:
    """The space that is named, with other numbers in their places. Raises `DistillError` where it has too many."""
    named = SPACES[options.space]
    space = Space(
        options.layers or named.layers, options.widths or named.width, options.ratios or named.ratio,
        options.heads or named.heads,
    )  # fmt: skip
    if len(space) > 10_000:
        raise DistillError(f"{len(space)} sizes are too many to measure each: 10,000 at most")
    return space


def _teacher(source: str) -> Any:
    with loading("teacher", source):
        model, said = AutoModelForMaskedLM.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    if said["missing_keys"]:
        lost = sorted(said["missing_keys"])[0]
        raise DistillError(f"the teacher '{source}' is no masked language model: it lacks {lost}")
    require_finite(source, model)
    return model.eval()
