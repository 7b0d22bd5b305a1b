"""lm-evaluation-harness: ``samples_TASK_DATE.jsonl``, what each item was asked and answered.

A line is what ``evaluate`` logs of an item and ``EvaluationTracker.save_results_samples`` writes:
the document, the model's requests and their responses, hashes of document, prompt and target, and
the item's metrics. Where a metric is taken under several filters, an item has a line for each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from quanta_bench.data.pools import Pools
from quanta_bench.evaluation import decisions, evaluators
from quanta_bench.export.formats.items import Asked, asked
from quanta_bench.export.formats.measures import base_name, normaliser
from quanta_bench.export.stored import StoredRun
from quanta_bench.results.records import Result, TaskResult
from quanta_bench.task import Answer, Example, Prompt, Task

UNKNOWN = "None"
"""Whether a candidate is what the model would have written by itself, which is not recorded."""
UNITS = {"perplexity": "tokens", "word_perplexity": "words"}
"""What a perplexity is taken over, by its name."""

Names = Mapping[str, tuple[str, str]]
"""Their name and filter of each of our metrics."""


def document(number: int, example: Example, prompt: Prompt) -> dict[str, Any]:
    """An item as a document of a task: what its prompt is made of."""
    return {
        "number": number,
        "id": example.id,
        "context": prompt.context,
        "choices": list(prompt.candidates),
        "gold": example.gold if example.gold is not None else 0,
        "target": prompt.target,
    }


def samples(run: StoredRun, reference: str, names: Names, pools: Pools) -> list[dict[str, Any]]:
    """The lines of a task's items.

    Args:
        run: the run.
        reference: one of its tasks.
        names: of the task's metrics.
        pools: where items come from.

    Raises:
        BenchError: the run's items are not stored, or the data have changed since.
        SourceError: the data cannot be read.
    """
    task, items = asked(run, reference, pools)
    found = run.result.tasks[reference]
    rolling = found.kind == "perplexity" and not any(item.text for item in items)
    lines = []
    for by, metrics in _by_filter(names):
        for number, item in enumerate(items):
            start = _line(run.result, found, task, number, item, rolling=rolling)
            values = dict(_metrics(run.result, task, item, metrics, names))
            lines.append(
                {**start, "filter": by, "metrics": list(values), **_hashes(start), **values}
            )
    return lines


def task_hash(lines: Iterable[Mapping[str, Any]]) -> str:
    """The hash of a task's lines that the results file has of them."""
    return _hash(
        "".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in lines)
    )


def _by_filter(names: Names) -> list[tuple[str, list[str]]]:
    """Our metrics by their filter, each of their names once; what is not filtered comes first."""
    groups: dict[str, dict[str, str]] = {"none": {}}
    for metric, (name, by) in names.items():
        groups.setdefault(by, {})[name] = metric
    return [(by, [*metrics.values()]) for by, metrics in groups.items() if metrics]


def _line(
    result: Result, found: TaskResult, task: Task, number: int, item: Asked, *, rolling: bool
) -> dict[str, Any]:
    prompt, line = item.prompt, item.line
    target: Any = prompt.target
    if item.choices:
        target = item.example.gold
        requests: list[list[Any]] = [[prompt.context, choice] for choice in item.choices]
        responses: list[Any] = [[str(value), UNKNOWN] for value in line["log_likelihoods"]]
    elif found.kind == "perplexity":
        (total,) = line["log_likelihoods"]
        requests = [[prompt.target]] if rolling else [[prompt.context, prompt.target]]
        responses = [str(total)] if rolling else [[str(total), UNKNOWN]]
    elif "text" in line:
        bound = {"max_gen_toks": found.max_new_tokens, "do_sample": False}
        requests = [[prompt.context, {"until": list(task.stop), **bound}]]
        responses = [line["text"]]
    else:
        target = line["gold"]
        requests = [[prompt.context]]
        responses = [[str(value) for value in line["outputs"]]]
    return {
        "doc_id": number,
        "doc": document(number, item.example, prompt),
        "target": str(target),
        "arguments": {
            f"gen_args_{n}": {f"arg_{m}": part for m, part in enumerate(request)}
            for n, request in enumerate(requests)
        },
        # Each request was made once.
        "resps": [[response] for response in responses],
        "filtered_resps": responses,
    }


def _hashes(line: Mapping[str, Any]) -> dict[str, str]:
    document = json.dumps(line["doc"], indent=2, ensure_ascii=False)
    return {
        "doc_hash": _hash(document),
        "prompt_hash": _hash(line["arguments"]["gen_args_0"]["arg_0"]),
        "target_hash": _hash(line["target"]),
    }


def _metrics(
    result: Result, task: Task, item: Asked, metrics: Sequence[str], names: Names
) -> Iterator[tuple[str, Any]]:
    """An item's values; a metric of the whole set, such as F1, has none of single items."""
    for metric in metrics:
        name, base = names[metric][0], base_name(metric)
        if base in UNITS:
            # Summed up over items as they do: both parts apart.
            (total,), (size,) = item.line["log_likelihoods"], item.line[UNITS[base]]
            yield name, [total, size]
            continue
        value = item.line.get(base)
        if item.choices:
            value = _of_choice(result, task, item, metric)
        if isinstance(value, int | float):
            yield name, float(value)


def _of_choice(result: Result, task: Task, item: Asked, metric: str) -> float | None:
    by = normaliser(metric) or result.evaluation.normaliser
    scores = evaluators.normalised(item.line, by)  # type: ignore[arg-type]
    answer: Answer = decisions.expected(decisions.judge(task, item.example, scores))
    return answer.scores.get(base_name(metric))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
