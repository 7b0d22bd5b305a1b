"""The commands that compute a run or a row again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from quanta_bench.plugins import METHODS
from quanta_bench.report.table import Table, TableRow
from quanta_bench.results.records import Result
from quanta_bench.spec import EvaluationSpec, ModelSpec, TrainingSpec
from quanta_bench.suites.loading import load_suite, shipped
from quanta_bench.suites.schema import Suite

# Options name these, or they follow from others.
_NAMED = {"model", "method", "settings", "tasks", "source", "seeds", "protocol"}
# What `quanta-bench run` sets where the command line is silent.
_LIMITED = ("train_items", "validation_items", "loss")


def run_command(result: Result, folder: str = "") -> str:
    """``quanta-bench run`` with every option of a run: it has the same specs, so the same name.

    Args:
        result: the run.
        folder: the results folder where the command finds it; empty for the command's default.
    """
    spec, scored = result.training.spec, result.evaluation
    trains = bool(spec.tasks)
    words = ["quanta-bench", "run", "--method", spec.method]
    tasks = spec.tasks or scored.tasks
    words += [word for task in tasks for word in ("--task", task)]
    source = spec.source if trains else scored.source
    if spec.seeds.init:
        words += ["--seed", str(spec.seeds.init)]
    if spec.model != ModelSpec():
        words += ["--model", _model(spec.model)]
    if source != "embedded":
        words += ["--source", source]
    settings = {f"{spec.method}.{key}": value for key, value in _own_settings(spec).items()}
    if trains:
        settings |= {f"training.{key}": value for key, value in _training(spec).items()}
    elif scored.protocol:
        settings["training.protocol"] = scored.protocol
    settings |= {
        f"evaluation.{key}": value for key, value in _evaluation(spec, scored, tasks, source)
    }
    words += [word for key, value in settings.items() for word in ("--set", _setting(key, value))]
    if folder:
        words += ["--results", folder]
    return shlex.join(words)


def _own_settings(spec: TrainingSpec) -> dict[str, Any]:
    if spec.settings or spec.method not in METHODS:
        return dict(spec.settings)
    method = METHODS.get(spec.method)
    if not method.rows.get("embedded") or not method.rows["embedded"].config:
        return {}
    # Without any setting the command would take those of the method's default row.
    defaults = method.Config().model_dump(mode="json")
    return dict(list(defaults.items())[:1])


def _training(spec: TrainingSpec) -> dict[str, Any]:
    default = METHODS.get(spec.method).rows.get("embedded") if spec.method in METHODS else None
    preset = {*_LIMITED, *(default.training if default else ())}
    values = spec.model_dump(mode="json")
    made = {
        key: value
        for key, value in values.items()
        if key not in _NAMED and (key in preset or value != TrainingSpec.model_fields[key].default)
    }
    made["protocol"] = spec.protocol
    if (spec.seeds.order, spec.seeds.sample) != (spec.seeds.init, 0):
        made["seeds"] = values["seeds"]
    return made


def _evaluation(
    spec: TrainingSpec, scored: EvaluationSpec, tasks: Sequence[str], source: str
) -> list[tuple[str, Any]]:
    values = scored.model_dump(mode="json")
    protocol = spec.protocol if spec.tasks else scored.protocol
    same = {"tasks": list(tasks), "source": source, "protocol": protocol}
    defaults = {name: field.default for name, field in EvaluationSpec.model_fields.items()}
    usual = {**defaults, **same, "items": 200}
    return [(key, value) for key, value in values.items() if value != usual[key]]


def _model(model: ModelSpec) -> str:
    if model.source == "embedded":
        return model.name
    if model.source == "hub":
        return f"hub:{model.name}@{model.revision}"
    return model.source if model.name == "." else f"{model.source}/{model.name}"


def _setting(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def table_command(table: Table, row: TableRow, folder: str) -> str:
    """``quanta-bench table`` for a row of a shipped suite, at the suite's own settings.

    Returns:
        Empty for a row that is not computed, and for a table that is no shipped suite's or is on
        another model than the suite's.
    """
    name = table.name.removesuffix("-partial")
    suites = [suite for suite in _shipped() if name == suite or name.startswith(f"{suite}-")]
    suite = _shipped()[max(suites, key=len)] if suites else None
    profile = suite.profiles.get(table.profile) if suite else None
    if suite is None or profile is None or not row.method:
        return ""
    size = name.removeprefix(suite.name).removeprefix("-")
    if size and size not in profile.sizes:
        return ""
    words = ["quanta-bench", "figure" if suite.figure else "table", suite.name]
    if table.profile != "embedded":
        words += ["--profile", table.profile]
    if size:
        words += ["--size", size]
    extra = row.method not in {spec.method for spec in profile.at(size).rows}
    words += ["--methods", f"{'+' if extra else ''}{row.method}"]
    if row.done_seeds:
        words += ["--seeds", ",".join(map(str, row.done_seeds))]
    return shlex.join([*words, "--results", folder])


@cache
def _shipped() -> Mapping[str, Suite]:
    return {name: load_suite(name) for name in shipped()}
