"""The output of the command `bench` while benchmarks run and when they are done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console
from rich.status import Status
from rich.text import Text

from quanta_bench.bench import report, runner
from quanta_bench.bench.runner import Entry, Report
from quanta_bench.benchmark import Conditions
from quanta_bench.cli import console as terminal
from quanta_bench.cli.command import one_of
from quanta_bench.errors import UsageError
from quanta_bench.sources.names import read_words
from quanta_bench.spec import ModelSpec
from quanta_bench.utils.device import this_device


@dataclass(frozen=True)
class Selection:
    """The user's selection.

    Attributes:
        names: names of benchmarks; empty for all.
        quick: whether ``--quick`` was given.
        model: reference to a base model.
        source: name of a data source.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    names: tuple[str, ...]
    quick: bool
    model: str
    source: str
    device: str = "auto"


def run(selection: Selection, folder: Path, *, as_json: bool) -> bool:
    """Run benchmarks, show their findings, and write the report.

    Returns:
        Whether one failed or could not run.

    Raises:
        UsageError: a benchmark, model, source or device is unknown, or there is no such device.
        KeyboardInterrupt: the user interrupted; finished benchmarks are written and shown first.
    """
    names = runner.select(selection.names)
    device = _device(selection.device)
    sources = (ModelSpec.from_reference(selection.model).source, selection.source)
    for source in sources:
        read_words(source)
    terminal.check_results(folder)
    console = terminal.progress()
    if runner.any_reads(names):
        terminal.fetch(console, models=sources[:1], data=sources[1:])
    entries: list[Entry] = []
    try:
        with console.status("") as status:
            shown = _Shown(console, status, len(names))
            conditions = Conditions(
                selection.quick, selection.model, selection.source, device, shown.tell
            )

            def finished(entry: Entry) -> None:
                entries.append(entry)
                shown.finished(entry)

            runner.run_all(names, conditions, folder, shown.begin, finished)
    finally:
        # Also after Ctrl-C, to show finished benchmarks.
        if entries:
            name = runner.stem(selection.quick, device)
            _end(entries, name, folder, as_json=as_json)
    return any(entry.status != "done" for entry in entries)


def _device(name: str) -> Literal["cpu", "cuda"]:
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(one_of("--device", name, ("auto", "cpu", "cuda")))
    here = this_device().type
    if name == "cuda" and here != "cuda":
        raise UsageError("--device cuda: torch finds no GPU here. Use --device cpu.")
    return "cuda" if here == "cuda" and name != "cpu" else "cpu"


class _Shown:
    """A status line, and one line per finished benchmark."""

    def __init__(self, console: Console, status: Status, count: int) -> None:
        self._console = console
        self._status = status
        self._count = count
        self._number = 0
        self._name = ""

    def begin(self, name: str) -> None:
        self._number += 1
        self._name = name
        self.tell("starting")

    def tell(self, text: str) -> None:
        line = f"{self._label}: {text}"
        if self._console.is_terminal:
            self._status.update(Text(line))
        else:
            self._console.print(line, highlight=False)

    def finished(self, entry: Entry) -> None:
        minutes, seconds = divmod(round(entry.seconds), 60)
        took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        outcome = took if entry.status == "done" else f"{entry.status}, see below"
        self._console.print(f"{self._label}: {outcome}", highlight=False)

    @property
    def _label(self) -> str:
        return f"{self._number}/{self._count} {self._name}"


def _end(entries: list[Entry], name: str, folder: Path, *, as_json: bool) -> None:
    path = folder / f"{name}.json"
    merged = runner.read(path)
    paths = [path, *report.write(merged, folder, name)]
    if as_json:
        typer.echo(Report(entries=entries).model_dump_json(indent=1))
        return
    terminal.console().print(report.on_screen(entries, name))
    terminal.progress().print(f"Written: {', '.join(map(str, paths))}.", style="dim")
