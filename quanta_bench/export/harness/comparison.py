"""Run lm-evaluation-harness on a model, and put its scores beside ours."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError, UsageError, near
from quanta_bench.evaluation import decisions, evaluators
from quanta_bench.export.formats.lm_eval_results import PREFIX, task_names
from quanta_bench.export.harness import saving
from quanta_bench.export.harness.ours import own_task
from quanta_bench.export.harness.subject import Subject
from quanta_bench.export.harness.tasks import OwnTask
from quanta_bench.utils.device import this_device
from quanta_bench.utils.portable import portable
from quanta_bench.utils.quiet import quiet_libraries

BATCH = 8
"""Requests that lm-eval puts into a batch."""
BOOTSTRAP = 1000
"""Resamples of the standard errors that lm-eval does not have a formula for."""
THEIRS = {
    "acc": "accuracy/sum",
    "acc_bytes": "accuracy/byte_mean",
    "acc_norm": "accuracy/byte_mean",
    "exact_match": "accuracy",
    "mcc": "matthews",
}
"""The metric of ours that is nearest to one of theirs; others have the same name."""


@dataclass(frozen=True)
class Row:
    """A metric of a task by both scorers.

    Attributes:
        task: its name in lm-eval.
        metric: the metric there, with its filter where there is one.
        ours: our value; ``None`` where there is none.
        theirs: lm-eval's.
        error: lm-eval's standard error; ``None`` where it has none.
        items: number of items that it scored.
        same_items: whether both scored the same items with the same prompts.
    """

    task: str
    metric: str
    ours: float | None
    theirs: float
    error: float | None
    items: int
    same_items: bool

    @property
    def difference(self) -> float | None:
        """Theirs minus ours."""
        return None if self.ours is None else self.theirs - self.ours


@dataclass(frozen=True)
class Comparison:
    """Both scorers on one model.

    Attributes:
        rows: a row a task and metric.
        notes: what is known item by item, a sentence each.
        files: that were written, by the name of their scorer.
    """

    rows: list[Row]
    notes: list[str]
    files: Mapping[str, list[Path]] = field(default_factory=dict)


def check_installed() -> None:
    """Refuse to go on without lm-evaluation-harness.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec("lm_eval") is None:
        raise UsageError(
            "lm-evaluation-harness is not installed: pip install 'quanta-bench[lm-eval]'"
        )


def compare(
    subject: Subject,
    names: Sequence[str],
    *,
    items: int | None,
    include: Path | None,
    to: Path | None = None,
) -> Comparison:
    """Score a model's tasks with both.

    Args:
        subject: the model.
        names: tasks by their names in lm-eval, ours among them as ``quanta_bench_NAME``; none for
            all tasks of the run.
        items: how many items of each at most.
        include: a folder of the user's own tasks for lm-eval.
        to: a folder to write both scorers' results to.

    Raises:
        UsageError: no task is named, or lm-eval has none of that name.
        BenchError: lm-eval cannot read a task's data, or cannot score it.
    """
    known = {name: task for task, name in task_names(subject.spec.tasks).items()}
    names = names or [*known]
    if not names:
        raise UsageError(
            "A folder has no tasks of its own: name some with --tasks, lm-eval's by their names "
            f"and ours as {PREFIX}NAME."
        )
    pools = Pools()
    with subject.scoring():
        asked = [
            known.get(name, name.removeprefix(PREFIX)) for name in names if name.startswith(PREFIX)
        ]
        named = task_names([*subject.spec.tasks, *asked])
        own = [own_task(subject, task, named[task], items, pools) for task in asked]
        others = [name for name in names if not name.startswith(PREFIX)]
        tracked = None if to is None else saving.tracker(to)
        results = _evaluate(subject, own, others, items, include, tracked)
    by_name = {one.name: one for one in own}
    rows: list[Row] = []
    for name in results["results"]:
        rows += _rows(name, by_name.get(name), results, subject)
    notes = [_item_by_item(one, results["samples"][one.name]) for one in own]
    if others:
        notes.append(
            "lm-eval's own tasks have prompts and items of their own, so our score of the task of "
            "that name is of others; acc_norm is by characters there and by bytes here."
        )
    files: Mapping[str, list[Path]] = {}
    if to is not None:
        with _quiet():
            files = saving.save(tracked, results, subject, to)
    return Comparison(rows, notes, files)


