"""What the command `bench` shows while benchmarks run, and when they are done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.status import Status

from quanta_bench.bench import report, runner
from quanta_bench.bench.runner import Entry, Report
from quanta_bench.benchmark import Conditions
from quanta_bench.cli import console as terminal
from quanta_bench.sources.names import read_words
from quanta_bench.spec import ModelSpec


@dataclass(frozen=True)
class Selection:
    """What a user asked for.

    Attributes:
        names: of benchmarks; none for all.
        quick: whether to run in short.
        model: words of a base model.
        source: words of a source of data.
    """

    names: tuple[str, ...]
    quick: bool
    model: str
    source: str


def run(selection: Selection, folder: Path, *, as_json: bool) -> bool:
    """Run benchmarks, show what they found, and write the report.

    Returns:
        Whether one failed or could not run.

    Raises:
        UsageError: there is no benchmark of a name, or the model's or source's words are off.
        KeyboardInterrupt: the user stopped; what was finished is written and shown first.
    """
    names = runner.select(selection.names)
    sources = (ModelSpec.from_reference(selection.model).source, selection.source)
    for source in sources:
        read_words(source)
    console = terminal.console(errors=as_json)
    if runner.any_reads(names):
        terminal.fetch(console, models=sources[:1], data=sources[1:])
    entries: list[Entry] = []
    try:
        with console.status("") as status:
            shown = _Shown(console, status, len(names))
            conditions = Conditions(selection.quick, selection.model, selection.source, shown.tell)

            def finished(entry: Entry) -> None:
                entries.append(entry)
                shown.finished(entry)

            runner.run_all(names, conditions, folder, shown.begin, finished)
    finally:
        # Also after Ctrl-C: what was finished is worth seeing.
        if entries:
            _end(entries, selection, folder, console, as_json=as_json)
    return any(entry.status != "done" for entry in entries)


class _Shown:
    """One line that says what is being done, and one for each benchmark that is finished."""

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
        line = f"{self._place}: {text}"
        if self._console.is_terminal:
            self._status.update(line.replace("[", r"\["))
        else:
            self._console.print(line, highlight=False, markup=False)

    def finished(self, entry: Entry) -> None:
        minutes, seconds = divmod(round(entry.seconds), 60)
        took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        said = took if entry.status == "done" else f"{entry.status}, see below"
        self._console.print(f"{self._place}: {said}", highlight=False, markup=False)

    @property
    def _place(self) -> str:
        return f"{self._number}/{self._count} {self._name}"


def _end(
    entries: list[Entry], selection: Selection, folder: Path, console: Console, *, as_json: bool
) -> None:
    path = folder / f"{runner.stem(selection.quick)}.json"
    whole = runner.read(path)
    paths = [path, *report.write(whole, folder, quick=selection.quick)]
    if as_json:
        typer.echo(Report(entries=entries).model_dump_json(indent=1))
        return
    console.print(report.on_screen(entries))
    console.print(f"Written: {', '.join(map(str, paths))}.", style="dim")
