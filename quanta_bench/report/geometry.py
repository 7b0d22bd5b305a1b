"""The geometry of weight updates: how many directions they use, and how far they move the weights.

Intruder dimensions are high-ranking singular vectors of the fine-tuned weight that are like none of
the base's (Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence").
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from quanta_bench.errors import UsageError
from quanta_bench.plugins import build_method
from quanta_bench.report.sections import Column, Section, screen_table
from quanta_bench.report.subspace import Update, matrix_of, updates

if TYPE_CHECKING:
    from torch import Tensor, nn

    from quanta_bench.results.records import Result
    from quanta_bench.results.store import Store

LEADING = 10
"""How many leading singular vectors of the fine-tuned weight are looked at."""
SIMILAR = 0.6
"""Largest cosine to the base's singular vectors below which one of these is an intruder."""


@dataclass(frozen=True)
class Geometry:
    """The update of one weight by one run.

    Attributes:
        row: label of the row.
        model: description of the base model.
        seed: the run's seed.
        module: name of the weight's module.
        rank: singular values above rounding, at most the method's bound.
        effective_rank: ``(sum s)^2 / sum s^2`` of the update's singular values.
        drift: Frobenius norm of the update over that of the weight.
        intruders: intruder dimensions among the `LEADING` left singular vectors.
    """

    row: str
    model: str
    seed: int
    module: str
    rank: int
    effective_rank: float
    drift: float
    intruders: int


def intruders(before: Tensor, after: Tensor) -> int:
    """How many leading left singular vectors of a weight are unlike all of another's.

    Args:
        before: the base's weight, shape (out, in).
        after: the fine-tuned one, of the same shape.
    """
    import torch

    old = torch.linalg.svd(before.double(), full_matrices=False).U
    new = torch.linalg.svd(after.double(), full_matrices=False).U[:, :LEADING]
    return int(((old.mH @ new).abs().amax(0) < SIMILAR).sum())


def measure(
    row: str, model: str, seed: int, module: str, before: Tensor, update: Update
) -> Geometry:
    """The geometry of one update, in double precision."""
    found = update.spectrum()
    rank = len(found.values)
    norm = float(before.double().norm())
    return Geometry(
        row,
        model,
        seed,
        module,
        rank,
        found.effective_rank,
        float(update.matrix.double().norm()) / norm if norm else 0.0,
        intruders(before, before + update.matrix) if rank else 0,
    )


def of_run(
    label: str, seed: int, result: Result, store: Store, base: nn.Module, pattern: str
) -> list[Geometry]:
    """The geometry of a run's updates.

    Args:
        label: of its row.
        seed: its seed.
        result: the run.
        store: where its adapter is stored.
        base: the base model in float32, which is used up.
        pattern: regular expression of the names of modules.

    Raises:
        UsageError: no module has such a name, or the pattern is not a regular expression.
        BenchError: the adapter cannot be loaded or merged.
    """
    folder = store.run_folder(result.run) / "adapter"
    names = modules(base, pattern)
    before = {name: matrix_of(base, name).clone() for name in names}
    spec = result.training.spec
    found = updates(build_method(spec.method, spec.settings), base, folder, names)
    model = result.training.model
    return [
        measure(label, model, seed, name, before[name], update) for name, update in found.items()
    ]


def modules(model: nn.Module, pattern: str) -> list[str]:
    """The modules with a weight matrix whose full name a pattern matches somewhere.

    Raises:
        UsageError: there is none, or the pattern is not a regular expression.
    """
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise UsageError(f"--modules {pattern!r} is not a regular expression: {error}.") from None
    named = [
        name
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2
    ]
    found = [name for name in named if search(name)]
    if not found:
        raise UsageError(
            f"No weight matrix of the model has a name that matches --modules {pattern!r}. "
            f"Names are such as {', '.join(named[1:4])}."
        )
    return found


def means(found: Sequence[Geometry]) -> list[dict[str, Any]]:
    """By row and model, the means over modules and seeds."""
    by_row: dict[tuple[str, str], list[Geometry]] = {}
    for one in found:
        by_row.setdefault((one.row, one.model), []).append(one)
    keys = ("rank", "effective_rank", "drift", "intruders")
    return [
        {
            "row": row,
            "model": model,
            "seeds": len({one.seed for one in of_row}),
            "modules": len({one.module for one in of_row}),
            **{key: statistics.fmean(getattr(one, key) for one in of_row) for key in keys},
        }
        for (row, model), of_row in by_row.items()
    ]


def on_screen(title: str, found: Sequence[Geometry], notes: Sequence[str]) -> RenderableType:
    """Means by row, and by model if there are several."""
    models: list[Column[Mapping[str, Any]]] = (
        [Column("Model", lambda row: row["model"], right=False, label=True)]
        if len({one.model for one in found}) > 1
        else []
    )
    columns: list[Column[Mapping[str, Any]]] = [
        Column("Method", lambda row: row["row"], right=False, label=True),
        *models,
        Column("Seeds", lambda row: f"{row['seeds']}"),
        Column("Weights", lambda row: f"{row['modules']}"),
        Column("Rank", lambda row: f"{row['rank']:.0f}"),
        Column("Effective rank", lambda row: f"{row['effective_rank']:.1f}"),
        Column("Drift (%)", lambda row: f"{100 * row['drift']:.2f}"),
        Column(f"Intruders of {LEADING}", lambda row: f"{row['intruders']:.2f}"),
    ]
    section = Section(f"{title}: geometry of updates, means", columns, means(found))
    return Group(screen_table(section), *(["", *notes] if notes else []))


def write(folder: Path, name: str, found: Sequence[Geometry]) -> Path:
    """Write a line for each weight of each run as CSV; returns the file."""
    import pandas as pd

    path = folder / f"{name}-geometry.csv"
    pd.DataFrame([asdict(one) for one in found]).to_csv(path, index=False, lineterminator="\n")
    return path
