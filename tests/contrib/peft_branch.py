"""`peft` with the files of ``contrib/peft`` laid over its source distribution."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT
from tests.peft_source import peft_source

CONTRIB = ROOT / "contrib" / "peft"
NOT_IN_THE_DISTRIBUTION = ("docs", "method_comparison")

DIFFUSERS = "class StableDiffusionPipeline: ...\n"
"""`peft`'s tests import this class of `diffusers`; those of QuanTA do not use it."""


def lay_over(folder: Path) -> None:
    """Copy the source distribution into an empty folder and lay the branch over it.

    Raises:
        SourceMissingError: The source distribution cannot be had.
        subprocess.CalledProcessError: The patch does not apply.
    """
    source = peft_source()
    for part in ("src", "tests"):
        shutil.copytree(source / part, folder / part)
    shutil.copytree(CONTRIB / "src", folder / "src", dirs_exist_ok=True)
    excluded = [f"--exclude={part}/*" for part in NOT_IN_THE_DISTRIBUTION]
    patch = str(CONTRIB / "existing_files.patch")
    # The folder may lie in a repository, whose root `git apply` would take paths from.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    subprocess.run(["git", "apply", *excluded, patch], cwd=folder, env=environment, check=True)
    # The distribution leaves it out, and the tests import one another relatively.
    (folder / "tests" / "__init__.py").touch()
    stub = folder / "stubs" / "diffusers"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text(DIFFUSERS)


def run(
    folder: Path, words: list[str], where: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with the branch's `peft`, without a network, on one thread; there, or where."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(folder / part) for part in ("src", "stubs")),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    for name in [name for name in environment if name.startswith(("PYTEST_", "COV_"))]:
        del environment[name]
    return subprocess.run(
        [sys.executable, *words],
        cwd=where or folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


PYTEST = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "ignore", "-o", "addopts="]
"""Options of pytest in place of `peft`'s own, which measure coverage."""
