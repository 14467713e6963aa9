"""Files of every kind that commands read, damaged and falsified: each is read as it was meant or refused in one line.

    python -m benchmarks.mutations --files 5000

Each file is a sound one with one to three changes: bits, cuts, gaps and repeats for all of them; other numbers, words,
lines and values for those that are text. A change that is hidden from a checksum is given the right one where the file
has its own (`bundle metadata`). The command's own reader reads it in a process of its own. What may come of it:

- `refused` with one printable line, by the command line as well where a command reads that kind;
- `same`: what was read is what the sound file gives (the change is in a comment or in an unused bit);
- `accepted`: something else was read, and it is what stands there: of a recording its beginning, with a sentence that
  it was cut off; of a text each new value is a word or plain number of the file, finite and within the range that its
  check states, so that no reader could know better. A file with checksums is never accepted changed;
- `traceback`, `hang`, `crash`, `nonsense` (accepted and not as promised), `lines` (refused, not in one line), and
  `status` (the front door answers a refused file with something else than status 2): faults.
"""

import argparse
import contextlib
import dataclasses
import gc
import io
import json
import math
import multiprocessing
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from distill.core.errors import DistillError
from sim.errors import InputError

RECIPE = "pgkd"
"""Whose results are changed."""
LIMIT = 90.0
"""Seconds that a file may take on a busy computer."""
MEMORY = 1 << 31
"""Bytes of address space that a file may take."""
FAULTS = ("traceback", "hang", "crash", "nonsense", "lines", "status")
NUMBER = re.compile(rb"-?\b[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?\b")
VALUES = [
    b"nan", b".nan", b"NaN", b"inf", b"-.inf", b"Infinity", b"1e400", b"-1", b"0", b"1e9", b"-1e38", b"9" * 400,
    b"1_000", b"0x10", b"1:30", b"2026-11-28", b"null", b"~", b"true", b"''", b'"1"', b"[]", b"{}", b"[1, [2]]",
    b"*a", b"&a 1", b"!!python/object:os.system", b"1,5", b"\xd9\xa3", b"\xff", b"\x1b[2J", b"\0", b"-0.0", b"1e-320",
]  # fmt: skip
"""What stands in place of a number."""
TREE = [
    None, True, False, 0, -1, 10**400, 2**63, 0.5, -1e38, math.nan, math.inf, "", "nan", "1", "\x1b[2J", "\u2028", [],
    {}, [[]], {"a": 1}, [None] * 3, "9" * 5000,
]  # fmt: skip
"""What stands in place of a value of JSON."""


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    name: str
    files: tuple[str, ...]
    """Those of a specimen's folder that are changed, one in each mutant."""
    make: Callable[[Path], None]
    """Puts a sound specimen into a folder."""
    read: Callable[[Path], Any]
    """Reads the specimen in a folder."""
    wrong: Callable[[Any, Any], str]
    """What is wrong with what was read, beside what the sound specimen gives; empty: nothing."""
    text: bool = True
    tree: bool = False
    """It is JSON: values are changed as well as text."""
    words: tuple[str, ...] = ()
    """The command line that reads it, with FOLDER in place of the folder."""
    said: Callable[[Any], Any] | None = None
    """What of that which was read must stand in the file as it was read, unless it is in the sound one or among the
    defaults of a dataclass; None where `wrong` compares all of it."""
    reseal: Callable[[Path], None] | None = None
    """Gives a changed file the checksum that it should have."""


# --- changes ----------------------------------------------------------------------------------------------------------


def changed(rng: random.Random, data: bytes, kind: Kind) -> bytes:
    """`data` with one to three changes."""
    if kind.tree and rng.random() < 0.5:
        return _tree(rng, data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        data = rng.choice(TEXT if kind.text and rng.random() < 0.75 else BINARY)(rng, data)
    return data


def _flip(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 4])):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _gap(rng: random.Random, data: bytes) -> bytes:
    first = rng.randrange(len(data) + 1)
    return data[:first] + data[first + rng.choice([1, 4, 64, 4096]) :]


