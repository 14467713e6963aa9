"""Fine-tuning on whole courses: what is paid, what is recorded, and that nothing but what is asked for is trained."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import barkour
from distill.core.collect import CollectionPlan
from distill.core.shards import Shards
from distill.locomotion import course, recipe
from distill.locomotion.course import as_bundle
from distill.locomotion.fine_tuning import LARGEST, ExploringBundle, FineTuning, Payment, scaled
from distill.locomotion.options import Options
from distill.locomotion.student import TransformerStudent, student_skills
from policies.bundle.reader import Bundle
from policies.bundle.shipped import bundle_file
from policies.evaluation.course_run import CourseWorlds
from policies.skills.library import load_skills
from policies.transformer import TransformerConfig
from policies.transformer_export import export_transformer
from policies.transformer_import import read_transformer
from sim.course.description import official
from sim.course.generator import short
from sim.envs.worlds import world_seeds
from sim.robots.description import default_robot

SMALL = TransformerConfig(width=32, layers=1, context=3)
FAILURE = 3.0


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    """A student that knows nothing lies on the ground until the time is up."""
    monkeypatch.setattr(course, "LONGEST_RUN", 4.0)
    monkeypatch.setattr(course.CourseCollector, "longest", 4.0)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A student that was taught nothing, as a bundle."""
    file, rng = tmp_path_factory.mktemp("start") / "start.onnx", np.random.default_rng(0)
    model, walker = TransformerStudent(SMALL).module, Bundle.load(bundle_file("walk"))
    with torch.no_grad():
        for values in model.state_dict().values():  # equal ones would be one in the graph, and could not be told apart
            values += 0.01 * torch.from_numpy(rng.standard_normal(values.shape).astype(np.float32))
    export_transformer(
        model, file, robot=default_robot(), command_ranges=walker.metadata.command_ranges,
        provenance={"network": SMALL.to_dict()}, recorded=np.zeros((20, model.layout.size), np.float32),
    )  # fmt: skip
    return file


def asked(start, folder, **changes) -> Options:
    options = Options(
        fine_tune=True, start_from=start, seed=3, rounds=1, first_rows=1500, rows=1500, first_steps=5, steps=5,
        batch=64, score_runs=1, courses=("official",), run=folder / "run", out=folder / "tuned.onnx",
    )  # fmt: skip
    return replace(options, **changes)


def paid(worlds: CourseWorlds, steps: int) -> tuple[np.ndarray, Payment]:
    payment, total = Payment(worlds, FAILURE), np.zeros(len(worlds.navigators))
    for _ in range(steps):
        worlds.step()
        total += payment.step()
    return total, payment


def test_what_is_paid_is_seconds_of_the_plan_less_seconds_that_passed():
    worlds = CourseWorlds(official(), load_skills("generalist"), world_seeds(0, 3), randomize=True)
    before = Payment(worlds, FAILURE).left
    total, payment = paid(worlds, 150)
    assert worlds.running.all() and (payment.left < before - 1.0).all()
    assert total == pytest.approx(before - payment.left - 150 * worlds.dt, abs=1e-9)


def test_every_obstacle_that_is_not_completed_is_charged_once_when_the_run_ends():
    worlds = CourseWorlds(official(), load_skills("generalist"), world_seeds(0, 2), randomize=True, time_limit=1.0)
    before = Payment(worlds, FAILURE).left
    total, payment = paid(worlds, 60)
    assert not worlds.running.any()
    made = before - payment.left - 60 * worlds.dt
    missing = [sum(not o.completed for o in run.result.obstacles.values()) for run in worlds.results()]
    assert min(missing) >= 4
    assert total == pytest.approx(made - FAILURE * np.array(missing), abs=1e-9)


