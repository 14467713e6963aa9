"""Teachers: what labels a batch with a signal. A local model here, and a cache on disk around any teacher."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from distill.core import sharding
from distill.core.errors import DistillError
from distill.core.reading import check_regular
from distill.core.signals import Actions, DenseLogits, HiddenStates, TeacherSignal

log = logging.getLogger(__name__)

Found = TypeVar("Found")
Batch = Mapping[str, Tensor]
"""Named tensors of one batch: token ids and masks, or observations."""


@runtime_checkable
class Teacher(Protocol):
    """Labels batches."""

    @property
    def kind(self) -> type[TeacherSignal]:
        """The kind of signal it gives; `Objective.require` says whether an objective takes it."""
        ...

    def label(self, batch: Batch) -> TeacherSignal:
        """What the teacher says about the batch, on the batch's device."""
        ...

    def fingerprint(self) -> str:
        """Hexadecimal text that differs between teachers whose signals may differ, and stays between sessions."""
        ...


class Teachers:
    """Several teachers of one batch, by the names of the parts of an `objectives.base.WeightedSum`."""

    def __init__(self, named: Mapping[str, Teacher]):
        if not named:
            raise DistillError("several teachers need at least one")
        self.named = dict(named)

    def label(self, batch: Batch) -> dict[str, TeacherSignal]:
        """Name -> the signal of that teacher."""
        return {name: teacher.label(batch) for name, teacher in self.named.items()}

    def fingerprint(self) -> str:
        """Of all of them together."""
        return digest_of(json.dumps({name: teacher.fingerprint() for name, teacher in self.named.items()}), {})


class RecordedLogits:
    """A teacher whose logits were written down with the rows, `logits` `[B, ..., V]` in any float type."""

    kind = DenseLogits

    def __init__(self, name: str = "logits") -> None:
        self.name = name

    def label(self, batch: Batch) -> DenseLogits:
        """The recorded logits in float32."""
        return DenseLogits(batch[self.name].float())

    def fingerprint(self) -> str:
        """Nothing but the data decides the labels."""
        return f"{self.name.encode().hex()}01"


class RecordedStates:
    """A teacher whose states of each row were written down with it, `states` `[B, ..., D]` in any float type."""

    kind = HiddenStates

    def __init__(self, name: str = "states") -> None:
        self.name = name

    def label(self, batch: Batch) -> HiddenStates:
        """The recorded states in float32, as one layer."""
        return HiddenStates((batch[self.name].float(),))

    def fingerprint(self) -> str:
        """Nothing but the data decides the labels."""
        return f"{self.name.encode().hex()}06"


class RecordedActions:
    """A teacher whose actions were written down with the rows: one with a memory must be asked while the robot runs."""

    kind = Actions

    def label(self, batch: Batch) -> Actions:
        """The recorded `action`."""
        return Actions(batch["action"])

    def fingerprint(self) -> str:
        """Nothing but the experience itself decides the labels."""
        return "00"


