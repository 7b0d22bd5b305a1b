"""lm-evaluation-harness: ``results_DATE.json``, in a folder a model as ``--output_path`` has it.

Its own programs read it: ``lm_eval.utils.make_table``, and whatever follows its layout. A task is
named ``quanta_bench_NAME``, since our prompts and items are not those of its task of that name.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from quanta_bench.data.chat import template_of
from quanta_bench.data.pools import Pools
from quanta_bench.export.formats.lm_eval_samples import samples, task_hash
from quanta_bench.export.formats.measures import base_name, measure, normaliser
from quanta_bench.export.formats.names import model_name, written
from quanta_bench.export.formats.options import Options
from quanta_bench.export.stored import StoredRun
from quanta_bench.models.loading import ModelRef, load_tokenizer
from quanta_bench.plugins import find_protocol
from quanta_bench.references import short_names
from quanta_bench.results.records import Result, TaskResult
from quanta_bench.utils.folders import whole_file
from quanta_bench.utils.portable import portable

PREFIX = "quanta_bench_"
"""What our tasks' names start with, so that none is taken for one of theirs."""
NAMES = {"accuracy": "acc", "matthews": "mcc"}
"""Metrics that are theirs under another name, where candidates are compared."""
FILTERS = {"sum": "none", "byte_mean": "byte_mean", "token_mean": "token_mean"}
"""Their filter of a metric, by our normaliser: a plain ``acc`` is by summed likelihood there."""


def task_names(references: Iterable[str]) -> dict[str, str]:
    """The names of our tasks in lm-eval."""
    return {task: PREFIX + portable(name) for task, name in short_names(references).items()}


def write(runs: Sequence[StoredRun], folder: Path, options: Options) -> list[Path]:
    """Write a file a run and, with items, one for each of its tasks; names are always the same.

    Raises:
        BenchError: items are asked for and not stored, or their data have changed since.
        SourceError: the data, or the model's tokenizer, cannot be read.
    """
    pools, dates = Pools(), set[tuple[Path, str]]()
    paths: list[Path] = []
    for run in runs:
        place, moment = folder / model_name(run.result), written(run).replace(tzinfo=None)
        # Two scorings of a model; readers tell their files of items apart by the date alone.
        while (place, _date(moment)) in dates:
            moment += datetime.timedelta(microseconds=1)
        date = _date(moment)
        dates.add((place, date))
        names, lines = task_names(run.result.tasks), {}
        if options.items:
            lines = {
                names[task]: samples(run, task, _metric_names(found, run.result), pools)
                for task, found in run.result.tasks.items()
            }
        # The date comes last, where its readers look for it; the same model may be scored twice.
        scoring = run.result.run.rpartition("-")[2]
        made = record(run) | {"task_hashes": {name: task_hash(of) for name, of in lines.items()}}
        text = json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False)
        files = {place / f"results_{scoring}_{date}.json": f"{text}\n"}
        for name, of_task in lines.items():
            texts = [json.dumps(line, ensure_ascii=False, allow_nan=False) for line in of_task]
            files[place / f"samples_{name}_{date}.jsonl"] = "".join(f"{one}\n" for one in texts)
        for path, content in files.items():
            with whole_file(path) as stream:
                stream.write(content.encode())
        paths += files
    return paths


