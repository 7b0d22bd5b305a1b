"""Run benchmarks one at a time, each in a fresh process, and store their results on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import ValidationError

from quanta_bench.benchmark import Conditions, Outcome, Record
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.plugins import BENCHMARKS
from quanta_bench.results.environment import environment
from quanta_bench.results.records import Environment
from quanta_bench.utils.processes import in_own_process
from quanta_bench.utils.quiet import settle_libraries


class Machine(Record):
    """The machine that the times were measured on.

    Attributes:
        cores: CPU cores that the process may use.
        memory_bytes: its main memory.
        environment: device, torch threads, package versions, commit.
    """

    cores: int
    memory_bytes: int
    environment: Environment


class Entry(Record):
    """One benchmark in a report.

    Attributes:
        name: its registered name.
        title: what is compared.
        origin: the package that registers it, with its version.
        status: ``done``, ``failed``, or ``missing`` if a package that it needs is not installed.
        reason: why it failed or could not run.
        date: its start, UTC, ISO 8601.
        seconds: wall time of the whole benchmark.
        quick: whether it ran with ``--quick``.
        model: the base model that it was asked to use.
        machine: where it ran.
        outcome: its results; ``None`` if it is not done.
    """

    name: str
    title: str
    origin: str
    status: Literal["done", "failed", "missing"]
    reason: str = ""
    date: str
    seconds: float = 0.0
    quick: bool
    model: str
    machine: Machine
    outcome: Outcome | None = None


class Report(Record):
    """The results of benchmarks, with all samples.

    Attributes:
        schema_version: version of this layout.
        entries: in display order.
    """

    schema_version: Literal[1] = 1
    entries: list[Entry] = []

    def with_entry(self, entry: Entry) -> Report:
        """A copy in which an entry replaces an older one of the same name.

        An entry that is not done never replaces one that is.
        """
        older = next((known for known in self.entries if known.name == entry.name), None)
        if older is not None and older.status == "done" != entry.status:
            return self
        rest = [known for known in self.entries if known.name != entry.name]
        return Report(entries=[*rest, entry])


def stem(quick: bool, device: str) -> str:
    """The stem of a report's file names: quick and full reports, and devices, stay apart."""
    return "bench" + ("" if device == "cpu" else f"-{device}") + ("-quick" if quick else "")


def read(path: Path) -> Report:
    """Read a report from disk; a missing file gives an empty report.

    Raises:
        BenchError: the file is not a valid report.
    """
    if not path.exists():
        return Report()
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BenchError(
            f"{path} cannot be read as a report of this version ({error.error_count()} problems, "
            f"first: {error.errors()[0]['msg']}). Move it away to start a new one."
        ) from None


def select(names: Sequence[str]) -> list[str]:
    """The benchmarks to run, in order; all of them if no name is given.

    Those that cannot be imported come last; :func:`run` reports why.

    Raises:
        UsageError: a name is not registered.
    """
    selected = list(dict.fromkeys(names)) or BENCHMARKS.names()

    def position(name: str) -> tuple[float, str]:
        try:
            return BENCHMARKS.get(name).place, name
        except UsageError:
            raise
        except BenchError:
            return float("inf"), name

    return sorted(selected, key=position)


def any_reads(names: Sequence[str]) -> bool:
    """Whether any of these benchmarks reads the model and data of its conditions."""
    reads = False
    for name in names:
        with suppress(BenchError):
            reads = reads or BENCHMARKS.get(name).reads
    return reads


def machine() -> Machine:
    """This machine."""
    current = environment()
    packages = dict(current.packages)
    for name in ("accelerate", "lm_eval", "opt-einsum"):
        if _installed(name):
            packages[name] = version(name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        cores=cores or 1,
        memory_bytes=psutil.virtual_memory().total,
        environment=current.model_copy(update={"packages": packages}),
    )


def run(name: str, conditions: Conditions, log: Path) -> Entry:
    """Run one benchmark in a process of its own.

    Args:
        name: its registered name.
        conditions: how to run it; ``tell`` is called in this process with the child's progress.
        log: file for what libraries print in the child process.

    Returns:
        Its entry, with the reason if it failed or could not run.

    Raises:
        KeyboardInterrupt: the user interrupted it; its processes have ended.
    """
    entry = Entry(
        name=name,
        title=name,
        origin=BENCHMARKS.origin(name),
        status="failed",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        quick=conditions.quick,
        model=conditions.model,
        machine=machine(),
    )
    try:
        benchmark = BENCHMARKS.get(name)
    except BenchError as error:
        return entry.model_copy(update={"reason": str(error)})
    entry = entry.model_copy(update={"title": benchmark.title})
    missing = [package for package in benchmark.needs if not _installed(package)]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        reason = (
            f"{' and '.join(missing)} {are} not installed; `make bench` installs what it needs."
        )
        return entry.model_copy(update={"status": "missing", "reason": reason})
    options = {
        "quick": conditions.quick,
        "model": conditions.model,
        "source": conditions.source,
        "device": conditions.device,
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    update: dict[str, Any]
    try:
        measured_on, outcome = in_own_process(_work, name, options, tell=conditions.tell, log=log)
        # The number of torch threads is that of the timed process.
        update = {"status": "done", "outcome": outcome, "machine": measured_on}
    except BenchError as error:
        update = {"reason": str(error)}
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        update = {"reason": f"{type(error).__name__}: {text} (see {log})"}
    return entry.model_copy(update={**update, "seconds": time.perf_counter() - start})


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _work(
    name: str, options: dict[str, Any], *, tell: Callable[[str], None]
) -> tuple[Machine, Outcome]:
    """The child process's work."""
    if options["device"] == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    settle_libraries()
    outcome = BENCHMARKS.get(name)().run(Conditions(tell=tell, **options))
    return machine(), outcome


def run_all(
    names: Sequence[str],
    conditions: Conditions,
    folder: Path,
    begin: Callable[[str], Any],
    finished: Callable[[Entry], None],
) -> list[Entry]:
    """Run benchmarks one after another; each is added to the report on disk when it finishes.

    Args:
        names: as returned by :func:`select`.
        conditions: how to run them.
        folder: the report's folder.
        begin: called with each name before it runs.
        finished: called with each entry.

    Raises:
        BenchError: an existing report cannot be read.
        KeyboardInterrupt: the user interrupted; the report holds the finished benchmarks.
    """
    path = folder / f"{stem(conditions.quick, conditions.device)}.json"
    report = read(path)
    entries = []
    for name in names:
        begin(name)
        entry = run(name, conditions, folder / "logs" / f"{name}.txt")
        report = report.with_entry(entry)
        _write(path, _ordered(report))
        entries.append(entry)
        finished(entry)
    return entries


def _ordered(report: Report) -> Report:
    """In the order of the installed benchmarks; those no longer installed come last."""
    order = {name: position for position, name in enumerate(select(()))}
    entries = sorted(report.entries, key=lambda entry: order.get(entry.name, len(order)))
    return Report(entries=entries)


def _write(path: Path, report: Report) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    part.replace(path)