def _evaluate(
    subject: Subject,
    own: Sequence[OwnTask],
    others: Sequence[str],
    items: int | None,
    include: Path | None,
    tracked: Any,
) -> dict[str, Any]:
    """What ``simple_evaluate`` returns."""
    with _quiet():
        from lm_eval import simple_evaluate
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.models.huggingface import HFLM

        manager = _manager(others, include, [*task_names(subject.spec.tasks).values()])
        lm = HFLM(
            pretrained=subject.model,
            tokenizer=subject.tokenizer,
            backend="causal",
            max_length=subject.spec.max_length,
            batch_size=BATCH,
            device=str(this_device()),
        )
        tasks: list[Any] = [ConfigurableTask(config=one.config()) for one in own]
        try:
            # Ours have as many items as are to be scored.
            found = simple_evaluate(
                lm,
                # For its records alone: the model is in memory.
                model_args={"pretrained": portable(Path(subject.name).name)},
                evaluation_tracker=tracked,
                tasks=[*tasks, *others],
                limit=items,
                task_manager=manager,
                bootstrap_iters=BOOTSTRAP,
            )
        except Exception as error:  # of lm-eval, of datasets, and of the hub's client
            reason = " ".join(str(error).split())[:300] or "no reason given"
            advice = (
                " Its tasks read their data from the hub; tasks with data of this machine are "
                "taken from --include-path, and a run's own items need no hub (leave out --tasks)."
                if others
                else ""
            )
            raise BenchError(
                f"lm-evaluation-harness ended with {type(error).__name__}: {reason}.{advice}"
            ) from error
    return dict(found)


def _manager(others: Sequence[str], include: Path | None, ours: Sequence[str]) -> Any:
    """lm-eval's index of tasks; its own thousands are read only if one of them is named.

    Raises:
        UsageError: a task is in neither.
    """
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=include, include_defaults=False)
    if set(others) <= set(manager.all_tasks):
        return manager
    manager = TaskManager(include_path=include)
    for name in others:
        if name not in manager.all_tasks:
            said = near(name, [*manager.all_tasks, *ours])
            advice = said or "`lm_eval ls tasks` lists them."
            raise UsageError(f"lm-eval has no task {name!r}. {advice}")
    return manager


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without its log, its libraries' warnings and, where no one watches, its progress bars.

    Nor what git writes to the process's standard error, which lm-eval asks for a commit wherever it
    runs.
    """
    log = logging.getLogger("lm_eval")
    level = log.level
    with warnings.catch_warnings(), contextlib.ExitStack() as stack, quiet_libraries():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        shown = io.StringIO() if not sys.stderr.isatty() else os.fdopen(os.dup(2), "w")
        stack.enter_context(contextlib.redirect_stderr(stack.enter_context(shown)))
        stack.enter_context(_no_standard_error())
        try:
            yield
        finally:
            log.setLevel(level)


@contextlib.contextmanager
def _no_standard_error() -> Iterator[None]:
    """Discard what child processes write to standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _rows(
    name: str, own: OwnTask | None, results: Mapping[str, Any], subject: Subject
) -> Iterator[Row]:
    found = results["results"][name]
    count = results.get("n-samples", {}).get(name, {}).get("effective", 0)
    if own is not None:
        values = _our_values(own)
    elif subject.run is not None and name in subject.run.result.tasks:
        values = subject.run.result.tasks[name].metrics
    else:
        values = {}
    for key, value in found.items():
        metric, comma, by = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = found.get(f"{metric}_stderr,{by}")
        ours = values.get(metric) if own else values.get(THEIRS.get(metric, metric))
        yield Row(
            task=name,
            metric=metric if by == "none" else f"{metric} ({by})",
            ours=ours,
            theirs=float(value),
            error=float(error) if isinstance(error, int | float) else None,
            items=count,
            same_items=own is not None,
        )


def _our_values(own: OwnTask) -> dict[str, float]:
    """Our scores of the items that were scored, by lm-eval's names of metrics."""
    if own.compares:
        made = evaluators.by_normaliser(own.task, own.judged)
        by = own.task.metric
        return {"acc": made[f"{by}/sum"], "acc_bytes": made[f"{by}/byte_mean"]}
    if own.task.kind == "perplexity":
        total = math.fsum(item.detail["log_likelihoods"][0] for item in own.judged)
        size = sum(item.detail["bytes"][0] for item in own.judged)
        return {"byte_perplexity": math.exp(-total / size)}
    return decisions.aggregate(own.task, [item.answers for item in own.judged])


def _item_by_item(own: OwnTask, samples: Sequence[Mapping[str, Any]]) -> str:
    """How far the two are apart on single items."""
    by_number = {sample["doc"]["number"]: sample for sample in samples}
    pairs = [(item, by_number[number]) for number, item in enumerate(own.judged)]
    total = len(pairs)
    if own.task.kind != "perplexity" and not own.compares:
        same = sum(item.detail["text"] == sample["filtered_resps"][0] for item, sample in pairs)
        return f"{own.name}: {same} of {total} generated answers are the same text."
    apart = [
        abs(mine - _likelihood_of(response))
        for item, sample in pairs
        for mine, response in zip(
            item.detail["log_likelihoods"], sample["filtered_resps"], strict=True
        )
    ]
    return (
        f"{own.name}: {len(apart)} log-likelihoods of {total} items differ by at most "
        f"{max(apart):.2g} nats."
    )


def _likelihood_of(response: Any) -> float:
    return float(response[0] if isinstance(response, tuple | list) else response)
