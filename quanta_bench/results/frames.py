"""Results as pandas sees them: one line a run and metric, one line an item.

:data:`COLUMNS` and :data:`ITEM_COLUMNS` document every column with its dtype and unit.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from quanta_bench.errors import BenchError, UsageError, did_you_mean
from quanta_bench.results.integrity import DamagedError, json_digest
from quanta_bench.results.provenance import stale
from quanta_bench.results.records import SCHEMA_VERSION, Result
from quanta_bench.results.store import Store

COLUMNS: Mapping[str, tuple[str, str]] = {
    "run": ("str", "name of the run's folder"),
    "suite": ("str", "tables of the folder that show the run, comma-separated; empty for none"),
    "row": ("str", "label of the table row that asked for the training first"),
    "method": ("str", "registered name of the method"),
    "model": ("str", "description of the base model"),
    "seed": ("int64", "the run's seed, which is that of the method's start"),
    "seed_order": ("int64", "seed of the order of training items"),
    "seed_sample": ("int64", "seed of the draw of training items"),
    "task": ("str", "the task scored; running text where kind is forgetting"),
    "title": ("str", "the task's heading in tables"),
    "kind": ("str", "choice, classify, generate, perplexity; forgetting for perplexity afterwards"),
    "metric": ("str", "name of the metric"),
    "main": ("bool", "whether it is the metric that a table's cell shows; never of forgetting"),
    "value": ("float64", "its value: a fraction, or a perplexity per token or word"),
    "standard_error": ("float64", "of the main metric over items, in the value's unit; else NaN"),
    "chance": ("float64", "the main metric of uniform guessing; NaN where undefined"),
    "items": ("Int64", "items scored"),
    "groups": ("Int64", "groups of related items among them"),
    "tied": ("Int64", "items on which several candidates share the best score"),
    "cut_items": ("Int64", "items whose context was cut"),
    "overlap": ("Int64", "items whose text is in the training data; NA where unknown"),
    "max_new_tokens": ("Int64", "bound on generated answers, tokens; NA where none is generated"),
    "long_answers": ("Int64", "items whose right answer is longer than that"),
    "parameters_base": ("int64", "parameters of the base model"),
    "parameters_trained": ("int64", "parameters that trained"),
    "parameters_added": ("int64", "those of them that are not the base's own"),
    "parameters_head": ("int64", "those of them in a classification head"),
    "steps": ("int64", "optimiser steps"),
    "train_items": ("int64", "training items"),
    "validation_items": ("int64", "validation items"),
    "tokens": ("int64", "tokens trained on, without padding"),
    "training_seconds": ("float64", "wall time of training with validation, s"),
    "first_step_seconds": ("float64", "of that, to the end of the first step; NA if unrecorded"),
    "steady_tokens_per_second": ("float64", "in the steps after it, without validation"),
    "evaluation_seconds": ("float64", "wall time of scoring all tasks, s"),
    "task_seconds": ("float64", "wall time of scoring this task, s"),
    "joules": ("float64", "energy of training with validation, J; NA where not measured"),
    "peak_memory_bytes": ("Int64", "peak of the training's own process or GPU, bytes; NA if mixed"),
    "protocol": ("str", "how items were put to the model"),
    "normaliser": ("str", "how candidates' likelihoods were made comparable"),
    "loss": ("str", "training loss; empty where nothing trained"),
    "base_dtype": ("str", "dtype of the base's weights while scoring"),
    "arithmetic": ("str", "precision of the arithmetic while scoring"),
    "model_fingerprint": ("str", "sha256 of the base model's content"),
    "data_fingerprint": ("str", "sha256 over what was read of the task, with its versions"),
    "device": ("str", "where it was scored"),
    "python": ("str", "version of Python"),
    "packages": ("str", "versions of the packages that matter, as JSON"),
    "git_commit": ("str", "commit of the checkout, or empty"),
    "git_dirty": ("bool", "whether the checkout had uncommitted changes"),
    "schema_version": ("int64", "version of the record; from 2 on it is checked against hashes"),
    "verified": ("bool", "whether the record's hashes were there and hold"),
    "stale": ("str", "what of the code has changed since, in words; empty where nothing has"),
}
"""Column, dtype and meaning. After these come `training.*`, `evaluation.*` and `method.*`: every
setting that differs between the runs, as it was resolved; lists and mappings as JSON."""

ITEM_COLUMNS: Mapping[str, tuple[str, str]] = {
    "run": ("str", "name of the run's folder"),
    "row": ("str", "as in COLUMNS"),
    "method": ("str", "as in COLUMNS"),
    "seed": ("int64", "as in COLUMNS"),
    "seed_order": ("int64", "as in COLUMNS"),
    "seed_sample": ("int64", "as in COLUMNS"),
    "task": ("str", "the task"),
    "id": ("str", "the item, unique in its task"),
    "group": ("str", "related items share it"),
    "prediction": ("object", "index of the chosen candidate, or the parsed answer; None if none"),
    "gold": ("object", "what was right"),
}
"""Column, dtype and meaning. After these come the stored scores (float64, fractions), and what they
rest on: `log_likelihoods` (nats), `tokens` and `bytes` by candidate, a generated `text`, a head's
`outputs`."""


def load(folder: str | Path, *, table: str = "") -> pd.DataFrame:
    """The results below a folder, one line a run and metric.

    A run that is damaged, or that a later version of the suite wrote, is left out with a warning.
    Nothing is changed on disk.

    Args:
        folder: a results folder, such as ``results/local/embedded`` or ``results/study``.
        table: a table in the folder by the name of its files, such as ``table2-full``: its runs
            alone, with ``row`` and ``suite`` as this table has them. A run that several tables show
            otherwise has the label of the one that asked for it first.

    Returns:
        See :data:`COLUMNS`; sorted by run, then as the tasks were scored. With ``table``, in the
        order of its rows.

    Raises:
        BenchError: there is no finished run.
        UsageError: there is no such table.
    """
    loaded = frame(_read(Store(Path(folder))))
    tables = _tables(Path(folder))
    if table:
        if table not in tables:
            raise UsageError(f"{folder} has no table {table!r}. {did_you_mean(table, tables)}")
        return _of_table(loaded, table, tables[table])
    suites: dict[str, list[str]] = {}
    for name, rows in tables.items():
        for run in dict.fromkeys(run for _, runs in rows for run in runs):
            suites.setdefault(run, []).append(name)
    loaded["suite"] = loaded["run"].map(lambda run: ", ".join(suites.get(run, ()))).astype("str")
    return loaded


def _of_table(loaded: pd.DataFrame, name: str, rows: Rows) -> pd.DataFrame:
    """The lines of a table's runs, under the labels of its rows and in their order."""
    parts = [loaded[loaded["run"].isin(runs)].assign(row=label) for label, runs in rows]
    made = pd.concat(parts, ignore_index=True).assign(suite=name)
    return made.astype({column: COLUMNS[column][0] for column in ("row", "suite")})


