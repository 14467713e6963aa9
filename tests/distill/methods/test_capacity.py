"""The law of the capacity gap: its rule on curves that are known, and what stands behind it on the robot."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

import barkour
from distill.core.collect import CollectionPlan
from distill.core.errors import DistillError
from distill.core.shards import Shards
from distill.locomotion.experience import Windows
from distill.methods import run as experiments
from distill.methods.capacity_gap import robot, text
from distill.methods.capacity_gap.law import optimum
from distill.methods.catalogue import find
from distill.methods.claims import judge
from distill.methods.framework import Trial
from distill.methods.measured import keep
from distill.methods.options import ExperimentOptions
from distill.methods.statistics import Results
from policies.transformer import generalist_layout

QUIET = Console(quiet=True)


def run(recipe, **options):
    return experiments.run(recipe, ExperimentOptions(**options), QUIET)


STUDENTS = np.geomspace(10e3, 50e3, 5)
TEACHERS = np.array([5e3, 10e3, 20e3, 40e3, 80e3, 160e3, 320e3])


def results(curve, starts: tuple[str, ...], widths: tuple[int, ...], seeds: int = 5) -> Results:
    """Measures as a run leaves them, where `curve(student size, teacher sizes)` gives the losses without noise."""
    rng, rows = np.random.default_rng(0), {}
    for seed in range(seeds):
        row = {"teacher quality": {"loss": 1.0, "points": [[3.0, 2.0], [2.0, 1.5], [1.0, 1.0]]}}
        for start in starts:
            for width, size in zip(widths, STUDENTS[: len(widths)], strict=True):
                losses = curve(size, TEACHERS) + 0.01 * rng.standard_normal(len(TEACHERS))
                row[f"{start} {width}"] = {
                    "loss": losses[-1], "losses": losses.tolist(), "size": size, "teachers": TEACHERS.tolist(),
                    "reward_per_s": (3 - losses).tolist(),
                    "teacher_losses": [2 - 0.1 * k for k in range(len(TEACHERS))],
                    "teacher_curves": [[2.0, 1.5, 1.2, 1.1 - 0.01 * k] for k in range(len(TEACHERS))],
                }  # fmt: skip
        rows[seed] = row
    return Results(rows, "loss")


def twice_and_a_half(student, teachers):
    return np.log(teachers / (2.5 * student)) ** 2


# --- the rule -------------------------------------------------------------------------------------------------------


def test_the_best_teacher_lies_between_the_sizes_of_the_grid():
    sizes = np.array([10.0, 20.0, 40.0, 80.0, 160.0])
    assert optimum(sizes, (np.log(sizes) - np.log(31)) ** 2) == pytest.approx(31)
    assert optimum(sizes, -sizes) == 160 and optimum(sizes, sizes) == 10


@pytest.mark.parametrize(
    ("curve", "wanted"),
    [
        (twice_and_a_half, ["supported", "supported"]),
        (lambda student, teachers: -np.log(teachers), ["contradicted", "null"]),
        (lambda student, teachers: np.log(teachers * student / 4e8) ** 2, ["supported", "contradicted"]),
        (lambda student, teachers: np.log(teachers / 40e3) ** 2, ["supported", "null"]),
    ],
    ids=["grows", "the larger the better", "shrinks", "one best teacher"],
)
@pytest.mark.parametrize("domain", ["language", "robot"])
def test_the_claims_tell_the_law_from_its_opposites(domain, curve, wanted):
    module = {"language": text, "robot": robot}[domain]
    starts = {"language": ("random", "pruned"), "robot": ("random",)}[domain]
    recipe = find("capacity_gap").on(domain)
    seen = results(curve, starts, module.STUDENTS)
    piloted = [replace(each, power=replace(each.power, spread=0.01, pilot=(900, 901))) for each in recipe.claims]
    found = judge(piloted, seen, recipe.rule(seen))
    assert [one.verdict for one in found] == wanted, [str(one.interval) for one in found]
    asked = {check.text.split(":")[0] for check in recipe.rule(seen)}
    assert asked > {"random"}
    late = [check for check in recipe.rule(seen) if "last quarter" in check.text]
    assert [check.holds for check in late] == [False] * (domain == "language"), "teachers that have not converged"


def test_a_largest_teacher_that_knows_less_tells_nothing_of_a_gap():
    """Of little text it learns much by heart: that its students are worse is its own fault, not its size's."""
    recipe, seen = find("capacity_gap"), results(twice_and_a_half, ("random", "pruned"), text.STUDENTS)
    piloted = [replace(each, power=replace(each.power, spread=0.01, pilot=(900, 901))) for each in recipe.claims]
    for row in seen.rows.values():
        row[f"random {text.STUDENTS[0]}"]["teacher_losses"][-1] += 0.15
    assert {one.verdict for one in judge(piloted, seen, recipe.rule(seen))} == {"undecided"}


