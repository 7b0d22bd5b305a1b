"""`peft`'s method comparison: a run and task as a result file of ``method_comparison``.

https://github.com/huggingface/peft/tree/main/method_comparison. The layout is that of its
``MetaMathQA/utils.py``, as its ``processing.py`` reads it: a folder of such files is a folder of
results there. What was not measured is 0, since theirs are whole numbers that are never absent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quanta_bench.errors import UsageError
from quanta_bench.export.formats.measures import measure
from quanta_bench.export.formats.names import run_name, written
from quanta_bench.export.formats.options import Options
from quanta_bench.export.stored import StoredRun
from quanta_bench.references import short_names
from quanta_bench.results.records import Environment, Result
from quanta_bench.utils.folders import whole_file
from quanta_bench.utils.portable import portable

LOSSES = 50
"""Steps whose mean is the "train loss" of an entry; theirs is the mean between two evaluations."""
PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")


def write(runs: Sequence[StoredRun], folder: Path, options: Options) -> list[Path]:
    """Write a file for each run and task whose main metric is a fraction.

    Raises:
        UsageError: items are asked for, which these files do not hold, or no run has such a task.
    """
    if options.items:
        raise UsageError("peft's results hold no items: leave out --items.")
    records = [made for run in runs for made in method_comparison(run)]
    if not records:
        raise UsageError(
            "peft's results are of a training and an accuracy; there is no run with both here."
        )
    paths = []
    for made in records:
        path = folder / f"{made['run_info']['experiment_name'].replace('/', '--')}.json"
        text = json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False)
        with whole_file(path) as stream:
            stream.write(f"{text}\n".encode())
        paths.append(path)
    return paths


def method_comparison(run: StoredRun) -> list[dict[str, Any]]:
    """A run's record for each task with an accuracy; none of a run that trained nothing."""
    result = run.result
    if not result.training.steps:
        return []
    return [
        _record(run, task)
        for task, found in result.tasks.items()
        if _is_fraction(found.metric) and found.metric in found.metrics
    ]


def _is_fraction(metric: str) -> bool:
    """Whether a metric lies between 0 and 1, as an accuracy does and a correlation does not."""
    known = measure(metric)
    return (known.low, known.high) == (0, 1)


def _record(run: StoredRun, task: str) -> dict[str, Any]:
    result = run.result
    training, found = result.training, result.tasks[task]
    name = short_names(result.tasks)[task]
    spec = training.spec
    packages = training.environment.packages
    accelerator = _accelerator(training.environment)
    memory = (training.peak_memory_bytes or 0) if accelerator else 0
    system, _, machine = training.environment.platform.partition(" ")
    return {
        "run_info": {
            "created_at": written(run).isoformat(timespec="seconds"),
            "total_time": training.seconds + result.evaluation_seconds,
            "experiment_name": "/".join(
                (portable(spec.method), f"{run_name(result)}-{portable(name)}")
            ),
            "peft_branch": f"quanta-bench {packages.get('quanta-bench', '')}".strip(),
            "peft_worktree_is_dirty": training.environment.git_dirty,
            "train_config": _train_config(result),
            "peft_config": _peft_config(run),
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": 0,
            "accelerator_memory_max": memory,
            "accelerator_memory_reserved_99th": 0,
            "train_time": training.seconds,
            "file_size": training.adapter_bytes or 0,
            "num_trainable_params": training.trainable_parameters,
            "num_total_params": training.base_parameters + training.added_parameters,
            "status": "success",
            "metrics": [*_validations(result), _last(run, task)],
        },
        "meta_info": {
            "model_info": {"sha": training.model_fingerprint, "created_at": None},
            "dataset_info": {
                name: {"sha": "".join(found.data.get("content", {}).values()) or None,
                       "created_at": None}
            },
            "package_info": {
                f"{name}-{part}": packages.get(name) if part == "version" else None
                for name in PACKAGES
                for part in ("version", "commit-hash")
            },
            "system_info": {
                "system": system,
                "release": "",
                "version": "",
                "machine": machine,
                "processor": machine,
                "accelerator": accelerator or "N/A",
            },
            "pytorch_info": "",
        },
    }  # fmt: skip