def load_predictions(
    folder: str | Path, *, runs: Iterable[str] | None = None, tasks: Iterable[str] | None = None
) -> pd.DataFrame:
    """The judged items of the runs below a folder, one line a run and item.

    A run whose predictions are not stored is left out with a warning.

    Args:
        folder: a results folder.
        runs: names of runs; all by default.
        tasks: tasks; all by default.

    Returns:
        See :data:`ITEM_COLUMNS`.

    Raises:
        BenchError: there is no finished run, or none has its predictions.
    """
    store = Store(Path(folder))
    chosen = None if runs is None else set(runs)
    kept = None if tasks is None else set(tasks)
    lines: list[dict[str, Any]] = []
    missing = []
    for result in _read(store):
        if chosen is not None and result.run not in chosen:
            continue
        try:
            items = store.predictions(result.run)
        except DamagedError as error:
            warnings.warn(f"Not read: {error}", UserWarning, stacklevel=2)
            continue
        if items is None:
            missing.append(result.run)
            continue
        start = {"run": result.run, **_who(result)}
        lines += [{**start, **item} for item in items if kept is None or item["task"] in kept]
    if not lines:
        raise BenchError(f"No run in {folder} has its predictions stored.")
    if missing:
        warnings.warn(
            f"{len(missing)} runs in {folder} have no predictions stored, first {missing[0]}.",
            UserWarning,
            stacklevel=2,
        )
    made = pd.DataFrame(lines)
    others = [name for name in made if name not in ITEM_COLUMNS]
    return made.reindex(columns=[*ITEM_COLUMNS, *others])


Rows = Sequence[tuple[str, Sequence[str]]]
"""The rows of a table: label and runs."""


def _tables(folder: Path) -> dict[str, Rows]:
    """The tables written in a folder, by name."""
    tables: dict[str, Rows] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            table = json.loads(path.read_bytes())
            rows = [(str(row["label"]), list(row.get("runs", ()))) for row in table["rows"]]
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue  # no table's file
        if any(runs for _, runs in rows):
            tables[str(table.get("name", path.stem))] = rows
    return tables


def _read(store: Store) -> list[Result]:
    results = list(store.results())
    for notice in store.notices:
        warnings.warn(notice, UserWarning, stacklevel=3)
    if not results:
        raise BenchError(f"There is no finished run in {store.root}.")
    return results


