"""Find a stored run by its name or its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quanta_bench.errors import BenchError, UsageError, did_you_mean
from quanta_bench.report.page.commands import run_command
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.places import by_last_names, relocated

Form = Literal["adapter", "unmerged", "merged"]
"""How a run is exported: as an adapter that `peft` knows, as one that it knows once
`quanta_bench.tuners` is imported, or as a plain model in float32."""
LOCAL = Path("results") / "local"
"""Where commands store runs by default, in a folder a profile."""


@dataclass(frozen=True)
class StoredRun:
    """A finished run and the results folder that holds it."""

    store: Store
    result: Result

    @property
    def command(self) -> str:
        """The command that computes the run again."""
        return run_command(self.result)

    @property
    def portable_command(self) -> str:
        """The same without the folders of the user's own files and models, for others to read."""
        result = self.result
        evaluation = by_last_names(result.evaluation)
        return run_command(relocated(result, by_last_names(result.training.spec), evaluation))

    def adapter(self) -> Path:
        """The folder of what was trained, its files checked against their hashes.

        Raises:
            UsageError: the run trained nothing.
            BenchError: the folder is not kept, or is not what was written.
        """
        record, run = self.result.training, self.result.run
        if not record.adapter:
            raise UsageError(
                f"The run {run} trained nothing: its model is the base model itself, "
                f"{record.model}."
            )
        if (self.store.run_folder(run) / "adapter").is_dir():
            return self.store.adapter(record, run)
        if (self.store.training_folder(record.id) / "adapter").is_dir():
            return self.store.adapter(record)
        raise BenchError(
            f"What the run {run} trained is not kept in {self.store.root}: there are its scores "
            f"alone. This computes it again, in results/local/single: {self.command}"
        )


def find_run(reference: str, results: Path | None = None) -> StoredRun:
    """A finished run.

    Args:
        reference: the run's folder, its name, or the first letters of a name that no other run has.
        results: the results folder of a run that is named; by default all of `LOCAL`.

    Raises:
        UsageError: there is no such run, or there are several.
        BenchError: its record cannot be read.
    """
    path = Path(reference)
    if (path / "result.json").is_file():
        path = path.resolve()
        return _read(Store(path.parent.parent), path.name)
    roots = [results] if results else sorted(LOCAL.glob("*/"))
    known = [(store, run) for store in map(Store, roots) for run in store.runs()]
    found = [(store, run) for store, run in known if run == reference]
    # One run may be in several folders; its name stands for its content, so any of them will do.
    found = found[:1] or [(store, run) for store, run in known if run.startswith(reference)]
    names = sorted({run for _, run in found})
    if len(names) > 1:
        raise UsageError(f"{reference!r} stands for several runs: {', '.join(names[:5])}.")
    if not names:
        where = results or LOCAL
        nearest = did_you_mean(reference, [run for _, run in known]) if known else ""
        listed = nearest if nearest.startswith("Did") else "Name the folder of a run."
        raise UsageError(f"There is no run {reference!r} in {where}. {listed}")
    return _read(*found[0])


def find_runs(references: Sequence[str], results: Path | None = None) -> list[StoredRun]:
    """Finished runs, each once: those named as `find_run` has it, and all of a results folder.

    Raises:
        UsageError: there is no such run, there are several, or a folder has none.
        BenchError: a record cannot be read.
    """
    found: dict[str, StoredRun] = {}
    for reference in references:
        store = Store(Path(reference))
        named = (
            [_read(store, run) for run in store.runs()]
            if (store.root / "runs").is_dir()
            else [find_run(reference, results)]
        )
        if not named:
            raise UsageError(f"There is no finished run in {reference}.")
        found |= {run.result.run: run for run in named}
    return list(found.values())


def _read(store: Store, run: str) -> StoredRun:
    result = store.result(run)
    if result is None:
        raise UsageError(f"There is no run {run!r} in {store.root}.")
    return StoredRun(store, result)