def test_a_board_is_charged_when_it_is_touched_and_not_again_at_the_end():
    worlds = CourseWorlds(
        short(("jump",), 0), load_skills("generalist"), world_seeds(0, 2), randomize=True, time_limit=1.0
    )
    payment = Payment(worlds, FAILURE)
    worlds.step()
    before = payment.step()
    worlds.robots.touched_boards[0, 0] = True
    worlds.step()
    after = payment.step()
    assert after[0] - before[0] < -FAILURE + 0.1 < after[1] - before[1]
    rest = sum(payment.step() for _ in range(60) if worlds.step() or True)
    missing = sum(not o.completed for o in worlds.results()[0].result.obstacles.values())
    assert not worlds.running.any() and payment.charged[0] == missing
    assert np.isfinite(rest).all()


def test_advantages_are_of_one_size_and_none_outweighs_thousands():
    rng = np.random.default_rng(0)
    gain = 0.01 * rng.standard_normal(10_000)
    gain[:3] = -50.0
    found = scaled(gain)
    assert found.mean() == pytest.approx(0.0, abs=1e-9) and found.std() == pytest.approx(1.0)
    assert np.abs(found).max() < 1.1 * LARGEST
    assert np.corrcoef(found[3:], gain[3:])[0, 1] > 0.99
    assert (scaled(np.zeros(5)) == 0).all()


def test_actions_are_drawn_around_the_students_and_their_likelihood_is_of_it(tmp_path):
    student = TransformerStudent(SMALL)
    teachers = load_skills("specialists")
    options = Options(fine_tune=True, start_from=bundle_file("generalist"), exploration=0.2)
    tuning = FineTuning(student, teachers, [official()], [recipe.Robots()], options)
    found = tuning.collect(None, CollectionPlan(1, 0.0, 300, 7))
    rows = {name: torch.from_numpy(np.array(values)) for name, values in found.fields.items()}
    with torch.no_grad():
        mean = student.module.head(rows["features"])
    apart = (rows["drawn"] - mean) / 0.2
    assert apart.std(0) == pytest.approx(torch.ones(13), abs=0.2) and abs(apart.mean()) < 0.1
    expected = torch.distributions.Normal(mean, 0.2).log_prob(rows["drawn"]).sum(-1)
    torch.testing.assert_close(rows["likelihood"], expected, atol=1e-3, rtol=1e-4)
    assert sum(found.episodes) == len(mean) and rows["advantage"].std() > 0.5
    shards = Shards(tmp_path)
    shards.append(found.fields, found.episodes, {"domain": "course", "round": 1})
    batch = tuning.sampler.sample(shards, np.random.default_rng(0), {"course": 16})
    torch.testing.assert_close(
        tuning.student.outputs(student.module, batch).action_mean,
        student.module.newest(batch["frames"], batch["heights"][:, -1])[:, None], atol=1e-3, rtol=1e-3,
    )  # fmt: skip


def test_the_first_round_tells_the_critic_what_came_of_everything():
    student = TransformerStudent(SMALL)
    options = Options(fine_tune=True, start_from=bundle_file("generalist"))
    tuning = FineTuning(student, load_skills("specialists"), [official()], [recipe.Robots()], options)
    first, later = (tuning.collect(None, CollectionPlan(round_, 0.0, 1500, 7)) for round_ in (0, 1))
    assert not first.fields["taught"].any() and later.fields["taught"].all()
    assert first.episodes == later.episodes, "equal plans but for the round"
    ends = np.cumsum(first.episodes) - 1
    np.testing.assert_allclose(first.fields["value"][ends], later.fields["value"][ends], atol=1e-6)
    assert np.abs(first.fields["value"]).mean() > 1.5 * np.abs(later.fields["value"]).mean()