def _accelerator(environment: Environment) -> str:
    """The name of the GPU; empty for a processor, which is named with its cores or by its kind."""
    device = environment.device
    on_cpu = re.search(r", \d+ cores$", device) or device in environment.platform
    return "" if on_cpu else device


def _train_config(result: Result) -> dict[str, Any]:
    spec = result.training.spec
    every = max(1, result.training.steps // spec.validations)
    return {
        "model_id": spec.model.name if spec.model.source == "hub" else result.training.model,
        "dtype": result.training.precision["base"],
        "max_seq_length": spec.max_length,
        "batch_size": spec.batch_size,
        "batch_size_eval": 0,
        "max_steps": result.training.steps,
        "eval_steps": every,
        "compile": False,
        "use_gc": spec.gradient_checkpointing,
        "query_template": f"quanta-bench protocol {result.protocol['put']}",
        "seed": spec.seeds.init,
        "grad_norm_clip": spec.clip_norm,
        "optimizer_type": "AdamW" if spec.optimizer == "adamw" else spec.optimizer,
        "optimizer_kwargs": {"lr": spec.learning_rate, "weight_decay": spec.weight_decay},
        "lr_scheduler": spec.schedule,
        "use_amp": False,
        "autocast_adapter_dtype": True,
        "generation_kwargs": {},
        "attn_implementation": None,
        "init_kv_cache_prefix": None,
    }


def _peft_config(run: StoredRun) -> dict[str, Any] | None:
    """The adapter's own configuration where it is kept, else its settings; ``None`` without one."""
    record = run.result.training
    for folder in (run.store.run_folder(run.result.run), run.store.training_folder(record.id)):
        path = folder / "adapter" / "adapter_config.json"
        if path.is_file():
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return kept
    if not record.added_parameters:
        return None
    settings = record.settings or record.spec.settings
    return {"peft_type": str(settings.get("type") or record.spec.method).upper(), **settings}


def _validations(result: Result) -> list[dict[str, Any]]:
    training = result.training
    return [
        {
            "step": step,
            "valid accuracy": score,
            "train loss": _loss(result, step),
            "train samples": step * training.spec.batch_size,
        }
        for step, score, _ in training.validations
    ]


def _last(run: StoredRun, task: str) -> dict[str, Any]:
    result = run.result
    found = result.tasks[task]
    made = {
        "step": result.training.steps,
        "test accuracy": found.metrics[found.metric],
        "train loss": _loss(result, result.training.steps),
        "train samples": result.training.train_items * result.training.spec.epochs,
        "train total tokens": result.training.tokens,
    }
    forgotten = forgetting(run)
    return made if forgotten is None else {**made, "forgetting": forgotten}


def _loss(result: Result, step: int) -> float:
    last = result.training.losses[max(0, step - LOSSES) : step] or [0.0]
    return sum(last) / len(last)


def forgetting(run: StoredRun) -> float | None:
    """By how many nats a token the run predicts running text worse than its base.

    ``None`` where either was not scored on it: the base by a run of the method ``none`` in the
    same results.
    """
    result = run.result
    if not result.forgetting:
        return None
    for name in run.store.runs():
        if not name.startswith("none-"):
            continue
        base = run.store.result(name)
        if base is None or base.training.model_fingerprint != result.training.model_fingerprint:
            continue
        if base.forgetting_data == result.forgetting_data and _same_text(base, result):
            ratios = [value / base.forgetting[text] for text, value in result.forgetting.items()]
            return sum(map(math.log, ratios)) / len(ratios)
    return None


def _same_text(one: Result, other: Result) -> bool:
    """Whether two runs predicted the same running text, read in the same windows."""
    drawn = {"forgetting", "forgetting_source", "forgetting_items", "sample", "max_length"}
    return one.evaluation.model_dump(include=drawn) == other.evaluation.model_dump(include=drawn)