def frame(results: Sequence[Result]) -> pd.DataFrame:
    """Results that are in memory, as :func:`load` gives them."""
    lines = [line for result in results for line in _lines(result)]
    made = pd.DataFrame(lines, columns=list(COLUMNS))
    made = made.astype({name: dtype for name, (dtype, _) in COLUMNS.items()})
    return made.join(_settings(results), on="run")


def metrics(results: Iterable[Result]) -> pd.DataFrame:
    """The numbers of results alone: run, task, kind, metric, main, value, standard_error."""
    names = ("run", "task", "kind", "metric", "main", "value", "standard_error")
    lines = [
        (
            result.run,
            task,
            scored.kind,
            metric,
            metric == scored.metric,
            value,
            scored.standard_error if metric == scored.metric else None,
        )
        for result in results
        for task, scored in result.tasks.items()
        for metric, value in scored.metrics.items()
    ]
    return pd.DataFrame(lines, columns=names).astype({"value": float, "standard_error": float})


def _who(result: Result) -> dict[str, Any]:
    spec = result.training.spec
    return {
        "row": result.training.label or spec.method,
        "method": spec.method,
        "seed": spec.seeds.init,
        "seed_order": spec.seeds.order,
        "seed_sample": spec.seeds.sample,
    }


def _lines(result: Result) -> list[dict[str, Any]]:
    training, environment = result.training, result.evaluation_environment
    common = {
        "run": result.run,
        "suite": "",
        **_who(result),
        "model": training.model,
        "parameters_base": training.base_parameters,
        "parameters_trained": training.trainable_parameters,
        "parameters_added": training.added_parameters,
        "parameters_head": training.head_parameters,
        "steps": training.steps,
        "train_items": training.train_items,
        "validation_items": training.validation_items,
        "tokens": training.tokens,
        "training_seconds": training.seconds,
        "first_step_seconds": training.first_step_seconds,
        "steady_tokens_per_second": training.steady_tokens_per_second,
        "evaluation_seconds": result.evaluation_seconds,
        "joules": training.joules,
        "peak_memory_bytes": training.peak_memory_bytes,
        "protocol": result.evaluation.protocol,
        "normaliser": result.evaluation.normaliser,
        "loss": training.spec.loss if training.steps else "",
        "base_dtype": result.evaluation_precision.get("base", training.precision["base"]),
        "arithmetic": result.evaluation_precision.get("arithmetic", ""),
        "model_fingerprint": training.model_fingerprint,
        "device": environment.device,
        "python": environment.python,
        "packages": json.dumps(environment.packages, sort_keys=True),
        "git_commit": environment.git_commit,
        "git_dirty": environment.git_dirty,
        "schema_version": result.schema_version,
        "verified": result.schema_version == SCHEMA_VERSION,
        "stale": "; ".join(stale(result)),
    }
    lines = []
    for task, scored in result.tasks.items():
        of_task = {
            "task": task,
            "title": scored.title,
            "kind": scored.kind,
            "items": scored.items,
            "groups": scored.groups,
            "tied": scored.tied,
            "cut_items": scored.cut_items,
            "overlap": scored.overlap,
            "max_new_tokens": scored.max_new_tokens,
            "long_answers": scored.long_answers,
            "task_seconds": scored.seconds,
            "data_fingerprint": json_digest(scored.data),
        }
        for metric, value in scored.metrics.items():
            main = metric == scored.metric
            errors = {"standard_error": scored.standard_error, "chance": scored.chance}
            line = {**common, **of_task, "metric": metric, "main": main, "value": value}
            lines.append(line | (errors if main else {}))
    for task, value in result.forgetting.items():
        after = {"task": task, "title": task, "kind": "forgetting", "metric": "perplexity"}
        data = {"data_fingerprint": json_digest(result.forgetting_data.get(task, {}))}
        lines.append({**common, **after, **data, "main": False, "value": value})
    return lines


def _settings(results: Sequence[Result]) -> pd.DataFrame:
    """By run, the settings that are not the same in all of them."""
    rows = {}
    for result in results:
        training = result.training
        # Records of version 1 have only the settings that differ from the method's defaults.
        own = training.settings or training.spec.settings
        parts = {
            "training": training.spec.model_dump(mode="json", exclude={"settings", "method"}),
            "evaluation": result.evaluation.model_dump(mode="json"),
            "method": own,
        }
        rows[result.run] = {
            f"{part}.{name}": json.dumps(value) if isinstance(value, list | dict) else value
            for part, settings in parts.items()
            for name, value in settings.items()
        }
    made = pd.DataFrame.from_dict(rows, orient="index").astype(object)
    made = made[[name for name in made if made[name].nunique(dropna=False) > 1]]
    # Integers with a gap, such as the rank in rows that have none, stay integers.
    whole = [name for name in made if all(type(value) is int for value in made[name].dropna())]
    return made.astype(dict.fromkeys(whole, "Int64")).infer_objects()
