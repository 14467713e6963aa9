"""What README and docs say exists and runs: links, commands, modules, programs; and the pages make a site."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from rich.console import Console

from barkour import COMMANDS, parse
from distill.methods.options import ExperimentOptions
from distill.methods.run import run
from policies.evaluation.course_run import CourseWorlds

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|`)(?: *)barkour ([a-z]+)", re.MULTILINE)
LINE = re.compile(r"^ {4,}barkour ((?:\S+ ?)+)", re.MULTILINE)
"""A command in a block of code; two spaces end it."""
MODULE = re.compile(r"python -m ([a-z_]+(?:\.[a-z_]+)*)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page without a file, or without a heading, at their end."""
    broken = []
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    assert set(COMMAND.findall(page.read_text())) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood_with_their_options(page: Path) -> None:
    for line in LINE.findall(page.read_text()):
        words = line.partition("#")[0].split()
        if "|" not in line and words[0] != "COMMAND":  # which stand for several
            assert parse(words).name.split()[0] == words[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_are_run_exist(page: Path) -> None:
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for module in MODULE.findall(page.read_text()):
        path = ROOT / module.replace(".", "/")
        assert (
            module.split(".")[0] not in ours or path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
        ), module


def missing(page: Path) -> list[str]:
    """What stands in backticks on a page as a file of Python, or as a name of one of our packages, and is not there."""
    files = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    found = []
    for word in re.findall(r"`([\w./]+)(?:\(\))?`", page.read_text()):
        if re.search(r"\w\.py$", word):
            known = any(file == word or file.endswith(f"/{word}") for file in files)
        elif word.partition(".")[0] in ("sim", "policies", "distill", "robot") and re.search(r"\w\.(?!xml)\w", word):
            *parts, name = word.split(".")
            places = [f"{'/'.join(parts)}{end}" for end in (".py", "/__init__.py")]
            texts = [(ROOT / place).read_text() for place in places if place in files]
            known = (ROOT / word.replace(".", "/")).is_dir() or f"{word.replace('.', '/')}.py" in files
            known |= any(re.search(rf"^(?:class |def )?{name}\b|\bimport .*\b{name}\b", text, re.M) for text in texts)
        else:
            continue
        found += [] if known else [word]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_of_the_code_exist(page: Path) -> None:
    assert missing(page) == []


def test_a_file_and_a_name_that_are_not_there_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`gone.py` `.py` `sim.errors.InputError` `sim.errors.Gone` `sim.gone` `sim/errors.py` `robot.loop`")
    assert missing(page) == ["gone.py", "sim.errors.Gone", "sim.gone"]


def test_the_first_page_leads_to_every_other() -> None:
    led = {link.partition("#")[0] for link in LINK.findall((ROOT / "docs" / "index.md").read_text())}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= led


def test_a_link_without_a_file_or_a_heading_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading\n\n[a](page.md) [b](#one-heading) [c](gone.md) [d](#other) [e](https://example.org/x)\n"
    )
    assert broken_links(page) == ["gone.md", "#other"]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def make_site(folder: Path, docs: Path = ROOT / "docs") -> Path:
    """The site of the pages in `docs`; raises `Abort` where a link or a page of its navigation is missing."""
    site = folder / "site"
    build(load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(site), strict=True))
    return site


def test_the_pages_make_a_site_without_a_broken_link(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / ("index.html" if page.stem == "index" else f"{page.stem}/index.html")).is_file()


@pytest.mark.parametrize("link", ["gone.md", "index.md#no-such-heading", "../setup.py"])
def test_a_site_with_a_broken_link_is_not_made(tmp_path: Path, link: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for page in (ROOT / "docs").glob("*.md"):
        (docs / page.name).write_text(f"# {page.stem}\n")
    make_site(tmp_path, docs)
    (docs / "training.md").write_text(f"# Training\n\n[a]({link})\n")
    with pytest.raises(Abort):
        make_site(tmp_path, docs)


def programs(page: str) -> list[str]:
    """The Python programs that a page of the docs shows."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_recipe_that_a_page_writes_runs_to_its_verdict(tmp_path: Path) -> None:
    (program,) = programs("write_a_method.md")
    names: dict = {"__name__": "page"}
    exec(program, names)
    result = run(names["RECIPE"], ExperimentOptions(out=tmp_path, seeds=3, workers=1), Console(quiet=True))
    assert result["verdict"] == "supported"


def test_the_first_program_runs_a_course_and_prints_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = programs("first_run.md")
    limits = CourseWorlds.__init__.__kwdefaults__ | {"time_limit": 1.0}  # a second of it
    monkeypatch.setattr(CourseWorlds.__init__, "__kwdefaults__", limits)
    exec(program, {"__name__": "page"})
    assert "start table" in capsys.readouterr().out


def test_the_robot_that_a_page_adds_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "add_a_robot.md").read_text()
    commands = re.findall(r"^    ((?:mkdir|sed) .*)$", page, re.MULTILINE)
    (measuring,) = re.findall(r"^    barkour (robot measure .*)$", page, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BARKOUR_ROBOTS", "")
    for command in commands:
        subprocess.run(command.replace("sim/robots", str(ROOT / "sim" / "robots")), shell=True, check=True)
    call = parse(measuring.split())
    found = call.command(call.options)
    assert found["robot"] == "my_dog" and found["rises"] and found.status == 0
    assert (tmp_path / "robots" / "my_dog" / "models").is_dir()


@pytest.mark.slow
def test_the_language_model_that_a_page_distils_comes_nearer_to_its_teacher(tmp_path: Path) -> None:
    (program,) = programs("distil_language.md")
    shutil.copy(ROOT / "README.md", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        check=True,
    )  # fmt: skip
    before, after = map(float, re.findall(r"\d+\.\d+", said.stdout))
    assert after < 0.9 * before, said.stdout
    assert (tmp_path / "runs" / "my_student_model" / "config.json").is_file()


def test_the_patients_that_a_page_makes_up_can_be_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "distil_recommender.md").read_text()
    (program,) = programs("distil_recommender.md")
    teach, alone = re.findall(r"^    barkour (distill recommender .*)$", page, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(program, {"__name__": "page"})
    for words in (teach, alone):
        call = parse([*words.split(), "--dry-run"])
        assert call.command(call.options)["data"]["judged"] == 300
    call = parse([*alone.split(), "--steps", "150"])
    found = call.command(call.options)
    assert found["figures"]["end"]["prauc"] > found["figures"]["start"]["prauc"] + 0.1
    folder, data = re.findall(r"^    barkour distill evaluate (\S+) (\S+)$", page, re.MULTILINE)[0]
    call = parse(["distill", "evaluate", str(found["out"]), data])
    assert folder in teach and call.command(call.options)["figures"] == {data: found["figures"]["end"]}


FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_an_issue_form_is_whole(form: Path) -> None:
    about = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= set(about)
    ids = [part["id"] for part in about["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    assert all(part["attributes"]["label"] for part in about["body"] if part["type"] != "markdown")
