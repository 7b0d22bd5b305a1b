"""Set-up of the environment, with pip and venv replaced: what is run, when, and what is said."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from paths import ROOT

SCRIPT = ROOT / "quanta_bench" / "bootstrap.py"


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
        self.version = sys.version
        self.built: list[dict[str, Any]] = []
        self.output = ""
        monkeypatch.setattr(subprocess, "Popen", self._pip)
        monkeypatch.setattr(subprocess, "check_output", self._version)
        monkeypatch.setattr("venv.EnvBuilder", self._builder)

    def _builder(self, **options: Any) -> SimpleNamespace:
        self.built.append(options)
        return SimpleNamespace(create=self._create)

    def _create(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "pyvenv.cfg").touch()
        if self.built[-1]["clear"]:
            self.version = sys.version

    def _version(self, words: list[str], **_: Any) -> bytes:
        if not (self.folder / "pyvenv.cfg").exists():
            raise FileNotFoundError(words[0])
        if not self.version:
            raise subprocess.CalledProcessError(127, words)
        return self.version.encode()

    def _pip(self, words: list[str], **_: Any) -> SimpleNamespace:
        self.calls.append(words)
        lines = [line.encode() for line in self.output.splitlines(keepends=True)]
        return SimpleNamespace(stdout=lines, wait=lambda: self.status, terminate=lambda: None)

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


@pytest.mark.parametrize("extra", ["dev", "bench", "release"])
def test_tests_and_benchmarks_need_more_than_the_tables(set_up: SetUp, extra: str) -> None:
    set_up()
    assert set_up("--extra", extra)[-1][-1] == f"{set_up.root}[{extra}]"
    assert set_up("--extra", extra) == []
    assert set_up() == []


def test_torch_alone_comes_from_its_own_index(set_up: SetUp) -> None:
    torch, project = set_up("--torch-index", "https://example.org/cpu")
    assert torch[torch.index("--index-url") + 1] == "https://example.org/cpu"
    assert "--index-url" not in project


def test_the_index_of_torch_is_no_reason_to_renew(set_up: SetUp) -> None:
    set_up("--torch-index", "https://example.org/cpu")
    assert set_up() == []
    assert set_up("--torch-index", "https://example.org/other") == []


PIP = """WARNING: Location 'file:///x/torch/' is ignored: it is neither a file nor a directory.
WARNING: Location 'file:///x/numpy/' is ignored: it is neither a file nor a directory.
Collecting torch
  Downloading torch-2.13.0-cp311-cp311-linux_x86_64.whl (191.5 MB)
Collecting filelock
  Downloading filelock-3.29.7-py3-none-any.whl (37 kB)
WARNING: something that a user should know
Installing collected packages: torch, filelock
Successfully installed filelock-3.29.7 torch-2.13.0
"""


def test_large_downloads_the_installation_and_problems_are_shown(
    set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up.output = PIP
    set_up()
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    once = [
        "downloading torch, 192 MB",
        "WARNING: something that a user should know",
        "installing 2 packages",
    ]
    assert [line for line in lines if line.startswith(("downl", "inst", "WARN"))] == once * 2


def test_silence_is_broken_by_what_is_done_and_what_is_on_disk(
    set_up: SetUp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(set_up.module, "BEAT", 0.01)
    set_up.folder.mkdir()
    (set_up.folder / "large").write_bytes(b"x" * 2_000_000)
    with set_up.module.Progress("installing", set_up.folder) as progress:
        text = ""
        # However slow the machine: the test's own time limit ends this.
        while "on disk" not in text:
            text += capsys.readouterr().err
    assert "s: installing, 2 MB on disk" in text
    assert not progress._thread.is_alive()


def test_ctrl_c_is_answered_and_the_next_call_goes_on(
    set_up: SetUp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    set_up.output = PIP
    with monkeypatch.context() as patch:
        patch.setattr(set_up.module, "show", stop)
        with pytest.raises(SystemExit) as stopped:
            set_up()
    assert stopped.value.code == 130
    assert "set-up is incomplete" in capsys.readouterr().err
    assert len(set_up()) == 2


def test_interpreters_are_linked_where_links_can_be_made(set_up: SetUp) -> None:
    set_up()
    assert [options["symlinks"] for options in set_up.built] == [os.name != "nt"]


@pytest.mark.parametrize("version", ["3.11.0 (another)", ""])
def test_an_environment_of_another_python_is_made_anew(set_up: SetUp, version: str) -> None:
    """Of another version, or of one that does not start any more."""
    set_up()
    set_up.version = version
    # Its stamps may still be right, where the interpreter alone went away.
    assert len(set_up()) == 2
    assert [options["clear"] for options in set_up.built] == [False, True]
    assert set_up() == []


def test_a_renewed_environment_of_the_same_python_is_kept(set_up: SetUp) -> None:
    set_up()
    (set_up.root / "constraints.txt").write_text("changed")
    set_up()
    assert [options["clear"] for options in set_up.built] == [False, False]


def test_a_folder_with_something_else_in_it_is_left_alone(set_up: SetUp) -> None:
    set_up.folder.mkdir()
    precious = set_up.folder / "thesis.tex"
    precious.touch()
    with pytest.raises(SystemExit, match="is not a virtual environment"):
        set_up()
    assert precious.exists()
    assert set_up.built == set_up.calls == []


def test_a_file_in_the_folders_place_is_left_alone(set_up: SetUp) -> None:
    set_up.folder.touch()
    with pytest.raises(SystemExit, match="is not a virtual environment"):
        set_up()
    assert set_up.built == []


def test_an_empty_folder_is_used(set_up: SetUp) -> None:
    set_up.folder.mkdir()
    assert len(set_up()) == 2


@pytest.mark.parametrize("module", ["ensurepip", "venv"])
def test_a_python_without_venv_is_told_what_to_install(
    set_up: SetUp, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    set_up()
    set_up.version = "3.11.0 (another)"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit, match=r"apt install python3\.\d+-venv"):
        set_up()
    assert len(set_up.built) == 1


def test_a_failing_ensurepip_says_the_same_after_its_own_words(
    set_up: SetUp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> None:
        raise subprocess.CalledProcessError(1, "ensurepip", output=b"no wheels")

    monkeypatch.setattr(set_up, "_create", fail)
    with pytest.raises(SystemExit, match=r"apt install python3\.\d+-venv"):
        set_up()
    assert "no wheels" in capsys.readouterr().err


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
