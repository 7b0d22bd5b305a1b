"""Make or renew the virtual environment that every make target runs in.

Needs only the standard library, since it runs before anything is installed, and parses on an old
Python, so that it can say that a newer one is needed. For the same reasons progress is shown by
hand: of what pip says only downloads and problems are shown, and of the time in between how much
is on disk. Everything goes to standard error: standard output belongs to the command that follows.
"""

import argparse
import collections
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)

BEAT = 5.0
"""Seconds of silence after which a line says what is being done."""

LARGE = 10e6
"""Size in bytes from which a download gets a line of its own."""

UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
DOWNLOAD = re.compile(r"Downloading (?P<file>\S+) \((?P<size>[\d.]+) (?P<unit>kB|MB|GB)\)")


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
        with Progress("making the environment", folder):
            builder.create(folder)
    except subprocess.CalledProcessError as error:
        output = error.output or b""
        sys.stderr.write(output if isinstance(output, str) else output.decode(errors="replace"))
        sys.exit(advice)


def bytes_in(folder: Path) -> int:
    """What the files in a folder take; those that go away meanwhile count nothing."""
    total = 0
    for path, _, names in os.walk(str(folder)):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(path) / name).lstat().st_size
    return total


def size(count: float) -> str:
    """A number of bytes in words: ``12 MB``, ``1.8 GB``."""
    return "%.1f GB" % (count / 1e9) if count >= 1e9 else "%.0f MB" % (count / 1e6)


class Progress:
    """Says what is being done whenever nothing has been said for some seconds.

    Args:
        doing: what is being done.
        folder: the folder that grows meanwhile.
    """

    def __init__(self, doing: str, folder: Path) -> None:
        self.doing = doing
        self.folder = folder
        self._terminal = sys.stderr.isatty()
        self._width = 0
        self._start = self._last = time.monotonic()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat)
        self._thread.daemon = True

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with self._lock:
            self._clear()

    def say(self, line: str) -> None:
        """A line that stays."""
        with self._lock:
            self._clear()
            sys.stderr.write("  %s\n" % line)
            sys.stderr.flush()
            self._last = time.monotonic()

    def _clear(self) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            self._width = 0

    def _beat(self) -> None:
        while not self._over.wait(BEAT / 10):
            if time.monotonic() - self._last < BEAT:
                continue
            passed = time.monotonic() - self._start
            count = bytes_in(self.folder)
            on_disk = ", %s on disk" % size(count) if count >= 1e6 else ""
            line = "  %d s: %s%s" % (passed, self.doing, on_disk)
            with self._lock:
                if self._terminal:
                    # In one place, which the next line takes.
                    line = line[: max(20, shutil.get_terminal_size().columns - 1)]
                    self._clear()
                    sys.stderr.write(line)
                    self._width = len(line)
                else:
                    sys.stderr.write(line + "\n")
                sys.stderr.flush()
                self._last = time.monotonic()


def install(python: Path, what: str, *arguments: str) -> None:
    """Run pip in the environment; its messages about a failure are shown.

    Args:
        python: the environment's interpreter.
        what: what is installed, in words.
        arguments: of ``pip install``.
    """
    # pip downloads into a temporary folder before it installs: of one of our own the size is known.
    with tempfile.TemporaryDirectory(prefix="quanta-bench-") as downloads:
        environment = dict(
            os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_PROGRESS_BAR="off", TMPDIR=downloads
        )
        process = subprocess.Popen(
            [str(python), "-m", "pip", "install", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        last = collections.deque(maxlen=15)  # type: collections.deque[str]
        try:
            with Progress("looking for " + what, Path(downloads)) as progress:
                for line in process.stdout or ():
                    text = line.decode(errors="replace").strip()
                    last.append(text)
                    show(text, progress, python)
        except KeyboardInterrupt:
            # A terminal sends Ctrl-C to pip too, which ends on its own.
            process.terminate()
            process.wait()
            raise
        if process.wait():
            sys.stderr.write("\n".join(last) + "\n")
            sys.exit(
                "Set-up failed: pip could not install %s (see above). Check the network or the "
                "package index, then run the same command again." % what
            )


def show(line: str, progress: Progress, python: Path) -> None:
    """Show of a line of pip's what matters: downloads, the installation itself, problems."""
    download = DOWNLOAD.search(line)
    if download:
        name = Path(download.group("file")).name.split("-")[0]
        count = float(download.group("size")) * UNITS[download.group("unit")]
        progress.doing = "downloading %s, %s" % (name, size(count))
        if count >= LARGE:
            progress.say(progress.doing)
    elif line.startswith("Collecting "):
        progress.doing = "looking for " + line.split()[1]
    elif line.startswith("Installing collected packages:"):
        count = line.count(",") + 1
        progress.folder = python.parent.parent
        progress.doing = "installing %d package%s" % (count, "s" if count > 1 else "")
        progress.say(progress.doing)
    elif line.startswith(("ERROR", "error:")) or (
        # One for each package and index location: harmless, and many lines.
        line.startswith("WARNING") and not line.startswith("WARNING: Location ")
    ):
        progress.say(line)


def announce(arguments: argparse.Namespace) -> None:
    """Say what will be downloaded, how large it is, and what is kept where."""
    sys.stderr.write(
        """Setting up %s, once, from your package index:
  torch              about 0.2 GB as a CPU build. On Linux the public index has the CUDA build,
                     about 3 GB; for the CPU build where your index has none:
                     make TORCH_INDEX=https://download.pytorch.org/whl/cpu ...
  everything else    about 0.25 GB, in the versions of constraints.txt
Kept: the environment, about 1.8 GB with the CPU build, and pip's own cache of downloads
(`pip cache purge` empties it). The offline model and data are fetched when first needed:
0.18 GB to download, of which 0.67 GB unpacked and converted are kept in the user's cache.
"""
        % arguments.folder
    )


def main() -> None:
    """Bring the environment up to date; Ctrl-C leaves one that the next call completes."""
    try:
        set_up()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped: set-up is incomplete; rerun the command to resume.\n")
        sys.exit(130)


def set_up() -> None:
    """Bring the environment up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv")
    parser.add_argument("--torch-index", help="package index to take torch from")
    parser.add_argument(
        "--extra",
        choices=("dev", "bench", "docs", "release"),
        help="also what tests and lint, benchmarks, the site, or a release need",
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
    current = state(arguments.constraints)
    stamps = [folder / ".made"]
    if arguments.extra:
        stamps.append(folder / (".made-" + arguments.extra))
    if same and all(stamp.exists() and stamp.read_text() == current for stamp in stamps):
        return
    check_folder(folder)
    announce(arguments)
    # Packages of another Python version would stay in the environment and never be found.
    make_environment(folder, clear=folder.exists() and not same)
    constraints = ["--constraint", str(ROOT / arguments.constraints)]
    index = ["--index-url", arguments.torch_index] if arguments.torch_index else []
    install(python, "torch", *constraints, *index, "torch")
    extra = "[%s]" % arguments.extra if arguments.extra else ""
    install(python, "the suite", *constraints, "--editable", str(ROOT) + extra)
    sys.stderr.write("Set up: %s, %s.\n" % (folder, size(bytes_in(folder))))
    for stamp in stamps:
        stamp.write_text(current)


if __name__ == "__main__":
    main()
