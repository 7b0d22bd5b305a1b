"""Which state of the code a result is of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from quanta_bench.results.environment import git_state


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "lora.py").write_text("r = 8\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    return tmp_path


def test_a_users_own_files_are_no_change_to_the_code(checkout: Path) -> None:
    (checkout / "my-items.jsonl").write_text("{}\n")
    (checkout / "my-model").mkdir()
    (checkout / "my-model" / "config.json").write_text("{}\n")
    commit, dirty = git_state(checkout)
    assert len(commit) == 40
    assert not dirty


@pytest.mark.parametrize("name", ["lora.py", "mine.py"])
def test_a_changed_or_a_new_method_is(checkout: Path, name: str) -> None:
    (checkout / "baselines" / name).write_text("r = 16\n")
    assert git_state(checkout)[1]


def test_outside_a_checkout_nothing_is_known(tmp_path: Path) -> None:
    assert git_state(tmp_path) == ("", False)
