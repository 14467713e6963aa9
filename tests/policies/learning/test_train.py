"""Training runs: what they leave, how they continue, what they refuse, and that they learn."""

import fcntl
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from policies.bundle.shipped import bundle_file
from policies.learning import checkpoint, runs
from policies.learning import train as training
from policies.learning.options import TrainOptions
from policies.learning.train import FILES, STALL_ITERATIONS, STEPS, Run, source_of, stall_warning, train
from sim.envs.batched import DivergedError
from sim.errors import InputError
from sim.tasks.patches import LEVELS
from sim.tasks.skills import TASKS, jump

WORLDS = 24


def options(folder: Path, **changes) -> TrainOptions:
    return replace(TrainOptions("walk", worlds=WORLDS, out=folder, seed=3), **changes)


def newest(folder: Path) -> Path:
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    return found


def leaves(run: Run) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(run.state)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> tuple[Run, Path]:
    """A run after its first iteration, with its folder: a checkpoint in `run`, parameters alone in `start`."""
    folder = tmp_path_factory.mktemp("begun")
    run = Run(options(folder / "run"))
    run.iterate()
    run.save()
    run.save_start(folder / "start")
    return run, folder


@pytest.fixture
def copy(begun, tmp_path) -> Path:
    """A copy of that run's folder, to be changed."""
    shutil.copytree(begun[1] / "run", tmp_path / "run")
    return tmp_path / "run"