# --- the robot ------------------------------------------------------------------------------------------------------


def test_a_specialist_sees_three_steps_and_the_ground_around_it_alone():
    layout = generalist_layout(12, robot.SEEN)
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.standard_normal((4, robot.SEEN, layout.frame_size))).float()
    heights = torch.from_numpy(rng.standard_normal((4, robot.SEEN, layout.height_size))).float()
    module = robot.Specialist(8, 12)
    before = module(frames, heights)
    assert before.shape == (4, 1, 13)
    unseen_frames, unseen_heights = frames.clone(), heights.clone()
    unseen_frames[:, :-1, 42:] = 7  # commands and clocks of steps before
    unseen_heights[:, :-1] = 7
    unseen_heights[:, :, layout.grids[0].size :] = 7  # the jumper's grid
    assert torch.equal(module(unseen_frames, unseen_heights), before)
    for seen in ((frames, 0, 0), (frames, -1, 42), (heights, -1, 0)):
        changed = [frames.clone(), heights.clone()]
        changed[0 if seen[0] is frames else 1][:, seen[1], seen[2]] += 1
        assert not torch.equal(module(*changed), before)


def test_teachers_are_asked_about_the_windows_that_students_learn_from(tmp_path):
    steps = np.arange(5, dtype=np.float32)
    fields = {name: steps[:, None] for name in ("frames", "heights", "action")}
    rollouts = robot.Rollouts(fields, (2, 3))
    every = rollouts.windows(3)["frames"][..., 0]
    assert every.tolist() == [[0, 0, 0], [0, 0, 1], [2, 2, 2], [2, 2, 3], [2, 3, 4]]
    shards = Shards(tmp_path)
    found = rollouts.collect(None, CollectionPlan(0, 1.0, 5, 0))
    shards.append(found.fields, found.episodes, {"domain": "walk"})
    for held_out in (False, True):
        drawn = Windows(3).sample(shards, np.random.default_rng(0), {"walk": 20}, held_out)["frames"][..., 0]
        assert {tuple(window) for window in drawn.tolist()} <= {tuple(window) for window in every.tolist()}
    assert not rollouts.collect(None, CollectionPlan(1, 1.0, 5, 0)).episodes


def small():
    """The recipe with a robot's experiment of seconds."""
    recipe = find("capacity_gap")
    settings = robot.Settings(
        teachers=(8, 16, 24), students=(8, 16, 24), rows=400, test=200, drive=100, teacher_steps=40, steps=8,
        quality_teacher=8,
    )  # fmt: skip
    return replace(recipe, variants={"robot": {**recipe.variants["robot"], "presets": {"small": settings}}})