def record(run: StoredRun) -> dict[str, Any]:
    """A run's scores as ``simple_evaluate`` returns them and ``EvaluationTracker`` writes them.

    Raises:
        SourceError: prompts are in the model's chat template, and its tokenizer cannot be read.
    """
    result = run.result
    template = _chat_template(result)
    spec, environment = result.evaluation, result.evaluation_environment
    names, short = task_names(result.tasks), short_names(result.tasks)
    tasks = {names[task]: found for task, found in result.tasks.items()}
    named = {names[task]: short[task] for task in result.tasks}
    model = model_name(result)
    return {
        "results": {
            name: {"alias": named[name], "sample_len": found.items, **_metrics(found, result)}
            for name, found in tasks.items()
        },
        "group_subtasks": {name: [] for name in tasks},
        "configs": {
            name: _config(found, name, named[name], result) for name, found in tasks.items()
        },
        "versions": {name: found.data.get("template", 1) for name, found in tasks.items()},
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {
            name: {
                theirs(metric, found, result)[0]: not measure(metric).lower_is_better
                for metric in found.metrics
            }
            for name, found in tasks.items()
        },
        "n-samples": {
            name: {"original": found.items, "effective": found.items}
            for name, found in tasks.items()
        },
        "config": {
            "model": "hf",
            "model_args": {
                # Not the base's name, whose scores these are not.
                "pretrained": model,
                "base": result.training.model,
                "method": result.training.spec.method,
                **(result.training.settings or result.training.spec.settings),
            },
            "model_num_parameters": result.training.base_parameters
            + result.training.added_parameters,
            "model_dtype": result.evaluation_precision.get("base", ""),
            "model_revision": result.training.spec.model.revision,
            "model_sha": result.training.model_fingerprint,
            "batch_size": "auto",
            "device": environment.device,
            "limit": spec.items,
            "bootstrap_iters": 0,
            "gen_kwargs": None,
        },
        "git_hash": environment.git_commit or None,
        "date": written(run).timestamp(),
        "pretty_env_info": f"{environment.platform}, Python {environment.python}, "
        + ", ".join(f"{name} {version}" for name, version in environment.packages.items()),
        "transformers_version": environment.packages.get("transformers", ""),
        "lm_eval_version": f"quanta-bench {environment.packages.get('quanta-bench', '')}",
        "upper_git_hash": None,
        "max_length": spec.max_length,
        "model_source": "hf",
        "model_name": model,
        "model_name_sanitized": model,
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": False,
        "chat_template": template,
        "chat_template_sha": template and hashlib.sha256(template.encode()).hexdigest(),
        "task_hashes": {},
        "total_evaluation_time_seconds": str(result.evaluation_seconds),
    }


def _chat_template(result: Result) -> str | None:
    """The template that prompts are put in, where any task's are."""
    if "scoring" not in result.protocol.get("chat_template", ""):
        return None
    return template_of(load_tokenizer(ModelRef(**result.training.spec.model.model_dump())))


def _metric_names(found: TaskResult, result: Result) -> dict[str, tuple[str, str]]:
    return {metric: theirs(metric, found, result) for metric in found.metrics}


def _date(moment: datetime.datetime) -> str:
    return moment.isoformat().replace(":", "-")


def theirs(metric: str, found: TaskResult, result: Result) -> tuple[str, str]:
    """A metric's name and filter as lm-eval has them.

    ``acc`` is the accuracy by summed log-likelihood, ``acc_bytes`` that per byte; both are computed
    alike there. It has none per token, which gets a filter of that name.
    """
    name, by = base_name(metric), normaliser(metric)
    if _is_generated(found, result):
        return ("exact_match" if name == "accuracy" else name), "none"
    if not by and f"{metric}/{result.evaluation.normaliser}" in found.metrics:
        by = result.evaluation.normaliser
    name = NAMES.get(name, name)
    if (name, by) == ("acc", "byte_mean"):
        return "acc_bytes", "none"
    return name, FILTERS.get(by, "none")


def _is_generated(found: TaskResult, result: Result) -> bool:
    """Whether a task's answers were generated, which the protocol decides where a task chooses."""
    return found.kind == "generate" or (
        found.kind != "perplexity" and find_protocol(result.evaluation.protocol).generates
    )


def _metrics(found: TaskResult, result: Result) -> dict[str, Any]:
    """Values and standard errors by ``metric,filter``; "N/A" is their word for an unknown one."""
    made: dict[str, Any] = {}
    for metric, value in found.metrics.items():
        name, by = theirs(metric, found, result)
        made[f"{name},{by}"] = value
        made.setdefault(f"{name}_stderr,{by}", "N/A")
        if metric == found.metric and found.standard_error is not None:
            made[f"{name}_stderr,{by}"] = found.standard_error
    return made


def _config(found: TaskResult, name: str, alias: str, result: Result) -> dict[str, Any]:
    spec = result.evaluation
    kind = "generate" if _is_generated(found, result) else found.kind
    kinds = {"generate": "generate_until", "perplexity": "loglikelihood_rolling"}
    return {
        "task": name,
        "task_alias": alias,
        "dataset_path": f"quanta-bench:{spec.source}",
        "test_split": spec.split,
        "output_type": kinds.get(kind, "multiple_choice"),
        "num_fewshot": 0,
        "metric_list": [
            {"metric": theirs(metric, found, result)[0], "aggregation": "mean"}
            for metric in found.metrics
        ],
        "metadata": {
            "version": found.data.get("template", 1),
            "suite": "quanta-bench",
            "run": result.run,
            "protocol": spec.protocol,
            "normaliser": spec.normaliser,
        },
    }
