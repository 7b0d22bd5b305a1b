"""Every Eval Ever's own package, whose validator judges the files that are written for it.

Its wheel asks for Python 3.12 and an older hub client than ours, so it is never installed: pip
fetches it once (0.6 MB), it is unpacked beside the suite's other downloads, and its validator runs
in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from pip_download import download

from quanta_bench.utils.cache import build_once, cache_folder

VERSION = "0.3.0"


def eee_package() -> Path:
    """The folder that holds the unpacked package ``every_eval_ever``.

    Raises:
        SourceMissingError: pip cannot download it.
    """
    return build_once(cache_folder() / f"every-eval-ever-{VERSION}", _fetch)


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        options = ("--python-version=3.12", "--only-binary=:all:")
        wheel = download(f"every-eval-ever=={VERSION}", Path(scratch), *options)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def validated(folder: Path) -> list[dict[str, Any]]:
    """What its validator says of every file below ``folder/data``."""
    command = [sys.executable, "-m", "every_eval_ever.validate", "--format", "json"]
    places = os.pathsep.join(filter(None, [str(eee_package()), *sys.path]))
    done = subprocess.run(
        [*command, "data/**/*.json*"],
        cwd=folder, env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
