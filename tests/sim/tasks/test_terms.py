"""Tasks are put together from terms with names: each name counts, unknown ones are refused, chance has one owner."""

from dataclasses import replace

import numpy as np
import pytest

from sim.envs.batched import BatchedEnv
from sim.errors import InputError
from sim.tasks import endings, rewards
from sim.tasks.curricula import AsItStands, Distance
from sim.tasks.draws import Draws
from sim.tasks.ground import Ground
from sim.tasks.observations import CRITIC
from sim.tasks.skills import TASKS
from sim.tasks.task import Task, episode_draws, step_draws

FLAT = Task(ground=Ground(("flat",), (1.0,)))
WORLDS = 6


def stepped(task: Task) -> BatchedEnv:
    env = BatchedEnv(task, WORLDS, seed=3, threads=1)
    env.step(np.zeros((WORLDS, task.robot.joints), np.float32))
    return env


@pytest.mark.parametrize("skill", TASKS)
def test_every_skill_names_known_terms(skill):
    task = TASKS[skill]()
    assert set(task.weights) <= set(rewards.TERMS) and set(task.endings) <= set(endings.ENDINGS)
    assert set(task.critic) <= set(CRITIC)


def test_the_critic_sees_what_is_listed_in_that_order():
    names = ("frame", "contact", "velocity")
    task = replace(FLAT, critic=names)
    seen, privileged = stepped(task).observe()
    sizes = [CRITIC[name].size(task.robot) for name in names]
    assert privileged.shape == (WORLDS, task.privileged_size) and task.privileged_size == seen.shape[1] + sum(sizes)
    whole = stepped(FLAT).observe()[1][:, seen.shape[1] :]
    order = [whole[:, 8:], whole[:, 4:8], whole[:, :3]]  # of velocity, height, contact, frame
    np.testing.assert_array_equal(privileged[:, seen.shape[1] :], np.concatenate(order, 1))


def test_an_ending_that_is_not_listed_ends_nothing():
    low = replace(FLAT.robot, fall=replace(FLAT.robot.fall, learning_clearance=1.0))  # every robot is too low
    for names, fallen in ((("tilted", "low"), 1.0), (("tilted",), 0.0)):
        env = stepped(replace(FLAT, robot=low, endings=names))
        assert (env.outcome.fallen == fallen).all()
    with pytest.raises(InputError, match="unknown ending 'bored'"):
        stepped(replace(FLAT, endings=("bored",)))


def test_a_curriculum_is_the_tasks_own():
    state = stepped(FLAT).state._replace(
        level=np.full(WORLDS, 2.0), steps=np.full(WORLDS, 500.0), asked=np.full(WORLDS, 10.0),
        travelled=np.full(WORLDS, 9.0),
    )  # fmt: skip
    stood, fell = np.zeros(WORLDS), np.ones(WORLDS)
    assert (FLAT.promote(np, state, stood) == 3.0).all()
    assert (replace(FLAT, curriculum=Distance(up=0.95, down=0.5)).promote(np, state, stood) == 2.0).all()
    own = replace(FLAT, curriculum=AsItStands(fall=0.5))
    assert (own.promote(np, state, stood) == 2.0).all() and (own.promote(np, state, fell) == 1.5).all()


@pytest.mark.parametrize("draws", [episode_draws(FLAT.robot), step_draws(FLAT.robot)])
def test_every_column_of_chance_has_one_owner(draws):
    columns = [np.arange(draws.size)[column].ravel() for column in draws.columns.values()]
    every = np.concatenate(columns)
    assert len(np.unique(every)) == len(every) and every.max() < draws.size <= FLAT.uniforms
    row = np.arange(FLAT.uniforms, dtype=np.float32)[None]
    drawn = draws.of(row)
    for name, column in draws.columns.items():
        np.testing.assert_array_equal(getattr(drawn, name), row[..., column])
    with pytest.raises(AttributeError, match="luck"):
        _ = drawn.luck


def test_a_name_is_drawn_once():
    with pytest.raises(ValueError, match="push"):
        Draws(("push", 1), ("push", 2))


def test_one_kind_of_ground_is_taken_without_building_it_anew():
    ground = Ground(("flat", "stairs"), (0.5, 0.5))
    only = ground.only("stairs")
    assert only.land is ground.land and only.shares == (0.0, 1.0)
    env = BatchedEnv(replace(FLAT, ground=only), 20, threads=1)
    assert (env.kind == 1).all()
