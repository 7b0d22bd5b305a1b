"""Make or renew the virtual environment that every make target runs in.

Needs only the standard library, since it runs before anything is installed, and parses on an old
Python, so that it can say that a newer one is needed.
"""

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)


def state(arguments: argparse.Namespace) -> str:
    """What the environment is made from; it is renewed when this changes."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    parts += [sys.version.encode(), (arguments.torch_index or "").encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def pip(python: Path, *words: str) -> None:
    """Run pip in the environment; its own words explain a failure."""
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1")
    done = subprocess.call(
        [str(python), "-m", "pip", "install", "--quiet", *words], env=environment
    )
    if done:
        sys.exit(
            "Set-up failed: pip could not install %s (see above). Check the network or the package "
            "index, then run the same command again." % words[-1]
        )


def announce(arguments: argparse.Namespace) -> None:
    """Say what is about to be downloaded, and how large it is."""
    sys.stderr.write(
        """Setting up %s, once, from your package index:
  torch              about 0.2 GB as a CPU build. On Linux the public index has the CUDA build,
                     about 3 GB; for the CPU build where your index has none:
                     make TORCH_INDEX=https://download.pytorch.org/whl/cpu ...
  everything else    about 0.25 GB, in the versions of constraints.txt
The offline model and data (0.18 GB) are fetched when first needed.
"""
        % arguments.folder
    )


def main() -> None:
    """Bring the environment up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv")
    parser.add_argument("--torch-index", help="package index to take torch from")
    parser.add_argument("--dev", action="store_true", help="also what tests and lint need")
    arguments = parser.parse_args()
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            "Python 3.11 or newer is needed; this is %s. Name another: make PYTHON=python3.12 ..."
            % sys.version.split()[0]
        )
    wanted = state(arguments)
    stamps = [arguments.folder / ".made"] + [arguments.folder / ".made-dev"] * arguments.dev
    if all(stamp.exists() and stamp.read_text() == wanted for stamp in stamps):
        return
    announce(arguments)
    import venv

    venv.EnvBuilder(with_pip=True).create(arguments.folder)
    python = arguments.folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    index = ["--index-url", arguments.torch_index] if arguments.torch_index else []
    pip(python, *constraints, *index, "torch")
    extra = "[dev]" if arguments.dev else ""
    pip(python, *constraints, "--editable", str(ROOT) + extra)
    for stamp in stamps:
        stamp.write_text(wanted)


if __name__ == "__main__":
    main()