def test_resume_continues_bit_for_bit(begun, copy, tmp_path, capsys):
    straight = Run(options(tmp_path / "straight", resume=True))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(tmp_path / "straight") in said, "it begins anew, and says so"
    for _ in range(3):
        straight.iterate()
    resumed = Run(options(copy, resume=True))
    assert resumed.steps == begun[0].steps > 0
    for _ in range(2):
        resumed.iterate()
    assert resumed.steps == straight.steps
    for a, b in zip(leaves(straight), leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("source", ["run", "start"])
def test_a_run_may_begin_with_anothers_parameters_and_takes_small_steps_at_first(begun, tmp_path, source):
    first, folder = begun
    assert sum(file.stat().st_size for file in (folder / "start").iterdir()) < 2e6
    second = Run(options(tmp_path, skill="climb", seed=9, start_from=folder / source))
    for a, b in zip(jax.tree.leaves(first.state.params), jax.tree.leaves(second.state.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert second.steps == 0 and second.description()["skill"] == "climb"
    assert second.state.learning_rate == np.float32(second.learner.config.warm_learning_rate)
    assert "--start-from" in second.command() and "--seed 9" in second.command()


def test_another_robots_walker_may_begin_to_see_what_comes(begun, tmp_path):
    """Translated and widened: the preview changes none of the actions that the walker has without."""
    plain, seeing = (
        Run(options(tmp_path / preview, robot="unitree_go2", preview=preview, start_from=begun[1] / "start"))
        for preview in ("none", "velocity")
    )
    narrow, wider = (
        np.asarray(run.state.params.policy["params"]["MLP_0"]["hidden_0"]["kernel"]) for run in (plain, seeing)
    )
    part = seeing.task.layout.slices()["preview"]
    assert part.stop - part.start == len(wider) - len(narrow) > 0 and not np.any(wider[part])
    np.testing.assert_array_equal(np.delete(wider, np.r_[part], 0), narrow)
    seeing.save_start(tmp_path / "start")
    again = options(tmp_path / "again", preview="velocity", start_from=tmp_path / "start")
    back = np.asarray(Run(again).state.params.policy["params"]["MLP_0"]["hidden_0"]["kernel"])
    assert back.shape == wider.shape, "a preview that was there is kept"
    assert not np.any(back[part])


def test_a_folder_with_a_run_is_not_overwritten(copy):
    with pytest.raises(InputError, match="--resume"):
        Run(options(copy))


@pytest.mark.parametrize("name", [*FILES, "walk.onnx", runs.MARK])
def test_what_is_not_of_this_run_is_not_replaced(name, tmp_path):
    (tmp_path / name).write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match=name):
            Run(options(tmp_path, resume=resume))
    assert [file.name for file in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again_and_no_other_one_there(tmp_path):
    begun = training._begun_with(options(tmp_path))
    runs.mark(tmp_path, begun)
    (tmp_path / "log.jsonl").write_text("{}\n")
    runs.check_own(tmp_path, begun, FILES)
    for change in ({"seed": 9}, {"skill": "climb"}, {"robot": "unitree_go2"}, {"worlds": 48}):
        with pytest.raises(InputError):
            runs.check_own(tmp_path, training._begun_with(options(tmp_path, **change)), FILES)


def test_a_log_that_the_checkpoint_does_not_know_is_not_cut(copy):
    other = json.dumps({"steps": 1, "reward": 2.0}) + "\n"
    (copy / "log.jsonl").write_text(other)
    with pytest.raises(InputError, match="log.jsonl"):
        Run(options(copy, resume=True))
    assert (copy / "log.jsonl").read_text() == other


def test_a_pipe_where_a_log_belongs_is_not_waited_for(copy):
    os.mkfifo(copy / "log.partial")  # where the log was once written before it took its place
    Run(options(copy, resume=True))._cut_log()
    (copy / "log.jsonl").unlink()
    os.mkfifo(copy / "log.jsonl")
    with pytest.raises(InputError, match="no regular file"):
        Run(options(copy, resume=True))


def test_worlds_that_fit_into_no_memory_are_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.machine.memory", lambda: 1 << 30)
    with pytest.raises(InputError, match="--worlds"):
        train(options(tmp_path / "run", worlds=100_000))
    assert not (tmp_path / "run").exists()


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    run = Run(options(tmp_path))
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process trains"):
            run.train(Console(stderr=True))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_first(tmp_path, monkeypatch, kind):
    run = Run(options(tmp_path, steps=10**9))
    iterate = run.iterate

    def stopped():
        row = iterate()
        os.kill(os.getpid(), kind)
        return row

    monkeypatch.setattr(run, "iterate", stopped)
    summary = run.train(Console(stderr=True))
    assert summary["interrupted"] and summary["steps"] == WORLDS * 24
    assert checkpoint.load(newest(tmp_path))[1]["steps"] == WORLDS * 24
    assert json.loads((tmp_path / "summary.json").read_text()) == summary and "bundle" not in summary


def test_checkpoints_of_other_runs_are_refused(copy):
    path = newest(copy)
    with pytest.raises(InputError, match="seed"):
        Run(options(copy, seed=4, resume=True))
    values = json.loads((path / checkpoint.VALUES).read_text())
    values["layout"]["frames"] = [0]
    (path / checkpoint.VALUES).write_text(json.dumps(values))
    checkpoint.seal(path)
    with pytest.raises(InputError, match="another environment: its layout"):
        Run(options(copy, resume=True))


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_truncated_checkpoint_is_refused_in_one_sentence(copy, keep):
    arrays = newest(copy) / checkpoint.ARRAYS
    arrays.write_bytes(arrays.read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read"):
        Run(options(copy, resume=True))


@pytest.fixture()
def small(tmp_path) -> Path:
    return checkpoint.save(tmp_path / "c", 7, {"a": np.arange(9, dtype=np.float32)}, {"steps": 7})


@pytest.mark.parametrize("name", [checkpoint.ARRAYS, checkpoint.VALUES, checkpoint.SUMS])
def test_any_flipped_bit_of_a_checkpoint_is_refused(small, name):
    content = (small / name).read_bytes()
    for place in np.random.default_rng(0).choice(8 * len(content), 40, replace=False):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << (place % 8)
        (small / name).write_bytes(flipped)
        with pytest.raises(InputError):
            checkpoint.load(small)
    (small / name).unlink()
    with pytest.raises(InputError):
        checkpoint.load(small)


def test_a_full_disk_keeps_the_checkpoint_before(small, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(InputError, match="No space left"):
        checkpoint.save(small.parent, 7, {"a": np.zeros(9, np.float32)}, {"steps": 7})
    assert [path.name for path in small.parent.iterdir()] == [small.name]
    assert checkpoint.load(small)[0]["a"].sum() == 36


def test_a_run_killed_between_two_renames_goes_on_from_what_was_to_be_replaced(small):
    small.rename(small.with_suffix(checkpoint.OLD))
    last = checkpoint.latest(small.parent)
    assert last is not None and checkpoint.load(last)[1] == {"steps": 7}
    checkpoint.save(small.parent, 8, {"a": np.zeros(9, np.float32)}, {"steps": 8})
    last = checkpoint.latest(small.parent)
    assert last is not None and checkpoint.load(last)[1] == {"steps": 8}


def test_the_log_of_a_resumed_run_holds_every_step_once(copy):
    resumed = Run(options(copy, steps=WORLDS * 24 * 2, resume=True))
    with (copy / "log.jsonl").open("a") as log:  # logged, and then killed before the next checkpoint
        log.write(json.dumps({"steps": resumed.steps + WORLDS * 24}) + "\n" + '{"steps"')
    resumed.train(Console(stderr=True))
    steps = [json.loads(line)["steps"] for line in (copy / "log.jsonl").read_text().splitlines()]
    assert steps == [row["steps"] for row in resumed.history] == sorted(set(steps))


def test_a_run_that_was_killed_after_its_last_checkpoint_still_leaves_its_policy(copy):
    asked = options(copy, steps=WORLDS * 24, resume=True)
    found = train(asked)
    assert found["steps"] == WORLDS * 24 and (copy / "walk.onnx").is_file() and (copy / "curve.png").is_file()
    with pytest.raises(InputError, match="--steps"):
        train(asked)


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for steps in (10, 20, 30):
        checkpoint.save(tmp_path, steps, {"a": np.zeros(2, np.float32)}, {"steps": steps}, keep=2)
    assert [path.name[-2:] for path in sorted(tmp_path.iterdir())] == ["20", "30"]
    last = checkpoint.latest(tmp_path)
    assert last is not None and checkpoint.load(last)[1] == {"steps": 30}


def test_divergence_names_the_term_and_dumps_the_state(tmp_path):
    run = Run(options(tmp_path))
    run.env.physics.qvel[5, 7] = np.nan
    with pytest.raises(DivergedError, match="not finite"):
        run.iterate()
    assert np.isnan(np.load(tmp_path / "diverged.npz")["physics.state"]).any()


@pytest.mark.parametrize(
    "change, message", [({"skill": "fly"}, "unknown skill"), ({"backend": "tpu"}, "unknown backend")]
)
def test_unknown_names_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        Run(options(tmp_path, **change))


def test_a_curriculum_that_stands_still_is_said_to_have_stalled():
    n = STALL_ITERATIONS
    rising, flat = np.linspace(0, 2, 3 * n), np.full(3 * n, 2.0)
    assert stall_warning(list(rising)) == "" and stall_warning(list(flat[: 2 * n])) == ""
    assert "STALLED at level 2.0 of 5" in stall_warning([*rising, *flat])
    assert stall_warning(list(np.full(3 * n, LEVELS - 1.2))) == ""  # near the top


def test_every_skill_has_its_own_number_of_steps(tmp_path):
    run = Run(options(tmp_path, skill="climb"))
    assert run.total == STEPS["climb"] and f"--steps {STEPS['climb']}" in run.command()


@pytest.mark.parametrize("skill", sorted(TASKS))
def test_each_skill_learns_from_its_shipped_checkpoint(tmp_path, skill):
    """The shipped parameters with their actions pushed off: a short training makes up for it. The jumper bounds as well
    with them as a few worlds can tell: it must not lose that, as one with a push of 1 does by half."""
    run = Run(options(tmp_path, skill=skill, worlds=48, start_from=bundle_file(skill).with_suffix("")))
    policy = run.state.params.policy
    layer = policy["params"]["Dense_0"]
    policy["params"]["Dense_0"] = {**layer, "bias": layer["bias"] + np.tile(np.float32([0.0, 0.5, -0.5]), 4)}
    returns = [run.iterate()["reward"] for _ in range(20)]
    assert np.isfinite(returns).all()
    gain = -0.4 if skill == "jump" else 0.03
    assert np.mean(returns[-6:]) > np.mean(returns[:6]) + gain, returns


def test_a_shipped_skill_is_begun_with_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert source_of(Path("models/walk")) == bundle_file("walk").with_suffix("")
    assert source_of(Path("models/unitree_go2/jump")) == bundle_file("jump", "unitree_go2").with_suffix("")
    assert source_of(Path("walk")) == Path("walk")
    Path("models/walk").mkdir(parents=True)
    assert source_of(Path("models/walk")) == Path("models/walk")


def test_haste_and_clock_are_the_runs_own(tmp_path):
    run = Run(options(tmp_path, haste=1.2, clock=3.2))
    assert run.task.commands.forward == pytest.approx((-1.6 * 1.2, 2.4 * 1.2)) and run.task.gait.frequency == 3.2
    assert "--haste 1.2" in run.command() and "--clock 3.2" in run.command()
    run.save()
    assert Run(options(tmp_path, haste=1.2, clock=3.2, resume=True)).task.gait == run.task.gait
    with pytest.raises(InputError, match="haste"):
        Run(options(tmp_path, clock=3.2, resume=True))
    with pytest.raises(InputError, match="clock"):
        Run(options(tmp_path, haste=1.2, resume=True))
    with pytest.raises(InputError, match="clock"):
        TrainOptions("jump", clock=3.2)


def test_haste_moves_the_highest_speeds_at_boards():
    own, quick = jump(), jump().hastened(1.2)
    assert quick.ground.speeds == pytest.approx((own.ground.speeds[0], 1.2 * own.ground.speeds[1]))
    assert quick.commands.yaw == pytest.approx(tuple(1.2 * limit for limit in own.commands.yaw))
