"""The source distribution of the installed `peft`, which holds the tests it has for its own tuners.

Its wheel lacks them. pip fetches the distribution once (1 MB); it is kept beside the suite's other
downloads and never installed.
"""

from __future__ import annotations

import importlib.metadata
import os
import tarfile
import tempfile
from pathlib import Path

from pip_download import SourceMissingError, download

from quanta_bench.utils.cache import build_once, cache_folder

__all__ = ["SourceMissingError", "peft_source"]

VARIABLE = "PEFT_SOURCE"


def peft_source() -> Path:
    """The unpacked source distribution of the installed version of `peft`.

    The folder that the variable ``PEFT_SOURCE`` names; without it the one in the cache folder,
    fetched with pip unless it is there.

    Raises:
        SourceMissingError: the variable names no source of that version, or pip cannot
            download it.
    """
    version = importlib.metadata.version("peft")
    named = os.environ.get(VARIABLE)
    if named:
        folder = Path(named)
        if not is_source(folder, version):
            raise SourceMissingError(f"{VARIABLE}={named} is no source of peft {version}")
        return folder
    target = cache_folder() / f"peft-{version}-source"
    return build_once(target, lambda folder: _fetch(version, folder))


def is_source(folder: Path, version: str) -> bool:
    """Whether a folder holds the unpacked source distribution of a version of `peft`."""
    about = folder / "PKG-INFO"
    if not about.is_file():
        return False
    lines = about.read_text(encoding="utf-8").splitlines()
    return "Name: peft" in lines and f"Version: {version}" in lines


def _fetch(version: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        unpack(_download(version, Path(scratch)), version, folder)


def _download(version: str, folder: Path) -> Path:
    return download(f"peft=={version}", folder, "--no-binary=:all:")


def unpack(archive: Path, version: str, folder: Path) -> None:
    """Unpack a source distribution of `peft` into a folder, without its top folder.

    Raises:
        ValueError: it is not that version's.
        tarfile.FilterError: a member would leave the folder.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        (top,) = Path(scratch).iterdir()
        if not is_source(top, version):
            raise ValueError(f"{archive.name} is no source of peft {version}")
        for path in top.iterdir():
            path.rename(folder / path.name)
