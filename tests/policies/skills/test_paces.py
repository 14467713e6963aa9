"""The paces that a robot's own policies are kept with."""

import shutil
from pathlib import Path

import pytest

from policies.navigation.paces import WEAK, Paces
from policies.skills.library import PACES_SUFFIX, load_skills, paces_of, read_paces
from sim.errors import InputError


def written(folder: Path, text: str) -> Path:
    file = folder / f"walk{PACES_SUFFIX}"
    file.write_text(text)
    return file


def test_what_a_file_says_replaces_only_that(tmp_path):
    paces, own = Paces(), read_paces(written(tmp_path, "walker: {acceleration: 2, forward: [-1, 1.5]}\njump: 1.7\n"))
    assert (own.walker.acceleration, own.walker.forward, own.jump) == (2.0, (-1.0, 1.5), 1.7)
    assert own.walker.yaw == paces.walker.yaw and own.late == paces.late and own.climb == paces.climb


def test_a_file_may_say_what_is_commanded_and_how_a_way_bends(tmp_path):
    text = "limits: {forward: [-1.6, 2.4], lateral_acceleration: 5, braking: 4}\nmade_up: 0.3\n"
    own = read_paces(written(tmp_path, text))
    assert (own.limits.forward, own.limits.lateral_acceleration, own.limits.braking) == ((-1.6, 2.4), 5.0, 4.0)
    assert own.limits.sideways == Paces().limits.sideways and own.made_up == 0.3


def test_weak_motors_have_paces_of_their_own(tmp_path):
    file = written(tmp_path, "climb: 2.4\nweak: {climb: 1.4, walker: {acceleration: 2.2}}\n")
    strong, weak = read_paces(file), read_paces(file, weak=True)
    assert (strong.climb, strong.walker) == (2.4, Paces().walker)
    assert (weak.climb, weak.walker.acceleration, weak.walker.yaw) == (1.4, 2.2, WEAK.walker.yaw)
    assert read_paces(written(tmp_path, "climb: 2.4\n"), weak=True) == WEAK  # its own are no weak ones


@pytest.mark.parametrize(
    "text",
    ["", "[]", "jump: fast", "jump: 0", "jump: -1", "jump: .nan", "jump: 1e9", "jump: [1, 2]", "jump: true",
     "jmup: 1.8", "walker: 2", "walker: {forward: 1.5}", "walker: {forward: [1, 2]}", "walker: {speed: 2}",
     "jump: 1.8\njump: 1.9", "jump: {a: 1}", "- jump: 1.8", "weak: 2",
     "weak: {jump: fast}", "weak: {weak: {jump: 1.8}}", "jump: 1.8\nweak:"],
)  # fmt: skip
def test_what_is_no_pace_is_refused(tmp_path, text):
    with pytest.raises(InputError):
        read_paces(written(tmp_path, text))


def test_a_walker_brings_the_paces_beside_it(tmp_path):
    shipped = Path(load_skills("generalist").bundles[0].path)
    copy = tmp_path / "own.onnx"
    shutil.copy(shipped, copy)
    assert paces_of(load_skills(str(copy))).walker == Paces().walker != paces_of(load_skills("generalist")).walker
    (tmp_path / f"own{PACES_SUFFIX}").write_text("walker: {acceleration: 1.5}\nlate: {sideways: 50}\n")
    own = paces_of(load_skills(str(copy)))
    assert own.walker.acceleration == 1.5
    assert own.late.sideways < 5  # what it was not trained for it is not asked for
