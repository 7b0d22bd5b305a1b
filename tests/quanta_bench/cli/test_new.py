"""``quanta-bench new``: the packages that it writes pass their own tests at once."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_line import Bench
from paths import ROOT

from quanta_bench.cli.new import TEMPLATES


def install(folder: Path, name: str) -> None:
    """What an editable install adds, as metadata in the folder itself: no network for a backend."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{name}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n"
    )
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n")
    points = project["entry-points"]
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n{key} = {value}\n"
            for group in points
            for key, value in points[group].items()
        )
    )


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, check=False
    )


def check_style(folder: Path) -> None:
    for words in (["format", "--diff"], ["check", "--ignore", "D,I"]):
        lint = run(folder, "ruff", *words, "--config", str(ROOT / "pyproject.toml"), ".")
        assert lint.returncode == 0, lint.stdout + lint.stderr


def test_a_task_passes_its_own_tests_and_is_listed(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    said = bench("new", "task", "fresh_idea", "--to", folder)
    assert said.status == 0
    assert "quanta-bench tasks fresh_idea" in said.out
    for path in folder.rglob("*"):
        assert path.is_dir() or str(path) in said.out
    install(folder, "fresh_idea")
    done = run(folder, "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 passed, 1 skipped" in done.stdout  # it is not for encoders
    listed = run(folder, "quanta_bench.cli", "tasks", "fresh_idea")
    assert "fresh-idea 0.1.0" in listed.stdout, listed.stderr
    check_style(folder)


def test_a_method_passes_its_own_tests_before_it_is_installed(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made"
    assert bench("new", "method", "fresh_idea", "--to", folder).status == 0
    # In this process and without a fresh one: each would import torch again.
    words = ["-q", "-p", "no:cacheprovider", "-k", "not fresh_process", str(folder)]
    words += ["-c", str(folder / "pyproject.toml")]
    assert pytest.main([*words, "--rootdir", str(folder)]) == 0
    assert "14 passed, 1 skipped" in capsys.readouterr().out  # it is not registered yet
    check_style(folder)


def test_the_next_command_changes_into_any_folder(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # The package of another test may be installed or imported.
    said = bench("new", "task", "other_idea", "--to", "~/my tasks")
    assert said.status == 0
    assert f"  cd '{tmp_path}/my tasks'\n" in said.out


@pytest.mark.slow
def test_a_method_that_is_installed_is_registered(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    assert bench("new", "method", "fresh_idea", "--to", folder).status == 0
    install(folder, "fresh_idea")
    done = run(folder, "pytest", "-q", "-p", "no:cacheprovider")
    assert "14 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["methd", "x_1"], "Did you mean 'method'?"),
        (["method", "My-Method"], "Try 'my_method'."),
        (["method", "7up"], "a word of lower-case letters"),
        (["method", "class"], "a word of lower-case letters"),
        (["method", "lora"], "There is a method 'lora' already, from quanta-bench"),
        (["task", "piqa"], "There is a task 'piqa' already, from quanta-bench"),
        (["method", "vera"], "--set type=VERA"),
        (["task", "random"], "Python has a module 'random' already"),
        (["task", "fresh_words", "--to", "."], "exists already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").touch()
    said = bench("new", *words)
    assert said.status == 2
    assert message in said.both
    assert [path.name for path in tmp_path.iterdir()] == ["here.txt"]


def test_the_templates_are_in_the_package() -> None:
    assert {path.name for path in TEMPLATES.iterdir()} == {"method", "task"}
