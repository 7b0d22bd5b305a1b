"""Running benchmarks: one at a time, each in a fresh process, and what they found on disk."""

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
    """What the times were measured on.

    Attributes:
        cores: processor cores that the process may use.
        memory_bytes: of the machine.
        environment: processor or GPU, torch's threads, versions, commit.
    """

    cores: int
    memory_bytes: int
    environment: Environment


class Entry(Record):
    """One benchmark's place in a report.

    Attributes:
        name: its registered name.
        title: what is compared.
        origin: the package that brought it, and its version.
        status: ``done``; ``failed``; or ``missing`` where a package that it needs is not installed.
        reason: why it is not done.
        date: when it began, UTC, ISO 8601.
        seconds: wall time of the whole benchmark.
        quick: whether it ran in short.
        model: the base model that it was told to take.
        machine: where it ran.
        outcome: what it found; ``None`` if it is not done.
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
    """Benchmarks, each with the samples behind its numbers.

    Attributes:
        schema_version: version of this layout.
        entries: in the order in which they are shown.
    """

    schema_version: Literal[1] = 1
    entries: list[Entry] = []

    def with_entry(self, entry: Entry) -> Report:
        """A copy in which an entry stands in place of an older one of its name.

        One that is not done takes no finished one's place.
        """
        older = next((one for one in self.entries if one.name == entry.name), None)
        if older is not None and older.status == "done" != entry.status:
            return self
        rest = [one for one in self.entries if one.name != entry.name]
        return Report(entries=[*rest, entry])


def stem(quick: bool) -> str:
    """What a report's files are called; a quick one never replaces a full one."""
    return "bench-quick" if quick else "bench"


def read(path: Path) -> Report:
    """A report on disk; an empty one where there is none.

    Raises:
        BenchError: the file cannot be read as a report.
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


def chosen(names: Sequence[str]) -> list[str]:
    """The names of the benchmarks to run, in order; all of them if none is named.

    One that cannot be imported comes last; :func:`run` says why.

    Raises:
        UsageError: there is none of a name.
    """
    wanted = list(dict.fromkeys(names)) or BENCHMARKS.names()

    def place(name: str) -> tuple[float, str]:
        try:
            return BENCHMARKS.get(name).place, name
        except UsageError:
            raise
        except BenchError:
            return float("inf"), name

    return sorted(wanted, key=place)


def reads(names: Sequence[str]) -> bool:
    """Whether one of these benchmarks reads the model and data of its conditions."""
    found = False
    for name in names:
        with suppress(BenchError):
            found = found or BENCHMARKS.get(name).reads
    return found


def machine() -> Machine:
    """This machine."""
    here = environment()
    packages = dict(here.packages)
    for name in ("accelerate", "lm_eval", "opt-einsum"):
        if _installed(name):
            packages[name] = version(name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        cores=cores or 1,
        memory_bytes=psutil.virtual_memory().total,
        environment=here.model_copy(update={"packages": packages}),
    )


def run(name: str, conditions: Conditions, log: Path) -> Entry:
    """Run one benchmark in a process of its own.

    Args:
        name: its registered name.
        conditions: how; ``tell`` is called here with what the other process says.
        log: file for what the libraries print there.

    Returns:
        Its entry; one that cannot run or fails says why.

    Raises:
        KeyboardInterrupt: the user stopped it; its processes are gone.
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
    absent = [package for package in benchmark.needs if not _installed(package)]
    if absent:
        reason = f"{' and '.join(absent)} is not installed; `make bench` installs what it needs."
        return entry.model_copy(update={"status": "missing", "reason": reason})
    words = {"quick": conditions.quick, "model": conditions.model, "source": conditions.source}
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    update: dict[str, Any]
    try:
        there, outcome = in_own_process(_work, name, words, tell=conditions.tell, log=log)
        # The threads of torch are those of the process that was timed.
        update = {"status": "done", "outcome": outcome, "machine": there}
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
    name: str, words: dict[str, Any], *, tell: Callable[[str], None]
) -> tuple[Machine, Outcome]:
    """What the other process does."""

    settle_libraries()
    outcome = BENCHMARKS.get(name)().run(Conditions(tell=tell, **words))
    return machine(), outcome


def run_all(
    names: Sequence[str],
    conditions: Conditions,
    folder: Path,
    begin: Callable[[str], Any],
    finished: Callable[[Entry], None],
) -> list[Entry]:
    """Run benchmarks one after another; the report on disk has each as soon as it is finished.

    Args:
        names: as :func:`chosen` gives them.
        conditions: how to run them.
        folder: the report's folder.
        begin: called with each name before it runs.
        finished: called with each entry.

    Raises:
        BenchError: the report that is there cannot be read.
        KeyboardInterrupt: the user stopped; what was finished is in the report.
    """
    path = folder / f"{stem(conditions.quick)}.json"
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
    """In the order of the installed benchmarks; those that are not installed any more come last."""
    places = {name: place for place, name in enumerate(chosen(()))}
    entries = sorted(report.entries, key=lambda one: places.get(one.name, len(places)))
    return Report(entries=entries)


def _write(path: Path, report: Report) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    part.replace(path)
