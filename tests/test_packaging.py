"""The package: what it installs, what it needs, and what runs on a robot without a simulator."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement
from setuptools import find_packages

from policies.bundle import shipped as models

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
ONBOARD = next(c for c in CONTRACTS if "onboard" in c["name"])


def setup_arguments() -> dict[str, object]:
    """What setup.py passes to `setup`, without running a build."""
    given: dict[str, object] = {}
    source = (ROOT / "setup.py").read_text().replace("from setuptools import find_packages, setup", "")
    names = {"setup": lambda **arguments: given.update(arguments), "find_packages": find_packages}
    exec(compile(source, "setup.py", "exec"), names)
    return given


SETUP = setup_arguments()
REQUIREMENTS = {"base": SETUP["install_requires"], **SETUP["extras_require"]}  # type: ignore[dict-item]


@pytest.mark.parametrize("extra", ["base", "train", "lm", "ros", "viz", "dev"])
def test_requirements_parse_and_each_package_is_asked_for_once(extra: str) -> None:
    names = [Requirement(line).name for line in REQUIREMENTS[extra]]  # type: ignore[union-attr]
    assert names and len(names) == len(set(names))


def test_engines_are_pinned_to_one_version() -> None:
    def pin(extra: str, name: str) -> str:
        return next(str(r.specifier) for r in map(Requirement, REQUIREMENTS[extra]) if r.name == name)  # type: ignore[arg-type]

    assert pin("base", "mujoco") == pin("train", "mujoco-mjx") == "==3.17.0"
    assert pin("train", "jax") == "==0.9.2" and pin("train", "brax") == "==0.14.2"
    assert pin("lm", "torch") == "==2.13.0"


def test_the_base_install_has_no_learning_library() -> None:
    heavy = {"jax", "brax", "torch", "mujoco-mjx", "onnx", "gymnasium", "flax", "optax"}
    assert not heavy & {Requirement(line).name for line in REQUIREMENTS["base"]}  # type: ignore[union-attr]


def test_every_package_of_the_tree_is_installed() -> None:
    """A package that setup.py forgets would be missing on the user's machine; tests and benchmarks stay behind."""
    apart = {"tests", "build", ".venv", ".venv-test"}
    here = {
        ".".join(path.relative_to(ROOT).parent.parts)
        for top in ROOT.iterdir()
        if top.is_dir() and top.name not in apart and not top.name.startswith(".")
        for path in top.rglob("__init__.py")
    }
    assert set(SETUP["packages"]) == here - {"", "benchmarks"}, "benchmarks is not installed"  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty prefix into which pip installed a copy of the checkout, without its dependencies."""
    here = tmp_path_factory.mktemp("install")
    without = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "runs", "tests", "docs")
    shutil.copytree(ROOT, here / "checkout", ignore=without)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *options, "--prefix", here / "prefix"]
    done = subprocess.run([*command, "./checkout"], cwd=here, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return here / "prefix"


def test_measurements_and_examples_are_not_installed(prefix: Path) -> None:
    packages = next(prefix.glob("lib/python3*/site-packages"))
    tops = {path.name for path in packages.iterdir() if path.suffix != ".dist-info"}
    assert tops - {"__pycache__"} == {"sim", "policies", "distill", "robot", "barkour.py"}


def test_ros2_run_finds_programs_that_start(prefix: Path) -> None:
    """`ros2 run barkour X` starts the executable file lib/barkour/X; pip's own script stays in bin."""
    assert (prefix / "bin" / "barkour").is_file()
    programs = {path.name for path in (prefix / "lib" / "barkour").iterdir() if os.access(path, os.X_OK)}
    assert programs == {"barkour", "node"}
    packages = next(prefix.glob("lib/python3*/site-packages"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PYTHONPATH": str(packages), "PATH": path}

    def start(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(prefix / "lib" / "barkour" / name), *arguments]
        return subprocess.run(
            command, cwd=prefix, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    bundle = str(prefix / "share" / "barkour" / "models" / "walk.onnx")
    inspected = start("barkour", "inspect", bundle, "--json")
    assert inspected.returncode == 0, inspected.stderr
    assert json.loads(inspected.stdout)["skill"] == "walk"
    refused = start("node", "no_such_node")
    assert refused.returncode == 2 and "no_such_node" in refused.stderr


def test_files_that_are_read_at_run_time_are_installed() -> None:
    for package in ("sim", "policies"):
        patterns = SETUP["package_data"][package]  # type: ignore[index]
        covered = {path for pattern in patterns for path in (ROOT / package).glob(pattern)}
        read = (".xml", ".yaml", ".json", ".png", ".obj", ".stl")
        data = {path for path in (ROOT / package).rglob("*") if path.suffix in read}
        assert data and data <= covered
    installed = {name for _, files in SETUP["data_files"] for name in files}  # type: ignore[union-attr]
    kept = ("onnx", "safetensors", "json")
    patterns = (*(f"models/**/*.{end}" for end in kept), "launch/*.py", "launch/*.yaml")
    for shipped in [file for pattern in patterns for file in ROOT.glob(pattern)]:
        assert str(shipped.relative_to(ROOT)) in installed


def test_ros_finds_the_package() -> None:
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    assert manifest.findtext("name") == SETUP["name"]
    assert manifest.findtext("version") == SETUP["version"]
    assert manifest.findtext("export/build_type") == "ament_python"
    assert (ROOT / "resource" / str(SETUP["name"])).is_file()
    assert not (ROOT / "launch" / "__init__.py").exists(), "it would shadow ROS's own launch module"


def test_bundles_are_found_in_a_checkout_and_below_any_prefix(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "policies" / "bundle").mkdir(parents=True)
    (checkout / "setup.py").touch()
    assert models.folder(checkout / "policies" / "bundle" / "shipped.py") == checkout / "models"
    prefix = tmp_path / "prefix"
    code = prefix / "lib" / "python3.11" / "site-packages" / "policies" / "bundle"
    code.mkdir(parents=True)
    (code.parents[1] / "models").mkdir()  # another package's
    (prefix / "share" / "barkour" / "models").mkdir(parents=True)
    assert models.folder(code / "shipped.py") == prefix / "share" / "barkour" / "models"
    assert models.folder() == ROOT / "models"


def test_what_runs_onboard_imports_with_numpy_and_onnxruntime_only() -> None:
    """In a process in which neither engine nor learning library nor ROS can be imported."""
    hide = "".join(f"sys.modules[{name!r}] = None; " for name in ONBOARD["forbidden_modules"])
    load = "; ".join(f"import {name}" for name in ONBOARD["source_modules"])
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {hide}{load}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_every_module_parses_on_the_oldest_python_promised() -> None:
    for package in ("sim", "policies", "distill", "robot", "benchmarks", "examples"):
        for path in (ROOT / package).rglob("*.py"):
            ast.parse(path.read_text(), filename=str(path), feature_version=(3, 11))
