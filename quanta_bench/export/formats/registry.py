"""The formats by name, and the one function that writes any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quanta_bench.errors import UsageError, did_you_mean
from quanta_bench.export.formats import (
    every_eval_ever,
    hub_card,
    lm_eval_results,
    method_comparison,
)
from quanta_bench.export.formats.options import Options
from quanta_bench.export.stored import StoredRun
from quanta_bench.utils.folders import storage_errors


@dataclass(frozen=True)
class Format:
    """A format of another tool.

    Attributes:
        title: what is written, for the user.
        write: writes runs below a folder and returns the files.
    """

    title: str
    write: Callable[[Sequence[StoredRun], Path, Options], list[Path]]


FORMATS: Mapping[str, Format] = {
    "eee": Format("Every Eval Ever, schema 0.3.0", every_eval_ever.write),
    "lm-eval": Format("results of lm-evaluation-harness", lm_eval_results.write),
    "hub": Format("scores in a model card of the hub", hub_card.write),
    "peft": Format("results of peft's method comparison", method_comparison.write),
}


def find_format(name: str) -> Format:
    """A format by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in FORMATS:
        raise UsageError(f"There is no format {name!r}. {did_you_mean(name, FORMATS)}")
    return FORMATS[name]


def write(runs: Sequence[StoredRun], name: str, folder: Path, options: Options) -> list[Path]:
    """Write runs in a format; returns the files.

    Raises:
        UsageError: the format is unknown or does not take these runs or options.
        StorageError: the folder cannot be written.
    """
    found = find_format(name)
    with storage_errors(folder, "Name another folder with --to."):
        return found.write(runs, folder, options)
