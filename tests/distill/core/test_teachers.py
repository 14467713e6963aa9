"""Teachers: a local model is left as it was; a cache returns the same numbers, no other teacher's and no damage."""

import pytest
import torch
from torch import nn

from distill.core.errors import DistillError
from distill.core.signals import Actions, Attention, DenseLogits, HiddenStates, TeacherSignal, Text, TopKLogits
from distill.core.teachers import DiskCache, LocalModel, Teacher

torch.set_num_threads(1)


def network(seed: int = 0, width: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Linear(5, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 7)
    return nn.Sequential(*layers)


def logits(module: nn.Module, batch) -> DenseLogits:
    return DenseLogits(module(batch["x"]))


def teacher(seed: int = 0, **changes) -> LocalModel:
    return LocalModel(**{"module": network(seed), "read": logits, "kind": DenseLogits, "name": "logits"} | changes)


def batch(seed: int = 0, rows: int = 4) -> dict[str, torch.Tensor]:
    return {"x": torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed)), "ids": torch.arange(rows)}


class Scripted:
    """A teacher that gives a set signal and counts how often it was asked."""

    def __init__(self, signal: TeacherSignal, name: str = "scripted"):
        self.kind, self.signal, self.name, self.asked = type(signal), signal, name, 0

    def label(self, batch) -> TeacherSignal:
        self.asked += 1
        return self.signal

    def fingerprint(self) -> str:
        return self.name


def test_both_kinds_of_teacher_keep_to_the_protocol(tmp_path):
    assert isinstance(teacher(), Teacher) and isinstance(DiskCache(teacher(), tmp_path), Teacher)
    assert DiskCache(teacher(), tmp_path).kind is DenseLogits
    assert DiskCache(teacher(), tmp_path).fingerprint() == teacher().fingerprint()


def test_labels_are_those_of_evaluation_mode_without_gradient():
    local, x = teacher(), batch()
    expected = network().eval()(x["x"])
    local.module.train()
    seen = []

    def read(module: nn.Module, batch) -> DenseLogits:
        seen.append((torch.is_grad_enabled(), module.training, module(batch["x"]).requires_grad))
        return logits(module, batch)

    local.read = read
    signal = local.label(x)
    assert isinstance(signal, DenseLogits) and torch.equal(
        signal.logits, expected
    )  # neither dropout nor batch statistics
    assert seen == [(False, False, False)]


def test_labelling_leaves_the_model_as_it_was():
    local = teacher()
    local.module.train()
    local.module[1].eval()  # type: ignore[index]
    before = {name: value.clone() for name, value in local.module.state_dict().items()}
    modes = [part.training for part in local.module.modules()]
    local.label(batch())
    assert all(torch.equal(before[name], value) for name, value in local.module.state_dict().items())
    assert [part.training for part in local.module.modules()] == modes == [True, True, False, True, True]
    assert all(p.requires_grad and p.grad is None for p in local.module.parameters())


def test_modes_come_back_after_a_failure_too():
    def fail(module: nn.Module, batch) -> DenseLogits:
        raise RuntimeError("no such input")

    local = teacher(read=fail)
    with pytest.raises(RuntimeError, match="no such input"):
        local.label(batch())
    assert local.module.training and torch.is_grad_enabled()


def test_a_reader_that_changes_the_model_or_gives_something_else_is_refused():
    def changing(module: nn.Module, batch) -> DenseLogits:
        signal = logits(module, batch)
        module[0].weight.mul_(0.9)  # type: ignore[index]
        return signal

    with pytest.raises(DistillError, match="teacher 'logits' changed its own parameters"):
        teacher(read=changing).label(batch())
    with pytest.raises(DistillError, match="teacher 'logits' should give actions, got DenseLogits"):
        teacher(kind=Actions).label(batch())
    with pytest.raises(DistillError, match="needs a name"):
        teacher(name="")


def test_a_fingerprint_tells_apart_what_may_differ_and_nothing_else():
    base = teacher().fingerprint()
    assert teacher().fingerprint() == base  # another object with the same weights
    others = [
        teacher(seed=1),
        teacher(name="logits at temperature 2"),
        teacher(kind=TopKLogits),
        teacher(module=network(width=9)),
        teacher(module=nn.Sequential(*list(network())[:2], nn.Dropout(0.4), network()[3])),  # type: ignore[index]
        teacher(module=network().double()),
    ]
    prints = {base} | {other.fingerprint() for other in others}
    assert len(prints) == 1 + len(others)


def test_a_fingerprint_follows_changes_of_parameters_and_buffers():
    local = teacher()
    prints = [local.fingerprint()]
    with torch.no_grad():
        local.module[0].bias.add_(1e-3)  # type: ignore[index]
    prints.append(local.fingerprint())
    local.module[1].running_mean.add_(1e-3)  # type: ignore[index]
    prints.append(local.fingerprint())
    local.module[3] = nn.Linear(8, 7)  # type: ignore[index]
    prints.append(local.fingerprint())
    assert len(set(prints)) == 4
    local.module.load_state_dict(network().state_dict())
    assert local.fingerprint() == prints[0]


