"""A distribution of the package index as a file, which nothing installs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


class SourceMissingError(Exception):
    """A distribution cannot be had; the message says why."""


def download(requirement: str, folder: Path, *options: str) -> Path:
    """Download one distribution with pip, which knows the user's index.

    Args:
        requirement: name and version, such as ``peft==0.21.2``.
        folder: where to, empty.
        options: further ones of ``pip download``.

    Raises:
        SourceMissingError: pip cannot download it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", *options]
    # One attempt: without a network the test is skipped at once.
    command += ["--disable-pip-version-check", "--no-input", "--retries=0", "--timeout=15"]
    command += ["--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = sorted(folder.glob("*.tar.gz")) + sorted(folder.glob("*.whl"))
    if done.returncode or len(files) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[0] if lines else f"exit status {done.returncode}"
        named = requirement.replace("==", " ")
        raise SourceMissingError(f"pip cannot download {named}: {reason}")
    return files[0]