def _fill(rng: random.Random, data: bytes) -> bytes:
    first, count = rng.randrange(len(data) + 1), rng.choice([1, 8, 512])
    return data[:first] + rng.choice([b"\0", b"\xff", b"\x80"]) * count + data[first + count :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    first = rng.randrange(len(data) + 1)
    return data[:first] + rng.randbytes(rng.choice([1, 16, 300])) + data[first:]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    first = rng.randrange(len(data) + 1)
    part = data[first : first + rng.choice([4, 100, 5000])]
    return data[:first] + part * rng.choice([2, 3]) + data[first:]


def _other_kind(rng: random.Random, data: bytes) -> bytes:
    foreign = [b"", b"\n", b"PK\3\4", b"[" * 20_000, b'{"a":' * 20_000, b"- " * 5000, b"\xef\xbb\xbf" + data]
    return rng.choice([*foreign, b"\xff\xfe" + data.decode(errors="replace").encode("utf-16-le"), data + data])


def _number(rng: random.Random, data: bytes) -> bytes:
    found = list(NUMBER.finditer(data))
    if not found:
        return _flip(rng, data)
    one = rng.choice(found)
    return data[: one.start()] + rng.choice(VALUES) + data[one.end() :]


def _lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    k, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    do = rng.choice(["drop", "double", "swap", "indent", "rename", "colon", "endings"])
    if do == "drop":
        del lines[k]
    elif do == "double":
        lines.insert(k, lines[k])
    elif do == "swap":
        lines[k], lines[other] = lines[other], lines[k]
    elif do == "indent":
        lines[k] = rng.choice([b" ", b"\t", b"    "]) + lines[k]
    elif do == "rename":
        lines[k] = re.sub(rb"[a-z_]{3,}", lambda found: found[0][::-1], lines[k], count=1)
    elif do == "colon":
        lines[k] = lines[k].translate(bytes.maketrans(b':,"', b",:'"))
    else:
        return data.replace(b"\n", rng.choice([b"\r\n", b"\r", "\u2028".encode(), b"\n\n"]))
    return b"".join(lines)


def _word(rng: random.Random, data: bytes) -> bytes:
    found = list(re.finditer(rb"[A-Za-z_]{2,}", data))
    if not found:
        return _insert(rng, data)
    one = rng.choice(found)
    return data[: one.start()] + rng.choice([*VALUES, b"nan_" + one[0], one[0].upper()]) + data[one.end() :]


def _tree(rng: random.Random, data: bytes) -> bytes:
    """JSON, or lines of it, with one value changed, moved or gone."""
    text = data.decode()
    rows = [json.loads(line) for line in text.splitlines()] if text.count("\n{") else [json.loads(text)]
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, each in inner:
            places.append((value, key))
            walk(each)

    walk(rows)
    holder, key = rng.choice(places)
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice(TREE)
    return "\n".join(json.dumps(row) for row in rows).encode()


BINARY = (_flip, _flip, _cut, _gap, _fill, _insert, _repeat, _other_kind)
TEXT = (_number, _number, _number, _lines, _lines, _word)


# --- kinds ------------------------------------------------------------------------------------------------------------


def _finite(value: Any) -> bool:
    """Whether every number in a value is finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    return not isinstance(value, float | int) or abs(value) <= sys.float_info.max


def leaves(value: Any) -> Iterator[Any]:
    """The numbers, words and truths in a value; names of keys are words as well."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, bool | int | float | str):
        yield value


def same(found: Any, sound: Any) -> bool:
    """Whether two values are of one meaning."""
    if isinstance(found, np.ndarray):
        return isinstance(sound, np.ndarray) and found.tobytes() == sound.tobytes()
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        names = [field.name for field in dataclasses.fields(found) if field.name not in ("path", "config", "folder")]
        return type(found) is type(sound) and all(same(getattr(found, n), getattr(sound, n)) for n in names)
    if isinstance(found, dict):
        if not isinstance(sound, dict) or list(found) != list(sound):
            return False
        return all(same(found[key], sound[key]) for key in found if key not in ("folder", "robot"))
    if isinstance(found, list | tuple):
        return isinstance(sound, list | tuple) and len(found) == len(sound) and all(map(same, found, sound))
    return type(found) is type(sound) and bool(found == sound)


def _defaults(value: Any) -> list[Any]:
    """What the options or parameters in a value are where a file does not say it."""
    every: list[Any] = value if isinstance(value, list) else [value]
    kinds: set[Any] = {type(each) for each in every if dataclasses.is_dataclass(each)}
    return [field.default for kind in kinds for field in dataclasses.fields(kind)]


PLAIN = re.compile(r"(?<![\w.])[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(?![\w.])", re.ASCII)


def unwritten(found: Any, sound: Any, data: bytes) -> str:
    """Which value was read that does not stand in the file as a plain number or a word, and not in the sound one."""
    known = {(type(leaf), leaf) for leaf in (*leaves(sound), *leaves(_defaults(found)))}
    coding = "utf-16" if data[:2] == b"\xff\xfe" else "utf-8"
    text, sound_text = (data.decode(coding, errors=errors) for errors in ("replace", "ignore"))
    said = [match[0] for match in PLAIN.finditer(text)]
    whole = [one for one in said if one.lstrip("+-").isdigit() and len(one) < 4000]  # Python reads no longer ones
    numbers = {*map(float, said), *map(int, whole)}
    plain = " ".join(text.split())
    for leaf in leaves(found):
        if (type(leaf), leaf) in known:
            continue
        if isinstance(leaf, bool):
            ok = str(leaf).lower() in plain.lower()
        elif isinstance(leaf, int | float):
            word = "NaN" if leaf != leaf else "Infinity"  # JSON's own
            endless = isinstance(leaf, float) and not math.isfinite(leaf) and word in text
            ok = endless or any(leaf == number for number in numbers)
        else:
            if "\ufffd" in leaf and "\ufffd" not in sound_text and "\\ufffd" not in text.lower():
                return f"{leaf!r} holds what is no character"
            forms = (leaf, leaf.replace('"', '""'), json.dumps(leaf)[1:-1], json.dumps(leaf, ensure_ascii=False)[1:-1])
            ok = any(" ".join(form.split()) in plain for form in forms)
        if not ok:
            return f"{leaf!r} was read, which does not stand there"
    return ""


def _bundle(folder: Path) -> None:
    from policies.bundle.shipped import bundle_file

    shutil.copy(bundle_file("walk"), folder / "walk.onnx")


def _read_bundle(folder: Path) -> Any:
    from policies.bundle.reader import Bundle

    bundle = Bundle.load(folder / "walk.onnx")
    zeros = np.zeros((1, bundle.layout.size), np.float32)
    return asdict(bundle.metadata), bundle(zeros)


def _same_bundle(found: Any, sound: Any) -> str:
    return "" if json.dumps(found[0]) == json.dumps(sound[0]) and np.array_equal(found[1], sound[1]) else "another"


def _metadata(folder: Path) -> None:
    """The bundle without its network's weights in the way: only what it says of itself is changed, see `_stamp`."""
    import onnx

    from policies.bundle.metadata import KEY

    _bundle(folder)
    model = onnx.load(folder / "walk.onnx")
    said = next(entry.value for entry in model.metadata_props if entry.key == KEY)
    (folder / "metadata.json").write_text(said)


def _stamp(folder: Path) -> None:
    """Puts the changed metadata into the bundle, with the flat keys and the checksum that belong to it."""
    import onnx

    from policies.bundle.container import BLANK, CHECKSUM, stamped
    from policies.bundle.metadata import KEY, Metadata, flat
    from sim.observation import Layout

    text = (folder / "metadata.json").read_bytes().decode(errors="replace")
    model = onnx.load(folder / "walk.onnx")
    entries = {entry.key: entry.value for entry in model.metadata_props} | {KEY: text, CHECKSUM: BLANK.decode()}
    with contextlib.suppress(Exception):  # what cannot be made flat is left as it was
        metadata = Metadata.from_json(text)
        entries |= flat(metadata, Layout.from_dict(metadata.layout))
    del model.metadata_props[:]
    for key, value in entries.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    (folder / "walk.onnx").write_bytes(stamped(model.SerializeToString()))


def _plausible_bundle(found: Any, _: Any) -> str:
    metadata = found[0]
    if not _finite(found):
        return "a number is not finite"
    rows = [metadata[name] for name in ("kp", "kd", "torque_limit", "action_scale")]
    flat = np.concatenate([np.ravel(row) for row in rows])
    return "" if (flat > 0).all() and 0 < metadata["control_period"] < 1 else "a gain, limit, scale or period below 0"


def _steps(folder: Path, old: bool = False) -> None:
    from robot.loop.recording import Steps, step_row
    from robot.loop.transport import Mode, Output, Snapshot, State
    from sim.robots.description import default_robot

    robot = default_robot()
    rows = []
    for k in range(12):
        seen = Snapshot.blank(robot.joints)
        seen.joints_time = seen.imu_time = seen.pose_time = seen.command_time = 20_000_000 * k
        seen.position = np.array(robot.default_pose) + 0.01 * k
        output = Output(Mode.POSITION, np.array(robot.default_pose, np.float32), 0)
        rows.append((step_row(20_000_000 * k, 0.0, 0.001, [], seen, State.RUNNING, output), seen))
    header = {"schema": 1, "robot": robot.name, "joints": list(robot.joint_names)}
    if old:
        (folder / "loop.rec").write_bytes(_old(header, [row for row, _ in rows]))
        return
    with (folder / "loop.mcap").open("wb") as file:
        steps = Steps(file.write, header, robot.joints)
        for k, (row, _) in enumerate(rows):
            steps.write(row, np.full((4, 4), 0.01 * k, np.float32) if k % 4 == 0 else None)


def _old(header: dict[str, Any], rows: Sequence[Any]) -> bytes:
    """A recording in the form of versions up to 0.1."""
    import struct
    import zlib

    from robot.loop.old_recording import OLD
    from robot.loop.recording import OLD_MAGIC

    kind = rows[0].dtype
    assert kind.fields is not None
    packed = np.dtype([(name, kind[name].base.str, kind[name].shape) for name in OLD])
    blocks = [(b"H", json.dumps(header).encode())]
    for row in rows:
        one = np.zeros((), packed)
        for name in OLD:
            one[name] = row[name]
        blocks.append((b"S", one.tobytes()))
    out = OLD_MAGIC
    for kind_of, payload in blocks:
        block = kind_of + struct.pack("<I", len(payload)) + payload
        out += block + struct.pack("<I", zlib.crc32(block))
    return out


def _packed(folder: Path) -> None:
    from sim.recordings import finish

    _steps(folder)
    finish(folder / "loop.mcap")


def _begins_alike(found: Any, sound: Any) -> str:
    """A recording that was cut off begins as the whole one."""
    if found.header != sound.header:
        return "another header"
    if found.steps.tobytes() != sound.steps[: len(found.steps)].tobytes():
        return "steps that were never recorded"
    if len(found.steps) < len(sound.steps) and not found.cut:
        return "fewer steps, and no word of it"
    known = {k: grid for k, grid in sound.grids.items() if k < len(found.steps)}
    alike = all(np.array_equal(found.grids.get(k), grid) for k, grid in known.items())
    return "" if alike else "another height grid"


def _read_mcap(folder: Path) -> Any:
    from robot.loop.recording import read

    return read(folder / "loop.mcap")


def _read_old(folder: Path) -> Any:
    from robot.loop.old_recording import read_old

    return read_old(folder / "loop.rec")


def _training(folder: Path) -> None:
    from policies.learning import checkpoint

    arrays = {"policy": np.linspace(0, 1, 200, dtype=np.float32), "value": np.ones((3, 4), np.float32)}
    checkpoint.write(folder / "step_000000001000", arrays, {"steps": 1000, "skill": "walk", "seed": 0})


def _read_training(folder: Path) -> Any:
    from policies.learning import checkpoint

    return checkpoint.load(folder / "step_000000001000")


def _distillation(folder: Path) -> None:
    import torch

    from distill.core import checkpoints

    checkpoints.save(folder, {"position": {"round": 1}, "saves": 2}, {"student": torch.linspace(0, 1, 200)})


def _read_distillation(folder: Path) -> Any:
    from distill.core import checkpoints

    checkpoints.known(folder)
    values, tensors = checkpoints.load(folder / checkpoints.NAME)
    return {name: tensor.numpy() for name, tensor in tensors.items()}, values


def _same_arrays(found: Any, sound: Any) -> str:
    same = found[0].keys() == sound[0].keys() and all(np.array_equal(found[0][k], sound[0][k]) for k in sound[0])
    return "" if same and found[1] == sound[1] else "another checkpoint"


def _course(folder: Path) -> None:
    from sim.course import files

    files.save(files.by_name("generated:3"), folder / "course.yaml")
    rows = (f"{0.1 * k:.1f},{0.05 * k:.2f},1.0" for k in range(50))
    (folder / "run.csv").write_text("# time s, x m, y m\n" + "\n".join(rows) + "\n")


def _read_course(folder: Path) -> Any:
    from sim.course import files

    return files.load(folder / "course.yaml")


def _sound_course(found: Any, _: Any) -> str:
    from sim.course import files

    if not _finite(found):
        return "a number is not finite"
    return "" if files.loads(files.dumps(found), "again") == found else "another course when it is read again"


def _read_log(folder: Path) -> Any:
    from sim.course import score
    from sim.course.description import official

    return score.read_log(folder / "run.csv"), score.score_file(folder / "run.csv", official())


def _sound_log(found: Any, _: Any) -> str:
    from sim.course.score import FARTHEST, LONGEST_LOG

    (times, places), result = found
    if not _finite(times) or not _finite(places) or not math.isfinite(result.score):
        return "a number is not finite"
    if sorted(times) != times or times[-1] - times[0] > LONGEST_LOG:
        return "times that cannot be"
    return "" if max(abs(value) for place in places for value in place) <= FARTHEST else "a place that cannot be"


def _launch(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from policies.bundle.shipped import folder as models

        shutil.copy(models().parent / "launch" / name, folder / "parameters.yaml")

    return make


def _read_launch(*nodes: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from robot.loop import parameters
        from robot.loop.declarations import PARAMETERS, UnitreeParameters, names

        file = folder / "parameters.yaml"
        kinds = {**PARAMETERS, "unitree": UnitreeParameters}
        return [parameters.load(kinds[node], file, node, elsewhere=names()) for node in nodes]

    return read


def _sound_parameters(found: Any, _: Any) -> str:
    from robot.loop.parameters import declared

    for values in found:
        for each in declared(type(values)):
            value = getattr(values, each.name)
            if type(value) is not each.kind or not _finite(value):
                return f"{each.name} is {value!r}"
            if each.low is not None and each.high is not None and not each.low <= value <= each.high:
                return f"{each.name} is {value!r}, out of its range"
    return ""


ROWS = [{"prompt": f"{i} plus one is", "completion": str(i + 1)} for i in range(8)]
CHATS = [{"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "yes"}]} for i in (1, 2)]


def _data(folder: Path) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, *CHATS]))


def _read_data(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from distill.language.examples import read_examples

        return [asdict(example) for example in read_examples(folder / name).examples]

    return read


def _sound_data(found: Any, _: Any) -> str:
    return "" if found else "nothing"


def _csv_data(folder: Path) -> None:
    (folder / "rows.csv").write_text("prompt,completion\n" + "".join(f'"{i}, and?",{i + 1}\n' for i in range(8)))


def _labelled(folder: Path) -> None:
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"the {i}th text,{i % 3}\n" for i in range(9)))


def _read_labelled(folder: Path) -> Any:
    from distill.language.labelled import classes_of, read_labelled

    found = read_labelled([folder / "rows.csv"])
    return found.texts, found.labels, classes_of(found.labels)


def _sound_labels(found: Any, _: Any) -> str:
    texts, labels, classes = found
    whole = len(texts) == len(labels) > 0 and set(labels) == set(classes)
    return "" if whole and all(each.strip() for each in (*texts, *labels)) else "texts without labels"


def _config(folder: Path) -> None:
    lines = (
        "teacher: gpt2\nstudent: fresh\nsteps: 200\nbatch: 4\nlearning_rate: 2e-4\nlength: 128\ndata: [rows.jsonl]\n"
    )
    (folder / "options.yaml").write_text(lines + "method: gkd\nseed: 3\nrounds: 2\n")


def _read_config(folder: Path) -> Any:
    from distill.language.options import LanguageOptions, from_file

    return from_file(LanguageOptions(config=folder / "options.yaml"))


def _sound_options(found: Any, _: Any) -> str:
    from typing import get_type_hints

    from sim.options import range_of

    for name, hint in get_type_hints(type(found), include_extras=True).items():
        value, allowed = getattr(found, name), range_of(hint)
        if allowed is not None and isinstance(value, int | float) and not allowed.low <= value <= allowed.high:
            return f"{name} is {value!r}"
    return "" if _finite(found) else "a number is not finite"


def _begun(folder: Path) -> None:
    (folder / "options.json").write_text(json.dumps({"options": {"steps": 200, "seed": 0}, "perplexity": 31.5}))


def _read_begun(folder: Path) -> Any:
    from distill.language.begun import read_begun

    return read_begun(folder, "perplexity", float)


def _measured(found: Any, _: Any) -> str:
    return "NaN" if math.isnan(found.start) else ""  # a student may begin at infinity


def _recipe(folder: Path) -> None:
    from distill.methods.catalogue import find

    asked = find(RECIPE)
    arms = {name: {"measures": {asked.metric: 0.75, "error": 0.25}, "seconds": 1.5} for name in asked.arms}
    (folder / "seed_0").mkdir()
    (folder / "seed_0" / "arms.json").write_text(json.dumps(arms, indent=2))
    for name in ("options.json", "sound.json"):
        (folder / name).write_text(json.dumps({"preset": "small", "budget": 1.0, "data": None}))


def _read_recipe(folder: Path) -> Any:
    from distill.methods import run
    from distill.methods.catalogue import find

    run._claim(folder, json.loads((folder / "sound.json").read_text()))
    return run.arms_of(find(RECIPE), folder, 0)


def _results(found: Any, _: Any) -> str:
    """Measures may be NaN or infinite, as arms that diverge write them: a verdict over them is refused."""
    return "" if all(0 <= one["seconds"] < math.inf for one in found.values()) else "a time that cannot be"


def _response(folder: Path) -> None:
    from policies.bundle.shipped import bundle_file
    from policies.navigation.response import SUFFIX

    shutil.copy(bundle_file("walk").with_suffix(SUFFIX), folder / "response.json")


def _read_response(folder: Path) -> Any:
    from policies.navigation.response import Response

    return Response.read(folder / "response.json")


def _any_finite(found: Any, _: Any) -> str:
    return "" if _finite(found) else "a number is not finite"


def _robot(folder: Path) -> None:
    from sim.robots.description import default_robot

    text = default_robot().mjcf.read_text()
    (folder / "model.xml").write_text(re.sub(r"<site [^>]*/>", "", text))  # `robot add` gives it its own


def _read_robot(folder: Path) -> Any:
    from policies.evaluation.new_robot import add
    from policies.evaluation.options import RobotAddOptions
    from sim.course.scene import build
    from sim.course.terrain import Terrain
    from sim.robots.description import find_robot

    found = add(RobotAddOptions(name=folder.name, model=folder / "model.xml", robots=folder / "robots"))
    robot = find_robot(str(folder / "robots" / folder.name))
    model = build(robot, Terrain())
    moves = model.body_dofnum > 0
    driven = sorted(model.joint(int(k)).name for k in model.actuator_trnid[:, 0])
    return dict(found.items()), robot, model.body_mass[moves], driven


def _sound_robot(found: Any, _: Any) -> str:
    """What is promised of every description that is read: it can be built, driven and held up by what it says."""
    measures, robot, masses, driven = found
    names = robot.joint_names
    if not all(map(_finite, (measures, robot))):
        return "a number is not finite"
    if len(names) != 12 or len(set(names)) != 12 or not all(name.strip() for name in names):
        return f"joints {names}"
    if driven != sorted(names):
        return f"actuators for {driven}"
    if not (masses > 0).all() or not 0.1 < measures["mass_kg"] < 2000:
        return f"masses {masses.tolist()}"
    ends = np.array([robot.joint_lower, robot.joint_upper])
    if not (ends[0] < ends[1]).all() or abs(ends).max() > 13:
        return "joint ranges that cannot be"
    for name in ("default_pose", "folded_pose"):
        pose = getattr(robot, name)
        if not ((robot.joint_lower - 1e-3 <= pose) & (pose <= robot.joint_upper + 1e-3)).all():
            return f"a {name} beyond the joints' ranges"
    for name in ("kp", "kd", "torque_limit", "no_load_speed", "armature", "joint_friction", "joint_damping"):
        values = getattr(robot, name)
        if not (values > 0).all() or values.max() > 1e4:
            return f"a {name} that cannot be"
    sizes = list(leaves([robot.standing_height, robot.foot_radius, robot.footprint]))
    return "" if all(0 < size < 5 for size in sizes) else f"sizes {sizes}"


def _knowledge(folder: Path) -> None:
    rows = ({"question": f"what is {i}?", "knowledge": f"{i} is a number"} for i in range(6))
    (folder / "knowledge.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _read_knowledge(folder: Path) -> Any:
    from distill.language.knowledge import KnowledgeBase

    return [asdict(entry) for entry in KnowledgeBase.load(folder / "knowledge.jsonl").entries]


def _table(folder: Path) -> None:
    shown = {"score_mean": 0.9, "all_obstacles": 1, "fell": 0, "walk_falls": 0, "time_s_median": None}
    rows = [{"engine": "MuJoCo", "change": f"{k}", **shown, "velocity_error": 0.2} for k in range(3)]
    (folder / "sim2sim.json").write_text(json.dumps({"runs": 1, "rows": rows}, indent=1))


def _read_table(folder: Path) -> Any:
    from policies.evaluation import sim2sim

    return sim2sim._kept(folder / "sim2sim.json", {"runs": 1})


def _itself(found: Any) -> Any:
    return found


SUMS = "SHA256SUMS"
TRAINED = tuple(f"step_000000001000/{name}" for name in ("arrays.safetensors", "state.json", SUMS))
DISTILLED = tuple(f"checkpoint/{name}" for name in ("tensors.pt", "state.json", SUMS))
KINDS = (
    Kind("bundle", ("walk.onnx",), _bundle, _read_bundle, _same_bundle, text=False,
         words=("inspect", "FOLDER/walk.onnx")),
    Kind("bundle metadata", ("metadata.json",), _metadata, _read_bundle, _plausible_bundle, tree=True, reseal=_stamp,
         words=("inspect", "FOLDER/walk.onnx"), said=lambda found: found[0]),
    Kind("recording", ("loop.mcap",), _steps, _read_mcap, _begins_alike, text=False,
         words=("onboard", "replay", "FOLDER/loop.mcap")),
    Kind("packed recording", ("loop.mcap",), _packed, _read_mcap, _begins_alike, text=False,
         words=("onboard", "convert", "FOLDER/loop.mcap", "FOLDER/new.mcap")),
    Kind("old recording", ("loop.rec",), lambda folder: _steps(folder, old=True), _read_old, _begins_alike, text=False,
         words=("onboard", "convert", "FOLDER/loop.rec", "FOLDER/new.mcap")),
    Kind("training checkpoint", TRAINED, _training, _read_training, _same_arrays, text=False,
         words=("export", "FOLDER/step_000000001000", "FOLDER/new.onnx")),
    Kind("distillation checkpoint", DISTILLED, _distillation, _read_distillation, _same_arrays, text=False),
    Kind("course", ("course.yaml",), _course, _read_course, _sound_course,
         words=("score", "FOLDER/run.csv", "--course", "FOLDER/course.yaml"), said=_itself),
    Kind("pose log", ("run.csv",), _course, _read_log, _sound_log, words=("score", "FOLDER/run.csv"),
         said=lambda found: found[0]),
    Kind("onboard parameters", ("parameters.yaml",), _launch("onboard.yaml"), _read_launch("onboard"),
         _sound_parameters, words=("onboard", "--parameters", "FOLDER/parameters.yaml"), said=_itself),
    Kind("launch parameters", ("parameters.yaml",), _launch("course.yaml"),
         _read_launch("sim", "onboard", "navigator", "referee"), _sound_parameters, said=_itself),
    Kind("unitree parameters", ("parameters.yaml",), _launch("unitree.yaml"), _read_launch("onboard", "unitree"),
         _sound_parameters, words=("onboard", "--transport", "unitree", "--parameters", "FOLDER/parameters.yaml"),
         said=_itself),
    Kind("texts", ("rows.jsonl",), _data, _read_data("rows.jsonl"), _sound_data, tree=True, said=_itself),
    Kind("table of texts", ("rows.csv",), _csv_data, _read_data("rows.csv"), _sound_data, said=_itself),
    Kind("labelled texts", ("rows.csv",), _labelled, _read_labelled, _sound_labels, said=lambda found: found[:2]),
    Kind("language options", ("options.yaml",), _config, _read_config, _sound_options,
         words=("distill", "language", "--config", "FOLDER/options.yaml"), said=_itself),
    Kind("language run", ("options.json",), _begun, _read_begun, _measured, tree=True, said=_itself),
    Kind("knowledge", ("knowledge.jsonl",), _knowledge, _read_knowledge, _sound_data, tree=True, said=_itself),
    Kind("recipe", ("seed_0/arms.json", "options.json"), _recipe, _read_recipe, _results, tree=True, said=_itself),
    Kind("response", ("response.json",), _response, _read_response, _any_finite, tree=True, said=_itself),
    Kind("sim2sim table", ("sim2sim.json",), _table, _read_table, _any_finite, tree=True, said=_itself),
    Kind("robot model", ("model.xml",), _robot, _read_robot, _sound_robot,
         words=("robot", "add", "again", "FOLDER/model.xml", "--robots", "FOLDER/robots")),
)  # fmt: skip


# --- the campaign -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of one file."""

    kind: str
    number: int
    outcome: str
    words: str
    """What was said, or is wrong."""


def door(words: Sequence[str]) -> tuple[int, str, str]:
    """Exit status and what the command line says on standard output and standard error, asked in a forked process."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, open(os.devnull) as nothing:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                for number, file in enumerate((nothing, out, err)):
                    os.dup2(file.fileno(), number)
                sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
                sys.argv = ["barkour", *words]
                try:
                    status = import_module("barkour").main()
                except SystemExit as ended:
                    status = ended.code if isinstance(ended.code, int) else 1
                except BaseException:
                    traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


class Reader:
    """Makes, changes and reads the files of one process."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.seed = place, seed
        self._sound: dict[str, Any] = {}

    def sound(self, kind: Kind) -> Any:
        """What the kind's own specimen gives, read once."""
        if kind.name not in self._sound:
            folder = self.place / f"s_{kind.name.replace(' ', '_')}"
            folder.mkdir(exist_ok=True)
            kind.make(folder)
            self._sound[kind.name] = kind.read(folder)
        return self._sound[kind.name]

    def one(self, number: int) -> Outcome:
        """The mutant of that number: its kind and changes follow from the seed and it alone."""
        kind = KINDS[number % len(KINDS)]
        rng, folder = random.Random(f"{self.seed} {number}"), self.place / f"m{number}"
        self.sound(kind)
        try:
            folder.mkdir()
            kind.make(folder)
            file = folder / rng.choice(kind.files)
            file.write_bytes(changed(rng, file.read_bytes(), kind))
            if kind.reseal is not None:
                kind.reseal(folder)
            return Outcome(kind.name, number, *self._read(kind, folder, file))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _read(self, kind: Kind, folder: Path, file: Path) -> tuple[str, str]:
        try:
            found = kind.read(folder)
        except (InputError, DistillError) as error:
            return self._refusal(kind, folder, str(error))
        except MemoryError as error:
            return "traceback", repr(error)
        except Exception as error:
            return "traceback", f"{type(error).__name__}: {error}"[:300]
        sound = self._sound[kind.name]
        wrong = kind.wrong(found, sound)
        if not wrong and kind.said is not None:
            wrong = unwritten(kind.said(found), kind.said(sound), file.read_bytes())
        if wrong:
            return "nonsense", wrong
        return "same" if same(found, sound) else "accepted", ""

    def _refusal(self, kind: Kind, folder: Path, said: str) -> tuple[str, str]:
        if not said or len(said) > 2000 or "Traceback" in said:
            return "lines", repr(said[:300])
        if kind.words:
            status, out, err = door([word.replace("FOLDER", str(folder)) for word in kind.words])
            if status != 2:
                return "status", f"{status}: {err[:300]}"
            if out or err.count("\n") != 1 or not err.rstrip("\n").isprintable():
                return "lines", repr(err[:300])
        return "refused", said[:200]


def _serve(connection: Any, place: str, seed: int) -> None:
    """Imports what the readers need once, then forks a process of its own for each file whose number it is sent."""
    sys.stdout = sys.stderr = io.StringIO()
    reader = Reader(Path(place), seed)
    import_module("barkour")
    while (asked := connection.recv()) is not None:
        number, limit = asked
        reader.sound(KINDS[number % len(KINDS)])
        connection.send(_apart(reader, number, limit))


def _apart(reader: Reader, number: int, limit: float) -> Outcome:
    """Reads one file in a forked process with limits on time and memory; it and its children end with that."""
    name = KINDS[number % len(KINDS)].name
    out, into = os.pipe()
    gc.freeze()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, hard))
            found = reader.one(number)
            os.write(into, json.dumps([found.outcome, found.words[:1000]]).encode())
        except BaseException as error:  # of this bench itself
            os.write(into, json.dumps(["crash", repr(error)[:1000]]).encode())
        finally:
            os._exit(0)
    os.close(into)
    try:
        said = b""
        while select.select([out], [], [], limit)[0]:
            part = os.read(out, 1 << 16)
            if not part:
                break
            said += part
        else:
            return Outcome(name, number, "hang", f"no answer in {limit} s")
        return Outcome(name, number, *json.loads(said)) if said else Outcome(name, number, "crash", "it ended")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(out)
        shutil.rmtree(reader.place / f"m{number}", ignore_errors=True)