def test_a_second_look_at_a_batch_comes_from_the_disk(tmp_path):
    inner = teacher()
    first = DiskCache(inner, tmp_path)
    signal = first.label(batch())
    assert (first.hits, first.misses) == (0, 1)
    later = DiskCache(teacher(read=lambda module, batch: pytest.fail("asked again")), tmp_path)
    again = later.label(batch())
    assert (later.hits, later.misses) == (1, 0)
    assert isinstance(again, DenseLogits) and torch.equal(again.logits, inner.label(batch()).logits)  # type: ignore
    assert torch.equal(again.logits, signal.logits)  # type: ignore[attr-defined]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b | {"x": b["x"] + 1e-6},
        lambda b: b | {"x": b["x"].double()},
        lambda b: b | {"x": b["x"].reshape(2, 10)},
        lambda b: {"y": b["x"], "ids": b["ids"]},
        lambda b: b | {"more": torch.zeros(0)},
        lambda b: b | {"x": b["x"].flip(0)},
    ],
)
def test_another_batch_is_another_file(tmp_path, change):
    cache = DiskCache(Scripted(Text(("a",))), tmp_path)
    cache.label(batch())
    cache.label(change(batch()))
    assert (cache.hits, cache.misses) == (0, 2)
    shuffled = dict(reversed(batch().items()))
    shuffled["x"] = shuffled["x"].T.contiguous().T  # other order of names, other strides, same numbers
    cache.label(shuffled)
    assert (cache.hits, cache.misses) == (1, 2)


SIGNALS = [
    DenseLogits(torch.randn(4, 7).bfloat16()),
    TopKLogits.from_logits(torch.randn(4, 7), 3, temperature=1.7),
    Text(("", "hopp", "über")),
    HiddenStates((torch.ones(4, 3),) * 2),  # two layers in the same memory
    Attention((torch.eye(3).expand(4, 2, 3, 3),), scores=True),
    Actions(torch.randn(4, 12).T.contiguous().T, torch.ones(4, 12)),
]


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.KIND)
def test_every_kind_of_signal_comes_back_from_the_disk(tmp_path, signal):
    inner = Scripted(signal)
    cache = DiskCache(inner, tmp_path)
    cache.label(batch())
    again = cache.label(batch())
    assert inner.asked == 1 and type(again) is type(signal)
    want, got = signal.tensors(), again.tensors()
    assert want.keys() == got.keys() and all(
        torch.equal(want[k], got[k]) and want[k].dtype == got[k].dtype for k in want
    )


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize(
    "damage", [truncate, flip, lambda data: b"", lambda data: b"\xff" * 64, lambda data: data + b"x"]
)
def test_a_damaged_file_is_noticed_made_again_and_replaced(tmp_path, damage, caplog):
    cache = DiskCache(teacher(), tmp_path)
    cache.label(batch())
    path = cache.path(batch())
    good = path.read_bytes()
    path.write_bytes(damage(good))
    signal = cache.label(batch())
    assert torch.equal(signal.logits, teacher().label(batch()).logits)  # type: ignore[attr-defined]
    assert (cache.hits, cache.misses) == (0, 2) and path.read_bytes() == good
    assert "damaged" in caplog.text
    cache.label(batch())
    assert cache.hits == 1


def test_teachers_that_share_a_folder_never_share_a_signal(tmp_path):
    caches = [DiskCache(teacher(seed), tmp_path) for seed in (0, 1)]
    for _ in range(2):
        for seed, cache in enumerate(caches):
            signal = cache.label(batch())
            assert torch.equal(signal.logits, teacher(seed).label(batch()).logits)  # type: ignore[attr-defined]
    assert [(cache.hits, cache.misses) for cache in caches] == [(1, 1), (1, 1)]


def test_a_file_in_another_teachers_place_is_not_believed(tmp_path):
    mine, other = DiskCache(teacher(0), tmp_path), DiskCache(teacher(1), tmp_path)
    other.label(batch())
    mine.path(batch()).parent.mkdir()
    other.path(batch()).rename(mine.path(batch()))
    signal = mine.label(batch())
    assert (mine.hits, mine.misses) == (0, 1)
    assert torch.equal(signal.logits, teacher(0).label(batch()).logits)  # type: ignore[attr-defined]


def test_a_teacher_that_learns_on_is_a_new_teacher_to_the_cache(tmp_path):
    inner = teacher()
    cache = DiskCache(inner, tmp_path)
    cache.label(batch())
    with torch.no_grad():
        inner.module[3].bias.add_(1.0)  # type: ignore[index]
    signal = cache.label(batch())
    assert torch.equal(signal.logits, inner.label(batch()).logits)  # type: ignore[attr-defined]
    assert (cache.hits, cache.misses) == (0, 2)


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    cache = DiskCache(teacher(), tmp_path)

    def full(*args):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError, match="no space left"):
            cache.label(batch())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    cache.label(batch())
    assert (cache.hits, cache.misses) == (0, 2)


def test_batches_that_cannot_be_keyed_are_refused(tmp_path):
    cache = DiskCache(teacher(), tmp_path)
    with pytest.raises(DistillError, match="at least one tensor"):
        cache.label({})
    with pytest.raises(DistillError, match="'x' must be a tensor to be cached, got list"):
        cache.label({"x": [1.0]})  # type: ignore[dict-item]
