"""What is declared of the package holds; what is built installs and runs away from the clone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from paths import ROOT

import quanta_bench

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]


def test_the_version_is_written_once() -> None:
    assert "version" in PROJECT["dynamic"]
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "quanta_bench/__init__.py"
    assert str(Version(quanta_bench.__version__)) == quanta_bench.__version__


def test_the_latest_release_of_the_changelog_is_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    form = r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$"
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    found = [re.fullmatch(form, heading) for heading in headings]
    assert all(found), headings
    releases = [match.groups() for match in found if match]
    assert releases[0][0] == quanta_bench.__version__
    versions = [Version(version) for version, _ in releases]
    assert versions == sorted(set(versions), reverse=True)
    # Only what comes next may be without a date.
    assert all(date != "unreleased" for _, date in releases[1:])


def test_every_package_says_that_it_is_typed() -> None:
    for package in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "py.typed").is_file()


def test_make_sets_up_extras_that_there_are() -> None:
    names = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    made = {name.removeprefix("setup-") for line in names for name in line.split()
            if name.startswith("setup-")}  # fmt: skip
    assert "release" in made
    for extra in made:
        assert extra in PROJECT["optional-dependencies"]
        command = [sys.executable, "-I", ROOT / "quanta_bench" / "bootstrap.py"]
        done = subprocess.run(
            [*command, "--extra", extra, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_this_python_is_among_those_declared() -> None:
    running = "{}.{}".format(*sys.version_info)
    assert running in SpecifierSet(PROJECT["requires-python"])
    declared = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: " in line}
    assert declared == {"3.11", "3.12", "3.13"}
    assert running in declared, "tested here, so declare it"


def test_the_lowest_versions_that_are_tested_are_those_declared() -> None:
    """`make test LOWEST=1` would otherwise test something newer than what pip may choose."""
    lines = (ROOT / "constraints-lowest.txt").read_text("utf-8").splitlines()
    pins = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    tested = {canonicalize_name(name): Version(pin) for name, pin in pins}
    wrong = {}
    for requirement in map(Requirement, PROJECT["dependencies"]):
        (bound,) = (each.version for each in requirement.specifier if each.operator == ">=")
        pin = tested.get(canonicalize_name(requirement.name))
        if pin != Version(bound):
            wrong[requirement.name] = (bound, pin)
    assert not wrong


def run(*words: str | Path, cwd: Path) -> str:
    """A command's output; nothing of the checkout or of this process's packages reaches it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_source_archive_makes_a_wheel_that_computes_table_3_elsewhere(tmp_path: Path) -> None:
    """The wheel is made of the source archive, so that both are tried."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    tools = ("--constraint", ROOT / "constraints.txt", "build", "twine")
    run(*pip, "install", *tools, cwd=tmp_path)
    run(python, "-m", "build", "--sdist", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    run(*pip, "wheel", "--no-deps", archive, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert quanta_bench.__version__ in wheel.name
    assert quanta_bench.__version__ in archive.name
    run(python, "-m", "twine", "check", "--strict", archive, wheel, cwd=tmp_path)
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", wheel, cwd=tmp_path)

    bench = python.parent / "quanta-bench"
    assert run(bench, "--version", cwd=tmp_path).strip() == quanta_bench.__version__
    where = run(python, "-P", "-c", "import tasks; print(tasks.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(folder)
    few = [
        word
        for setting in (
            "training.train_items=16",
            "training.validation_items=2",
            "evaluation.items=2",
        )
        for word in ("--set", setting)
    ]
    planned = run(
        bench, "table", "3", "--methods", "lora", "--seeds", "0", "--dry-run", cwd=tmp_path
    )
    assert "LoRA r=8" in planned
    rows = ("--methods", "none,lora", "--seeds", "0")
    said = run(bench, "table", "3", *rows, "--published", *few, cwd=tmp_path)
    assert "LoRA r=8" in said
    assert "As published" in said
    assert (tmp_path / "results" / "local" / "embedded" / "table3.json").is_file()
