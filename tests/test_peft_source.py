"""Where `peft`'s own tests come from: a named folder, the cache, or pip; nothing else is taken."""

from __future__ import annotations

import importlib.metadata
import io
import tarfile
from pathlib import Path

import peft_source
import pytest

VERSION = importlib.metadata.version("peft")


def archive(folder: Path, version: str, member: str = "tests/test_it.py") -> Path:
    path = folder / f"peft-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in (("PKG-INFO", f"Name: peft\nVersion: {version}\n"), (member, "1")):
            info = tarfile.TarInfo(f"peft-{version}/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions that were asked for; the index has the installed one."""
    asked: list[str] = []

    def download(version: str, _: Path) -> Path:
        asked.append(version)
        return archive(tmp_path, version)

    monkeypatch.setattr(peft_source, "_download", download)
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(peft_source.VARIABLE, raising=False)
    return asked


def test_it_is_fetched_once(downloads: list[str]) -> None:
    folder = peft_source.peft_source()
    assert (folder / "tests" / "test_it.py").read_text() == "1"
    assert peft_source.peft_source() == folder
    assert downloads == [VERSION]


def test_a_named_folder_has_to_be_of_the_installed_version(
    downloads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(peft_source.VARIABLE, str(tmp_path))
    (tmp_path / "PKG-INFO").write_text(f"Name: peft\nVersion: {VERSION}\n")
    assert peft_source.peft_source() == tmp_path
    (tmp_path / "PKG-INFO").write_text(f"Name: peft\nVersion: {VERSION}1\n")
    with pytest.raises(peft_source.SourceMissingError, match="no source of peft"):
        peft_source.peft_source()
    assert downloads == []


def test_without_an_index_it_is_missing_with_pips_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(peft_source.VARIABLE, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(peft_source.SourceMissingError, match=r"pip cannot download .*ERROR"):
        peft_source.peft_source()
    assert not list((tmp_path / "cache").glob("peft-*"))


def test_another_archive_and_a_member_that_would_leave_the_folder_are_refused(
    tmp_path: Path,
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(ValueError, match="no source of peft 2"):
        peft_source.unpack(archive(tmp_path, "1"), "2", target)
    with pytest.raises(tarfile.FilterError):
        peft_source.unpack(archive(tmp_path, "3", "../../out"), "3", target)
    assert not list(target.iterdir())
