"""Bad inputs by the hundred: each is refused in one message, with its exit status, in seconds.

What stands in front of every commit is a part of them; ``make test ARGS="-m slow -k bad_inputs"``
runs all.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bad_inputs import command_lines, data_files, model_folders, suite_files
from bad_inputs.cases import Case, Material
from bad_inputs.harness import Outcome, attempt, complaint, nothing_computed
from command_line import command

FAMILIES: dict[str, Callable[[Material], Iterator[Case]]] = {
    "command lines": command_lines.cases,
    "suite files": suite_files.cases,
    "data files": data_files.cases,
    "model folders": model_folders.cases,
}
FEWEST = {"command lines": 500, "suite files": 200, "data files": 150, "model folders": 150}
SHARE = 12
"""Of the cases of a family, one of so many runs by default."""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Material:
    """Good material, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Material.make(tmp_path)


def complaints(cases: list[Case], patch: pytest.MonkeyPatch) -> list[str]:
    """What is wrong with how the cases were refused."""
    with nothing_computed(patch):
        return [said for case in cases if (said := complaint(case, attempt(case.words)))]


@pytest.mark.parametrize("family", FAMILIES)
def test_some_bad_inputs_are_refused(
    made: Material, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    some = list(FAMILIES[family](made))[::SHARE]
    assert complaints(some, monkeypatch) == []


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_bad_input_is_refused(
    made: Material, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    every = list(FAMILIES[family](made))
    assert len(every) >= FEWEST[family]
    assert complaints(every, monkeypatch) == []


def test_what_is_good_is_not_refused(made: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, a command that refuses everything would pass the tests above."""
    with nothing_computed(monkeypatch):
        for words in (made.run(), made.table()):
            assert attempt(words).why.startswith("it began to")


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_of_its_own_refuses_as_well(made: Material, number: int) -> None:
    """No test's process, whose imports and signals are others."""
    case = [
        Case("rows of a pipe", made.run("--task", "file:/dev/zero")),
        Case("a bomb", made.table("--set", "training.tasks=" + "[" * 10_000)),
    ][number]
    done = subprocess.run(command(*case.words), capture_output=True, text=True, timeout=120)
    assert complaint(case, Outcome(done.returncode, done.stdout + done.stderr, 0.0)) == ""