class LocalModel:
    """A torch module in this process, and a function that reads a signal out of it.

    Labelling runs in evaluation mode and without gradients, and leaves parameters, buffers and modes as they were.
    """

    def __init__(
        self,
        module: nn.Module,
        read: Callable[[nn.Module, Batch], TeacherSignal],
        kind: type[TeacherSignal],
        name: str,
    ):
        """`name` says what `read` does, with its settings, such as `top-5 at temperature 2`.

        It is part of the fingerprint, as code cannot be compared: change it whenever `read` changes.
        """
        if not name:
            raise DistillError("a local teacher needs a name for what is read out of it")
        self.module, self.read, self.kind, self.name = module, read, kind, name
        self._known: tuple[list[tuple[str, Tensor, int | None]], str, str] | None = None

    def label(self, batch: Batch) -> TeacherSignal:
        """The signal. Raises `DistillError` if `read` gives another kind or changes the module's own tensors.

        Buffers that are not saved with the module may be renewed: rotary frequencies that depend on the length are.
        """
        signal = _asked(self.module, self.read, batch, self.name)
        if not isinstance(signal, self.kind):
            raise DistillError(f"teacher '{self.name}' should give {self.kind.KIND}, got {type(signal).__name__}")
        return signal

    def fingerprint(self) -> str:
        """Hash of name, kind, architecture (as printed), config, parameters and buffers, and of mixed precision.

        The config holds what no weight shows, such as how far attention reaches; under autocast the same weights say
        something else. Buffers that are not saved are made from the config, where there is one.

        Weights are read again after every change in place (optimiser steps, `load_state_dict`); changes made through
        `.data`, which torch does not count, are not noticed. A module that is spread over processes has the hash of the
        whole one; all of them have to ask.
        """
        versions = _versions(self.module)
        counted = all(count is not None for _, _, count in versions)
        made = sharding.printed(self.module)
        about = f"{self.name}\n{self.kind.KIND}\n{made}\n{_config(self.module)}\n{_autocast(self.module)}"
        known = self._known is not None and self._known[1] == about and _unchanged(self._known[0], versions)
        if self._known is None or not known or not counted:
            self._known = versions, about, digest_of(about, dict(_own_tensors(self.module)))
        return self._known[2]


class OneModel(Teachers):
    """Several signals of one module, which are read out of it in one pass; and other teachers beside them."""

    def __init__(
        self,
        module: nn.Module,
        read: Callable[[nn.Module, Batch], Mapping[str, TeacherSignal]],
        kinds: Mapping[str, type[TeacherSignal]],
        name: str,
        others: Mapping[str, Teacher] | None = None,
    ):
        """`read` gives a signal for every name of `kinds`; `name` is as for `LocalModel`."""
        parts = {part: LocalModel(module, lambda m, b, p=part: read(m, b)[p], kinds[part], name) for part in kinds}
        super().__init__({**parts, **(others or {})})
        self.module, self.read, self.kinds, self.name, self.others = module, read, dict(kinds), name, dict(others or {})

    def label(self, batch: Batch) -> dict[str, TeacherSignal]:
        """Name -> signal. Raises `DistillError` where one is of another kind, or as `LocalModel.label`."""
        found = dict(_asked(self.module, self.read, batch, self.name)) if self.kinds else dict[str, TeacherSignal]()
        for part, kind in self.kinds.items():
            if not isinstance(found.get(part), kind):
                got = type(found.get(part)).__name__
                raise DistillError(f"teacher '{self.name}' should give {kind.KIND} for '{part}', got {got}")
        return {**{part: found[part] for part in self.kinds}, **{n: t.label(batch) for n, t in self.others.items()}}


def _asked(module: nn.Module, read: Callable[[nn.Module, Batch], Found], batch: Batch, name: str) -> Found:
    """What `read` finds in evaluation mode and without gradients; it must leave the module as it was."""
    before = _versions(module)
    with _evaluating(module), torch.no_grad():
        found = read(module, batch)
    if not _unchanged(before, _versions(module)):
        raise DistillError(f"teacher '{name}' changed its own parameters or buffers while it labelled a batch")
    return found


