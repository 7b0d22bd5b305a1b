"""Every Eval Ever: a file for each run and task, after the schema of its version 0.3.0.

https://github.com/evaleval/every_eval_ever. The two schemas beside this file are those of the
package ``every-eval-ever`` 0.3.0, under the licence beside them. A file holds every metric of a
task; with items, a second file holds what each item of the main metric was asked and answered.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.export.card import half_interval, hub_data
from quanta_bench.export.formats.items import Asked, asked
from quanta_bench.export.formats.measures import base_name, measure, normaliser
from quanta_bench.export.formats.names import COLLECTION, model_name
from quanta_bench.export.formats.options import Options
from quanta_bench.export.stored import StoredRun
from quanta_bench.plugins import find_protocol
from quanta_bench.references import short_names
from quanta_bench.results.records import Result, TaskResult
from quanta_bench.runs.places import by_last_names
from quanta_bench.utils.folders import whole_file
from quanta_bench.utils.portable import portable

SCHEMAS = Path(__file__).parent / "schemas"
VERSION = "0.3.0"
REGISTERED = {"accuracy", "f1", "perplexity"}
"""Metrics that Every Eval Ever's registry has under our name; others are named as ours."""


def write(runs: Sequence[StoredRun], folder: Path, options: Options) -> list[Path]:
    """Write the files below ``folder/data``, where a clone of the data store has its own.

    A run's file always has the same name, so that writing it again replaces it.

    Raises:
        UsageError: no organisation is named.
        BenchError: a record does not fit the schema, or items cannot be found.
    """
    if not options.organization:
        raise UsageError(
            "Every Eval Ever asks who evaluated: name yourselves with --organization NAME."
        )
    pools, paths = Pools(), []
    for run in runs:
        for task in run.result.tasks:
            record = aggregate(run, task, options)
            developer, model = record["model_info"]["id"].split("/")
            place = Path("data") / COLLECTION / developer / model
            name = _uuid(run.result, task)
            lines = _samples(run, task, record, pools) if options.items else []
            if lines:
                path = place / f"{name}_samples.jsonl"
                text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
                record["detailed_evaluation_results"] = {
                    "format": "jsonl",
                    "file_path": path.as_posix(),
                    "hash_algorithm": "sha256",
                    "checksum": hashlib.sha256(text.encode()).hexdigest(),
                    "total_rows": len(lines),
                }
                paths.append(_write(folder / path, text))
            check(record, "eval")
            text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
            paths.append(_write(folder / place / f"{name}.json", f"{text}\n"))
    return paths


def check(record: Any, schema: str) -> None:
    """Hold a record to a schema.

    Args:
        record: plain values.
        schema: ``eval`` or ``instance_level_eval``.

    Raises:
        BenchError: it does not fit; says where.
    """
    error = next(_validator(schema).iter_errors(record), None)
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "the record"
        raise BenchError(f"Every Eval Ever's schema {VERSION} refuses {place}: {error.message}")


@cache
def _validator(schema: str) -> Draft7Validator:
    text = (SCHEMAS / f"{schema}.schema.json").read_text(encoding="utf-8")
    return Draft7Validator(json.loads(text))


def aggregate(run: StoredRun, task: str, options: Options) -> dict[str, Any]:
    """The record of a run's scores on one task."""
    result = run.result
    now = str(time.time())
    model = f"{portable(options.organization)}/{model_name(result)}"
    environment = result.evaluation_environment
    spec = result.training.spec
    return {
        "schema_version": VERSION,
        "evaluation_id": f"{_name(result, task)}/{model}/{now}",
        "retrieved_timestamp": now,
        "source_metadata": {
            "source_name": COLLECTION,
            "source_type": "evaluation_run",
            "source_organization_name": options.organization,
            # Whoever fine-tunes a model here scores it too.
            "evaluator_relationship": "first_party" if result.training.steps else "third_party",
        },
        "eval_library": {
            "name": COLLECTION,
            "version": environment.packages.get(COLLECTION, "unknown"),
            "additional_details": {
                "git_commit": environment.git_commit or "unknown",
                "run": result.run,
            },
        },
        "model_info": {
            "name": model_name(result),
            "id": model,
            "developer": options.organization,
            "inference_engine": {
                "name": "transformers",
                "version": environment.packages.get("transformers", "unknown"),
            },
            "additional_details": _strings(
                {
                    "deployment_type": "self_deployed",
                    "model_availability": "unknown",
                    "base_model": result.training.model,
                    "base_sha256": result.training.model_fingerprint,
                    "base_parameters": result.training.base_parameters,
                    "method": spec.method,
                    "settings": result.training.settings or spec.settings,
                    "training": by_last_names(spec).model_dump(
                        mode="json", exclude={"settings", "method"}
                    ),
                    "trained_parameters": result.training.trainable_parameters,
                }
            ),
        },
        "evaluation_results": [_score(run, task, metric) for metric in result.tasks[task].metrics],
    }


