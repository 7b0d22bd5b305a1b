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


def state(constraints: str) -> str:
    """What the environment is made from; it is renewed when this changes.

    The index of torch is not part of it: it is named for one command, and what it gave stays.
    """
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", constraints)]
    parts.append(sys.version.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def version_of(python: Path) -> str:
    """The version that an interpreter says it has; empty where it is missing or does not start."""
    command = [str(python), "-I", "-c", "import sys; sys.stdout.write(sys.version)"]
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL).decode()
    except (OSError, subprocess.CalledProcessError):
        return ""


def check_folder(folder: Path) -> None:
    """Refuse a folder with something else in it, which must be neither cleared nor added to."""
    if not folder.exists():
        return
    if folder.is_dir():
        ours = (folder / ".made").exists() or (folder / "pyvenv.cfg").exists()
        if ours or not any(folder.iterdir()):
            return
    sys.exit(
        "Set-up refused: %s exists and is not a virtual environment. Move it away, or name "
        "another folder: make VENV=FOLDER ..." % folder
    )


def make_environment(folder: Path, clear: bool) -> None:
    """Make the environment, or complete it; ``clear`` empties it first."""
    advice = (
        "Set-up failed: this Python cannot make a virtual environment with pip. Where Python comes "
        "from Debian or Ubuntu, install that part of it, apt install python%d.%d-venv, then run "
        "the same command again." % sys.version_info[:2]
    )
    try:
        # Before anything is cleared: Debian ships these two apart from Python.
        import ensurepip  # noqa: F401
        import venv
    except ImportError:
        sys.exit(advice)
    # A copied interpreter does not find its shared library in some builds of Python.
    builder = venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt", clear=clear)
    try:
        builder.create(folder)
    except subprocess.CalledProcessError as error:
        said = error.output or b""
        sys.stderr.write(said if isinstance(said, str) else said.decode(errors="replace"))
        sys.exit(advice)


def pip(python: Path, *words: str) -> None:
    """Run pip in the environment; its own words explain a failure."""
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1")
    # What pip says goes to standard error: standard output is the command's that follows.
    done = subprocess.call([str(python), "-m", "pip", "install", *words], env=environment, stdout=2)
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
    parser.add_argument(
        "--extra", choices=("dev", "bench"), help="also what tests and lint, or benchmarks, need"
    )
    parser.add_argument(
        "--constraints", default="constraints.txt", help="file of the project with the versions"
    )
    arguments = parser.parse_args()
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            "Python 3.11 or newer is needed; this is %s. Name another: make PYTHON=python3.12 ..."
            % sys.version.split()[0]
        )
    folder = arguments.folder
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    same = version_of(python) == sys.version
    wanted = state(arguments.constraints)
    stamps = [folder / ".made"]
    if arguments.extra:
        stamps.append(folder / (".made-" + arguments.extra))
    if same and all(stamp.exists() and stamp.read_text() == wanted for stamp in stamps):
        return
    check_folder(folder)
    announce(arguments)
    # Packages of another Python would stay beside the new ones and never be found.
    make_environment(folder, clear=folder.exists() and not same)
    constraints = ["--constraint", str(ROOT / arguments.constraints)]
    index = ["--index-url", arguments.torch_index] if arguments.torch_index else []
    # Not quiet: this is a large download, and pip's bar is the only sign of life.
    pip(python, *constraints, *index, "torch")
    extra = "[%s]" % arguments.extra if arguments.extra else ""
    pip(python, "--quiet", *constraints, "--editable", str(ROOT) + extra)
    for stamp in stamps:
        stamp.write_text(wanted)


if __name__ == "__main__":
    main()