def outcomes(numbers: Sequence[int], seed: int, limit: float = LIMIT) -> Iterator[Outcome]:
    """What comes of the mutants of those numbers, each read in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        ours, theirs = spawn.Pipe()
        server = spawn.Process(target=_serve, args=(theirs, place, seed), daemon=True)
        server.start()
        theirs.close()
        try:
            for number in numbers:
                ours.send((number, limit))
                yield ours.recv()
        finally:
            server.kill()
            server.join()


def _kept(file: Path | None, seed: int) -> dict[int, Outcome]:
    """What a campaign that was ended left, up to the line that was being written."""
    found: dict[int, Outcome] = {}
    if file is None or not file.exists():
        return found
    for line in file.read_text().splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if row.pop("seed") == seed:
                found[row["number"]] = Outcome(**row)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="file of outcomes, one a line: what is in it is not read again")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table")
    options = parser.parse_args(arguments)
    numbers = range(options.first, options.first + options.files)
    kept = _kept(options.keep, options.seed)
    every = [kept[number] for number in numbers if number in kept]
    began = time.monotonic()
    with contextlib.ExitStack() as ending:
        file = ending.enter_context(options.keep.open("a")) if options.keep else None
        for found in outcomes([number for number in numbers if number not in kept], options.seed):
            every.append(found)
            if file is not None:
                file.write("\n" * (found is every[0]) + json.dumps({"seed": options.seed, **asdict(found)}) + "\n")
                file.flush()
            if found.outcome in FAULTS:
                print(f"{found.number} {found.kind}: {found.outcome}: {found.words}", file=sys.stderr, flush=True)
    table: dict[str, Counter[str]] = {kind.name: Counter() for kind in KINDS}
    for found in every:
        table[found.kind][found.outcome] += 1
    total = sum(table.values(), Counter[str]())
    names = ("same", "accepted", "refused", *FAULTS)
    if options.json:
        seconds = time.monotonic() - began
        counts = {name: {each: counts[each] for each in names} for name, counts in [*table.items(), ("all", total)]}
        print(json.dumps({"files": len(every), "seed": options.seed, "seconds": seconds, "counts": counts}, indent=2))
    else:
        print(f"| kind of file | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
        for name, counts in [*table.items(), ("all", total)]:
            print(f"| {name} | {' | '.join(str(counts[each]) for each in names)} |")
    return 1 if any(total[name] for name in FAULTS) else 0


if __name__ == "__main__":
    sys.exit(main())