def _score(run: StoredRun, task: str, metric: str) -> dict[str, Any]:
    result = run.result
    found = result.tasks[task]
    known, name = measure(metric), base_name(metric)
    spec = result.evaluation
    uncertainty: dict[str, Any] = {"num_samples": found.items}
    if metric == found.metric and found.standard_error is not None:
        uncertainty["standard_error"] = {
            "value": found.standard_error,
            "method": "robust to groups of related items",
        }
        half = half_interval(found)
        if half is not None:
            uncertainty["confidence_interval"] = {
                "lower": found.metrics[metric] - half,
                "upper": found.metrics[metric] + half,
                "confidence_level": 0.95,
                "method": "Student's t over groups of items",
            }
    details: dict[str, Any] = {"groups": found.groups, "main": metric == found.metric}
    if metric == found.metric and found.chance is not None:
        details["chance"] = found.chance
    arguments: dict[str, Any] = {"execution_command": run.portable_command}
    if found.max_new_tokens is not None:
        arguments |= {"temperature": 0, "max_tokens": found.max_new_tokens}
    return {
        "evaluation_result_id": metric,
        "evaluation_name": _name(result, task),
        "source_data": _source(result, task),
        "metric_config": {
            "evaluation_description": find_protocol(spec.protocol).scoring(
                normaliser(metric) or spec.normaliser
            ),
            "metric_id": metric if metric in REGISTERED else f"{COLLECTION}.{metric}",
            "metric_name": metric,
            "metric_kind": known.family,
            "metric_unit": known.unit,
            "lower_is_better": known.lower_is_better,
            "score_type": "continuous",
            "min_score": known.low,
            "max_score": known.high if math.isfinite(known.high) else "Infinity",
            "additional_details": _strings({"metric": name}),
        },
        "score_details": {
            "score": found.metrics[metric],
            "details": _strings(details),
            "uncertainty": uncertainty,
        },
        "generation_config": {
            "generation_args": arguments,
            "additional_details": _strings(
                {"protocol": spec.protocol, "max_length": spec.max_length, "num_fewshot": 0}
            ),
        },
    }


def _source(result: Result, task: str) -> dict[str, Any]:
    """Where a task's items come from; what is embedded is cut anew, so it is no set of the hub."""
    found: TaskResult = result.tasks[task]
    names, spec = hub_data(result).get(task, []), result.evaluation
    common = {
        "dataset_name": found.title,
        "additional_details": _strings(
            {
                "source": by_last_names(spec).source,
                "split": spec.split,
                "sample": spec.sample,
                **found.data,
            }
        ),
    }
    if names:
        return {
            **common,
            "source_type": "hf_dataset",
            "hf_repo": names[0],
            "hf_split": spec.split,
            "samples_number": found.items,
        }
    return {**common, "source_type": "other"}


def _samples(
    run: StoredRun, task: str, record: dict[str, Any], pools: Pools
) -> list[dict[str, Any]]:
    """A line for each item of the main metric, where single items have it and an answer."""
    metric = run.result.tasks[task].metric
    _, items = asked(run, task, pools)
    lines = list(_lines(items, _name(run.result, task), metric, record))
    for line in lines:
        check(line, "instance_level_eval")
    return lines


def _lines(
    items: Sequence[Asked], task: str, metric: str, record: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    for item in items:
        score, parsed = item.line.get(metric), item.line["prediction"]
        if not isinstance(score, int | float) or not item.answers:
            continue  # a score of the whole set, or a text that was predicted and not answered
        hashed = json.dumps({"raw": item.text, "reference": item.reference}, sort_keys=True)
        read = "" if parsed is None else str(parsed)
        extracted = read if "text" in item.line else " = ".join(item.answers)
        yield {
            "schema_version": VERSION,
            "evaluation_id": record["evaluation_id"],
            "model_id": record["model_info"]["id"],
            "evaluation_name": task,
            "evaluation_result_id": metric,
            "sample_id": item.example.id,
            "sample_hash": hashlib.sha256(hashed.encode()).hexdigest(),
            "interaction_type": "single_turn",
            "input": {
                "raw": item.text,
                "reference": [item.reference],
                "choices": list(item.choices) or None,
            },
            "output": {"raw": list(item.answers)},
            "answer_attribution": [
                {
                    "turn_idx": 0,
                    "source": "output.raw",
                    "extracted_value": extracted,
                    "extraction_method": "likeliest candidate" if item.choices else "custom",
                    "is_terminal": True,
                }
            ],
            "evaluation": {"score": score, "is_correct": score == 1},
            "metadata": {"group": str(item.line["group"])},
        }


def _name(result: Result, task: str) -> str:
    return short_names(result.tasks)[task]


def _uuid(result: Result, task: str) -> uuid.UUID:
    """The name of a file: the schema asks for version 4, and the same run has the same."""
    content = f"{result.checksum or result.run}/{_name(result, task)}".encode()
    return uuid.UUID(bytes=hashlib.sha256(content).digest()[:16], version=4)


def _strings(values: dict[str, Any]) -> dict[str, str]:
    """Values as the schema has additional ones: texts, what is nested as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in values.items()
    }


def _write(path: Path, text: str) -> Path:
    with whole_file(path) as stream:
        stream.write(text.encode())
    return path
