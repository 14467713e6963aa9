"""Parameter files: what is declared is read and checked, everything else is one sentence."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from robot.loop import parameters
from robot.loop.controller import Times
from robot.loop.declarations import PARAMETERS, OnboardParameters
from robot.loop.parameters import declared, load, make, number, switch, text, whole
from robot.loop.safety import Limits
from robot.loop.terrain import GridPlace
from sim.errors import InputError


@dataclass(frozen=True)
class Some:
    speed: float = number(1.0, 0.0, 2.0, "m/s")
    count: int = whole(3, 1, 9, "how many")
    name: str = text("a", "who")
    lit: bool = switch(False, "whether")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_values_come_from_the_nodes_section_over_the_shared_one_over_the_defaults(tmp_path):
    file = write(
        tmp_path / "p.yaml",
        "/**:\n  ros__parameters: {speed: 0.5, other: 1}\nsome:\n  ros__parameters: {count: 4, speed: 2}\n",
    )
    assert load(Some, file, "some", elsewhere={"other"}) == Some(2.0, 4)
    assert load(Some, file, "else", elsewhere={"other"}) == Some(0.5)
    assert load(Some, file, "some", elsewhere={"other"}, name="b", count=None) == Some(2.0, 4, "b")
    with pytest.raises(InputError, match="'other'"):
        load(Some, file, "some")
    assert load(Some, None, "some") == Some()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("speed: 3", "between 0.0 and 2.0, got 3"),
        ("speed: fast", "'speed' must be a number, got 'fast'"),
        ("count: 2.0", "'count' must be a whole number"),
        ("count: true", "'count' must be a whole number"),
        ("lit: 1", "true or false"),
        ("name: 5", "a text"),
        ("sped: 1", "unknown parameter 'sped'"),
        ("speed: .nan", "NaN"),
        ("speed: " + "9" * 400, "number"),
        ("speed: .inf", "between"),
    ],
)
def test_a_wrong_value_is_one_sentence(tmp_path, values, words):
    file = write(tmp_path / "p.yaml", f"some:\n  ros__parameters: {{{values}}}\n")
    with pytest.raises(InputError, match=words) as found:
        load(Some, file, "some")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "content", ["", "[1]", "some: 3", "some: {a: 1}", "a: [", "some:\n  ros__parameters: 7", "\x00"]
)
def test_a_file_that_is_no_parameter_file_is_one_sentence(tmp_path, content):
    with pytest.raises(InputError) as found:
        load(Some, write(tmp_path / "p.yaml", content), "some")
    assert str(tmp_path / "p.yaml") in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("section", "node", "namespace", "holds"),
    [
        ("some", "some", "/", True),
        ("/some", "some", "/", True),
        ("some", "some", "/robot1", False),
        ("/robot1/some", "some", "/robot1", True),
        ("/robot1/some", "some", "/robot2", False),
        ("/**", "some", "/a/b", True),
        ("/**/some", "some", "/a/b", True),
        ("/**/some", "some", "/", True),
        ("/*/some", "some", "/a", True),
        ("/*/some", "some", "/a/b", False),
        ("/a/**", "some", "/a/b", True),
        ("sometimes", "some", "/", False),
        ("so.e", "some", "/", False),
    ],
)
def test_sections_hold_for_the_nodes_that_ros_takes_them_for(tmp_path, section, node, namespace, holds):
    file = write(tmp_path / "p.yaml", f"{section}:\n  ros__parameters: {{count: 5}}\n")
    if holds:
        assert load(Some, file, node, namespace).count == 5
        return
    with pytest.raises(InputError, match="no section for the node"):
        load(Some, file, node, namespace)


def test_sections_may_be_nested(tmp_path):
    file = write(tmp_path / "p.yaml", "robot1:\n  some:\n    ros__parameters: {count: 5}\n")
    assert load(Some, file, "some", "/robot1").count == 5
    twice = write(tmp_path / "q.yaml", "a: {b: {ros__parameters: {}}}\n/a/b: {ros__parameters: {}}\n")
    with pytest.raises(InputError, match="two sections"):
        load(Some, twice, "b", "/a")


LAUGHS = "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("some:\n  ros__parameters:\n    speed: 0.5\n    speed: 1.9\n", 4),
        ("some: {ros__parameters: {}}\nsome: {ros__parameters: {}}\n", 2),
        (f"a0: &a0 [x]\n{LAUGHS}some:\n  ros__parameters: {{speed: *a11}}\n", 2),
        ("some:\n  ros__parameters: {<<: *other}\n", 2),
        ("some:\n  ros__parameters:\n    <<: {speed: 0.5}\n", 3),
        ("some:\n  ros__parameters: " + "[" * 5000, 2),
        ("some:\n" + "".join(" " * k + "- \n" for k in range(1, 500)), 41),
        ("some:\n" + "".join(f"  k{k}: 1\n" for k in range(20_000)), 5000),
    ],
)
def test_double_keys_and_aliases_are_refused_with_their_line(tmp_path, content, line):
    with pytest.raises(InputError, match=f"line {line}") as found:
        load(Some, write(tmp_path / "p.yaml", content), "some")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("odd", ["2001-99-99", "2001-01-01", "1:30", "1_000", "010", "0x10", "0o7", "0b1", "1_0.5"])
def test_what_others_take_for_a_date_or_number_needs_quotes(tmp_path, odd):
    for name in ("name", "speed", "count"):
        with pytest.raises(InputError, match=f"line 3: .*'{name}'") as found:
            load(Some, write(tmp_path / "p.yaml", f"some:\n  ros__parameters:\n    {name}: {odd}\n"), "some")
        assert "\n" not in str(found.value)
    quoted = write(tmp_path / "p.yaml", f"some: {{ros__parameters: {{name: '{odd}'}}}}")
    assert load(Some, quoted, "some").name == odd
    with pytest.raises(InputError, match="'speed' must be"):
        load(Some, write(tmp_path / "p.yaml", f"some: {{ros__parameters: {{speed: '{odd}'}}}}"), "some")


def test_a_value_that_the_command_line_takes_the_place_of_is_checked_too(tmp_path):
    for value in ("9.0", "'0.5'", "true"):
        with pytest.raises(InputError, match="'speed' must"):
            load(Some, write(tmp_path / "p.yaml", f"some: {{ros__parameters: {{speed: {value}}}}}"), "some", speed=0.5)


def test_files_that_are_not_regular_or_too_large_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(40_000_000_000)
    for odd in (tmp_path / "pipe", tmp_path / "sparse", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="cannot read"):
            load(Some, odd, "some")


def test_simulated_time_is_refused_and_other_parameters_of_every_node_are_left_out(tmp_path):
    assert load(Some, write(tmp_path / "p.yaml", "some: {ros__parameters: {use_sim_time: false}}"), "some") == Some()
    with pytest.raises(InputError, match="use_sim_time"):
        load(Some, write(tmp_path / "p.yaml", "/**: {ros__parameters: {use_sim_time: true}}"), "some")


def test_a_robot_is_not_moved_unless_somebody_says_so():
    assert OnboardParameters().dry_run and not OnboardParameters().auto_arm


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        load(Some, tmp_path / "none.yaml", "some")


def test_limits_times_and_grid_share_the_section_of_the_control_loop(tmp_path):
    file = write(tmp_path / "p.yaml", "onboard:\n  ros__parameters: {tilt: 1.0, stand_up: 3.0, resolution: 0.1}\n")
    limits, times, grid = load(OnboardParameters, file, "onboard").parts()
    assert (limits.tilt, times.stand_up, grid.resolution) == (1.0, 3.0, 0.1)


@pytest.mark.parametrize("kind", [Limits, Times, GridPlace])
def test_defaults_lie_in_their_own_ranges_and_names_are_used_once(kind):
    for parameter in declared(kind):
        assert parameter.checked(parameter.default) == parameter.default
        assert parameter.description
    names = [p.name for k in (Limits, Times, GridPlace) for p in declared(k)]
    assert len(names) == len(set(names))
    assert make(kind, {}) == kind()


def test_fields_without_a_description_are_no_parameters():
    @dataclass(frozen=True)
    class Mixed:
        a: int = 1
        b: float = number(0.0, 0.0, 1.0, "b")

    assert [p.name for p in parameters.declared(Mixed)] == ["b"]


EVERY = [(node, parameter) for node, kind in PARAMETERS.items() for parameter in declared(kind)]


@pytest.mark.parametrize(("node", "parameter"), EVERY, ids=[f"{node}-{p.name}" for node, p in EVERY])
def test_descriptions_are_whole_sentences_with_a_unit(node, parameter):
    """As `ros2 param describe` shows them; a real number says its unit, or that it has none."""
    said = parameter.description
    assert said[0].isupper() and said.endswith(".") and len(said.split()) > 3
    if parameter.kind is float:
        assert re.search(r"\bin (s|m|rad|rad/s|N m|Hz)\b|\(no unit\)", said), f"{node} {parameter.name}: {said}"