def test_what_is_drawn_is_what_the_robot_is_given(start):
    teachers = load_skills("specialists")
    student = TransformerStudent(read_transformer(start).config, start=read_transformer(start))
    bundle = as_bundle(student, teachers, start)
    assert bundle is not None
    exploring = ExploringBundle(bundle, 0.1, seed=1)
    observation = np.zeros((4, bundle.layout.size), np.float32)
    drawn = exploring(observation)
    assert drawn is exploring.drawn and exploring.mean == pytest.approx(bundle(observation))
    assert exploring.path == teachers.bundles[teachers.uses["walk"]].path, "paces, as it has none of its own"
    assert student_skills(exploring).able
    assert not student.module.head._forward_pre_hooks, "nothing is left behind"


def test_a_student_with_paces_of_its_own_is_fine_tuned_at_them():
    start = bundle_file("generalist")
    bundle = as_bundle(TransformerStudent(SMALL), load_skills("specialists"), start)
    assert bundle is not None and bundle.path == start


@pytest.mark.slow
@pytest.mark.parametrize("tuned", ["head", "all"])
def test_it_goes_on_from_a_bundle_and_trains_what_it_says(start, tmp_path, tuned):
    result = recipe.distil(asked(start, tmp_path, tuned=tuned, learning_rate=1e-3))
    assert result["steps"] == 10 and not result["interrupted"] and result.failure == ""
    before, after = (dict(read_transformer(file).named_parameters()) for file in (start, tmp_path / "tuned.onnx"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"head.weight", "head.bias"} <= changed and (len(changed) > 10) == (tuned == "all")
    if tuned == "head":
        assert changed == {"head.weight", "head.bias"}
    said = Bundle.load(tmp_path / "tuned.onnx").metadata.provenance["command"]
    assert "--fine-tune" in said and f"--start-from {start}" in said
    data = Shards(tmp_path / "run" / "data")
    assert [bool(shard.files) for shard in data.shards] == [False, True], "what was learned from is forgotten"
    assert sum(result["card"]["domains"][name]["rows"] for name in ("course",)) == data.rows
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any("return_s" in row for row in log) and any("apart" in row for row in log)


@pytest.mark.slow
def test_the_first_round_teaches_the_critic_alone_and_a_resumed_run_ends_as_if_it_had_not_stopped(start, tmp_path):
    first = asked(start, tmp_path / "first", rounds=0)
    recipe.distil(first)
    before, after = (read_transformer(file).state_dict() for file in (start, tmp_path / "first" / "tuned.onnx"))
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("head."))
    torch.testing.assert_close(after["head.weight"], before["head.weight"], atol=1e-5, rtol=1e-4)
    whole = asked(start, tmp_path / "whole")
    recipe.distil(whole)
    distiller, _ = recipe.build(asked(start, tmp_path / "cut"), recipe.simulated(recipe.sized(whole)))
    recipe._remember(recipe.sized(asked(start, tmp_path / "cut")), recipe.simulated(whole))
    measure = distiller._measure

    def stop(*arguments):
        measure(*arguments)
        raise KeyboardInterrupt

    distiller._measure = stop  # type: ignore[method-assign]
    assert distiller.run()["interrupted"]
    recipe.distil(asked(start, tmp_path / "cut", resume=True))
    one, other = (read_transformer(tmp_path / name / "tuned.onnx").state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--fine-tune"], "--start-from"),
        (["--exploration", "0.2"], "--fine-tune"),
        (["--tuned", "all"], "--fine-tune"),
        (["--fine-tune", "--start-from", "models/generalist.onnx", "--between", "2"], "--between"),
        (["--fine-tune", "--start-from", "models/generalist.onnx", "--average", "0.9"], "--average"),
        (["--fine-tune", "--recordings", "runs"], "--fine-tune"),
        (["--fine-tune", "--start-from", "models/generalist.onnx", "--exploration", "0"], "--exploration"),
        (["--fine-tune", "--start-from", "models/walk.onnx"], "models/walk.onnx"),
    ],
)
def test_bad_options_are_one_line_and_status_2(tmp_path, arguments, message, capsys):
    assert barkour.main(["distill", "locomotion", "--run", str(tmp_path / "run"), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and "Traceback" not in said