class DiskCache:
    """A teacher that remembers another one's signals on disk, one safetensors file for each different batch.

    Files lie in a folder of the teacher's fingerprint and hold it, with a checksum: signals of different teachers never
    mix, and a damaged file is found, labelled again and replaced. Files are put in place whole, so that several
    processes may share a folder. `hits` and `misses` count the batches.
    """

    def __init__(self, teacher: Teacher, folder: Path | str):
        self.teacher, self.folder = teacher, Path(folder)
        self.hits = self.misses = 0

    @property
    def kind(self) -> type[TeacherSignal]:
        """The teacher's."""
        return self.teacher.kind

    def fingerprint(self) -> str:
        """The teacher's: what it says is the same."""
        return self.teacher.fingerprint()

    def label(self, batch: Batch) -> TeacherSignal:
        """The teacher's signal, from disk where this batch was labelled before; raises what the teacher raises."""
        path, identity = self._place(batch)
        signal = self._load(path, identity)
        if signal is None:
            self.misses += 1
            signal = self.teacher.label(batch)
            _write(path, signal, identity)
        else:
            self.hits += 1
        return signal.to(next(iter(batch.values())).device)

    def path(self, batch: Batch) -> Path:
        """Where the batch's signal is or would be."""
        return self._place(batch)[0]

    def _place(self, batch: Batch) -> tuple[Path, str]:
        """The file of a batch, and the line of metadata that says whose signal it holds."""
        if not batch:
            raise DistillError("a batch needs at least one tensor to be cached")
        fingerprint = self.fingerprint()
        key = digest_of(fingerprint, batch)
        identity = json.dumps({"teacher": fingerprint, "batch": key, "kind": self.kind.KIND})
        return self.folder / fingerprint[:16] / f"{key}.safetensors", identity

    def _load(self, path: Path, identity: str) -> TeacherSignal | None:
        if not path.exists():
            return None
        try:
            return _read(path, identity, self.kind)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            log.warning("cached signal %s is damaged and made again: %s", path, error)
            return None


@contextmanager
def _evaluating(module: nn.Module) -> Generator[None]:
    """Evaluation mode; each submodule gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and buffers: those alone that are saved, where a config says how the others are made."""
    yield from module.named_parameters()
    passing: set[str] = set()
    if _config(module):
        for name, part in cast("Iterator[tuple[str, Any]]", module.named_modules()):  # torch types neither
            passing |= {f"{name}.{buffer}" if name else buffer for buffer in part._non_persistent_buffers_set}
    for name, buffer in module.named_buffers():
        if name not in passing:
            yield name, buffer


def _config(module: nn.Module) -> str:
    """The settings that a model carries, without where it was loaded from and by which version."""
    config: Any = getattr(module, "config", None)
    if not hasattr(config, "to_dict"):
        return ""
    settings = {k: v for k, v in config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    return json.dumps(settings, sort_keys=True, default=str)


def _autocast(module: nn.Module) -> str:
    """The type that mixed precision computes in just now, where it is on."""
    kind = next((tensor.device.type for tensor in module.parameters()), "cpu")
    return str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else ""


def _versions(module: nn.Module) -> list[tuple[str, Tensor, int | None]]:
    """The module's tensors and how often each was changed in place; torch does not count it for inference tensors."""
    return [(name, tensor, None if tensor.is_inference() else tensor._version) for name, tensor in _own_tensors(module)]


def _unchanged(before: list[tuple[str, Tensor, int | None]], after: list[tuple[str, Tensor, int | None]]) -> bool:
    """Whether both are the same tensors at the same count."""
    return len(before) == len(after) and all(
        a[0] == b[0] and a[1] is b[1] and a[2] == b[2] for a, b in zip(before, after, strict=True)
    )


def digest_of(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a text and of named tensors: names, dtypes, shapes and bytes."""
    state = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        if not isinstance(cast("object", tensor), Tensor):
            raise DistillError(f"'{name}' must be a tensor to be cached, got {type(tensor).__name__}")
        state.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        state.update(sharding.entire(tensor.detach()).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _write(path: Path, signal: TeacherSignal, identity: str) -> None:
    """Put the file in place whole, or not at all."""
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in signal.tensors().items()
    }
    metadata = {"about": json.dumps([identity, digest_of(identity, tensors)])}  # one entry: several have no set order
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem[:16], suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(safetensors.torch.save(tensors, metadata))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read(path: Path, identity: str, kind: type[TeacherSignal]) -> TeacherSignal:
    """Raises `ValueError`, `OSError` or `SafetensorError` for a file that is not what was written for `identity`."""
    check_regular(path)
    opened: Any = safetensors.safe_open(path, "pt")  # from Rust, without types
    with opened as file:
        metadata: dict[str, str] = file.metadata() or {}
        about = json.loads(metadata.get("about", "[]"))
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    if about != [identity, digest_of(identity, tensors)]:
        raise DistillError("it does not hold what was written for this teacher and batch")
    return kind.from_tensors(tensors)
