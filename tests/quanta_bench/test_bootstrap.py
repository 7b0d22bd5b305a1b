"""Set-up of the environment, with pip and venv replaced: what is run, when, and what is said."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "quanta_bench" / "bootstrap.py"


class SetUp:
    """The script with a project of its own to set up."""

    def __init__(self, module: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = module
        self.root = root
        self.folder = root / "env"
        self.calls: list[list[str]] = []
        self.status = 0
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(module, "ROOT", root)
        monkeypatch.setattr(subprocess, "call", self._call)
        monkeypatch.setattr("venv.EnvBuilder", lambda **_: SimpleNamespace(create=self._create))

    def _create(self, folder: Path) -> None:
        Path(folder).mkdir(exist_ok=True)

    def _call(self, words: list[str], **_: Any) -> int:
        self.calls.append(words)
        return self.status

    def __call__(self, *words: str) -> list[list[str]]:
        """Run it; returns pip's words of each call."""
        self.calls.clear()
        argv = ["bootstrap.py", "--folder", str(self.folder), *words]
        self._monkeypatch.setattr(sys, "argv", argv)
        self.module.main()
        return [call[call.index("install") + 1 :] for call in self.calls]


@pytest.fixture
def set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetUp:
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text("a")
    (tmp_path / "constraints.txt").write_text("b")
    return SetUp(module, tmp_path, monkeypatch)


def test_it_parses_on_an_old_python_and_needs_only_the_standard_library() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
    names = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }
    assert names <= sys.stdlib_module_names


def test_the_first_time_installs_torch_then_the_project_under_the_constraints(
    set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    torch, project = set_up()
    assert torch[-1] == "torch"
    assert project[-2:] == ["--editable", str(set_up.root)]
    for words in (torch, project):
        assert words[words.index("--constraint") + 1] == str(set_up.root / "constraints.txt")
    said = capsys.readouterr().err
    for words in ("torch", "GB", str(set_up.folder), "TORCH_INDEX"):
        assert words in said


def test_the_second_time_does_nothing(set_up: SetUp, capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    capsys.readouterr()
    assert set_up() == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_file_renews_it(set_up: SetUp, name: str) -> None:
    set_up()
    (set_up.root / name).write_text("changed")
    assert set_up()
    assert set_up() == []


def test_the_tests_need_more_than_the_tables(set_up: SetUp) -> None:
    set_up()
    assert set_up("--dev")[-1][-1] == f"{set_up.root}[dev]"
    assert set_up("--dev") == []
    assert set_up() == []


def test_torch_alone_comes_from_its_own_index(set_up: SetUp) -> None:
    torch, project = set_up("--torch-index", "https://example.org/cpu")
    assert torch[torch.index("--index-url") + 1] == "https://example.org/cpu"
    assert "--index-url" not in project


def test_a_failed_installation_stops_and_is_not_taken_for_done(set_up: SetUp) -> None:
    set_up.status = 1
    with pytest.raises(SystemExit, match="pip could not install torch"):
        set_up()
    assert len(set_up.calls) == 1
    set_up.status = 0
    assert len(set_up()) == 2


def test_an_old_python_is_told_of_a_newer_one(
    set_up: SetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1, "final", 0))
    monkeypatch.setattr(sys, "version", "3.9.1 (main)")
    with pytest.raises(SystemExit, match=r"3\.11 or newer is needed; this is 3\.9\.1"):
        set_up()
    assert set_up.calls == []


def test_the_oldest_python_is_the_one_of_pyproject(set_up: SetUp) -> None:
    text = (SCRIPT.parents[1] / "pyproject.toml").read_text()
    oldest = ".".join(map(str, set_up.module.OLDEST_PYTHON))
    assert f'requires-python = ">={oldest}"' in text
