"""``quanta-bench geometry``: how a table's runs changed the weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from quanta_bench.cli.options import (
    Json,
    StoredIn,
    StoredModel,
    StoredProfile,
    StoredSeeds,
    StoredSize,
    StoredTable,
    comma_separated,
    examples,
    read_seeds,
)
from quanta_bench.errors import BenchError, UsageError

EXAMPLES = examples(
    "quanta-bench geometry --table 3",
    "quanta-bench geometry --table 3 --methods lora,quanta --modules 'layers.0.*q_proj'",
)


def geometry(
    table: StoredTable,
    results: StoredIn = None,
    methods: Annotated[str, typer.Option("--methods", help="Rows to keep: quanta,lora.")] = "",
    modules: Annotated[
        str, typer.Option("--modules", help="Weights, by a regular expression of module names.")
    ] = r"self_attn\.[qv]_proj$",
    profile: StoredProfile = "embedded",
    size: StoredSize = "",
    seeds: StoredSeeds = "",
    model: StoredModel = "",
    as_json: Json = False,
) -> None:
    """Measure how finished runs changed the weights.

    For each row that can be merged: rank and effective rank of the updates, their size relative to
    the weights, and leading singular vectors that the base does not have. Nothing is trained.
    """
    from quanta_bench.cli import console, output

    try:
        re.compile(modules)
    except re.error as error:
        raise UsageError(
            f"--modules {modules!r} is not a valid regular expression: {error}."
        ) from None
    console.progress().print("Loading packages.", style="dim")
    import torch

    from quanta_bench.models.loading import ModelRef, load_model
    from quanta_bench.models.quantised import dequantise
    from quanta_bench.plugins import METHODS, build_method
    from quanta_bench.report import geometry as measured
    from quanta_bench.results.store import Store
    from quanta_bench.runs.stored import stored_rows
    from quanta_bench.suites.choice import Choice
    from quanta_bench.suites.request import make_request

    choice = Choice(
        methods=comma_separated(methods), seeds=read_seeds(seeds), size=size, model=model
    )
    request = make_request(table, "table", profile, choice, check=True)
    store = Store(results or Path("results") / "local" / profile)
    found: list[measured.Geometry] = []
    notes = []
    for row, cells in zip(
        request.grid, stored_rows(request.grid, store, partial=True), strict=True
    ):
        label = row.spec.label or row.spec.method
        if row.missing or not METHODS.get(row.spec.method).trains:
            continue
        mergeable = build_method(row.spec.method, row.spec.settings).mergeable
        if not mergeable:
            notes.append(f"{label} cannot be merged into the weights: {mergeable.reason}.")
            continue
        runs = [(s, r) for s, of in cells.results.items() for r in of] if cells else []
        if not runs:
            notes.append(f"{label}: no finished run in {store.root}.")
        # A training has a result for each of the parts that its tasks are scored in.
        trainings = {result.training.id: (seed, result) for seed, result in runs}
        for seed, result in trainings.values():
            if not (store.run_folder(result.run) / "adapter").is_dir():
                notes.append(f"{label}, seed {seed}: its adapter is not stored in {store.root}.")
                continue
            with console.working(f"{label}, seed {seed}"):
                ref = ModelRef(**result.training.spec.model.model_dump())
                # A merge into bfloat16 would round the update away.
                base = dequantise(load_model(ref, torch.float32).model)
                found += measured.of_run(label, seed, result, store, base, modules)
    if not found:
        raise BenchError(f"There is no update to measure. {' '.join(notes)}")
    path = measured.write(store.root, request.suite.name, found)
    output.show(
        {"rows": measured.means(found), "notes": notes, "file": str(path)},
        measured.on_screen(request.suite.title, found, [*notes, f"Written: {path}."]),
        as_json=as_json,
    )