@pytest.mark.slow
def test_the_robots_domain_runs_goes_on_and_leaves_languages_folder_alone(tmp_path):
    recipe, done = small(), []
    arm = recipe.arm

    def broken(trial, lab, students):
        done.append(trial.doing)
        if done.count("random 24") == 1 and trial.doing == "random 24":
            raise KeyboardInterrupt
        return arm(trial, lab, students)

    options = {"domain": "robot", "seeds": 1, "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        run(replace(recipe, arm=broken), out=tmp_path, **options)
    resumed = run(replace(recipe, arm=broken), out=tmp_path, **options)
    names = list(recipe.on("robot").arms)
    cut = names.index("random 24")
    assert done == [*names[: cut + 1], *names[cut:]] and list(resumed["arms"]) == names
    assert resumed["domain"] == "robot" and not (tmp_path / "capacity_gap").exists()
    assert (tmp_path / "capacity_gap_robot" / "result.json").is_file()
    json.dumps(resumed, allow_nan=False)
    whole = run(recipe, out=tmp_path / "whole", **options)
    assert whole["arms"] == resumed["arms"] and whole["checks"] == resumed["checks"]
    measures = json.loads((tmp_path / "capacity_gap_robot" / "seed_0" / "arms.json").read_text())["random 16"][
        "measures"
    ]
    assert len(measures["losses"]) == len(measures["reward_per_s"]) == len(measures["teacher_losses"]) == 3
    assert len(set(measures["losses"])) == 3, "every teacher makes another student"


@pytest.mark.slow
def test_specialists_learn_the_walker_and_teach_it(tmp_path):
    settings = robot.Settings(rows=4000, test=1000, teacher_steps=400, steps=150)
    lab = robot.RobotGap(Trial(3, tmp_path, settings, domain="robot"))
    spread = float(lab.test.fields["action"].var(0).sum())
    student = lab.student(24, "random", 56)["loss"]
    assert lab.teacher_loss(56) < 0.25 * spread and student < 0.5 * spread
    assert lab.loss(lab.taught(56, 20)) > 2 * lab.teacher_loss(56)


@pytest.mark.slow
def test_another_robot_is_learned_from_its_own_walker(tmp_path):
    settings = small().on("robot").presets["small"]
    lab = robot.RobotGap(Trial(0, tmp_path, settings, domain="robot", robot="unitree_go2"))
    assert lab.walk.teachers.robot.name == "unitree_go2" and lab.joints == lab.walk.teachers.robot.joints
    assert np.isfinite(lab.student(16, "random", 8)["loss"])


def test_another_robots_results_have_a_folder_of_their_own_and_are_not_kept_as_the_default_ones(tmp_path):
    recipe, asked = small().on("robot"), ExperimentOptions(domain="robot", robot="unitree_go2", out=tmp_path)
    folder = experiments.folder_of(recipe, asked)
    assert folder == tmp_path / "capacity_gap_robot_unitree_go2"
    assert experiments.folder_of(recipe, replace(asked, robot="barkour_v0")) == tmp_path / "capacity_gap_robot"
    folder.mkdir()
    options = {"preset": "small", "domain": "robot", "budget": 1, "robot": "unitree_go2"}
    (folder / "options.json").write_text(json.dumps(options))
    (folder / "result.json").write_text(json.dumps({"name": "capacity_gap"}))
    with pytest.raises(DistillError, match="another robot"):
        keep(folder, "0" * 7, tmp_path / "kept")


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "domain"), [("capacity_gap", "sea"), ("ddk", "robot")])
def test_a_domain_that_a_recipe_does_not_know_is_one_line(name, domain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["barkour", "recipe", "run", name, "--domain", domain, "--out", str(tmp_path)])
    assert barkour.main() == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert f"{name} runs on the domains language" in err and f"not '{domain}'" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "about"),
    [("ddk --robot unitree_go2", "--domain robot"), ("capacity_gap --robot unitree_go2", "--domain robot"),
     ("capacity_gap --domain robot --robot horse", "unknown robot 'horse'")],
)  # fmt: skip
def test_a_robot_that_there_is_not_or_that_is_of_no_use_is_one_line(words, about, tmp_path, capsys):
    assert barkour.main(["recipe", "run", *words.split(), "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and about in err and not list(tmp_path.iterdir())


def test_a_missing_walker_and_text_for_the_robot_are_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(DistillError, match="reads no real data at all"):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.txt").write_text("words")
        run("capacity_gap", domain="robot", out=tmp_path, data=tmp_path / "data")
    monkeypatch.setattr(robot, "bundle_file", lambda name, _: tmp_path / f"{name}.onnx")
    with pytest.raises(DistillError, match="there is no policy file"):
        run(small(), domain="robot", seeds=1, workers=1, out=tmp_path)
