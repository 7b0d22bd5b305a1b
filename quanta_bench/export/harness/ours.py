"""Our scores of the items that lm-eval scores too: those of the run, else computed now."""

from __future__ import annotations

from typing import Any

from quanta_bench.data.chat import uses_chat
from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.evaluation import decisions, evaluators
from quanta_bench.evaluation.evaluators import Judged
from quanta_bench.evaluation.limits import check_evaluation
from quanta_bench.export.formats.items import Asked, asked
from quanta_bench.export.harness.subject import Subject
from quanta_bench.export.harness.tasks import OwnTask
from quanta_bench.plugins import find_protocol, find_task
from quanta_bench.spec import EvaluationSpec
from quanta_bench.task import Answer, Task
from quanta_bench.utils.device import this_device


def own_task(
    subject: Subject, reference: str, name: str, items: int | None, pools: Pools
) -> OwnTask:
    """A task of ours with its items as our scorer judges them.

    Args:
        subject: the model.
        reference: the task.
        name: its name in lm-eval.
        items: how many items at most; ``None`` for those of the run.
        pools: where items come from.

    Raises:
        UsageError: there is no such task, none of its protocols has prompts, or its prompts are in
            a chat template.
        BenchError: the run's items are not what they were.
        SourceError: the data cannot be read.
    """
    if uses_chat(find_task(reference), subject.spec.chat_template):
        raise UsageError(
            f"The prompts of {reference} are in the model's chat template here, and "
            "lm-evaluation-harness would read them without it: the scores could not be compared."
        )
    run = subject.run
    if run is not None and reference in run.result.tasks:
        task, lines = asked(run, reference, pools)
        found = run.result.tasks[reference]
        judged = [_judged(task, subject.spec, one, found.max_new_tokens) for one in lines[:items]]
        protocol = subject.spec.protocol
    else:
        task, protocol, judged = _computed(subject, reference, items, pools)
    prompts = [task.prompt(item.example, protocol) for item in judged]
    return OwnTask(reference, name, task, prompts, judged)


def _judged(task: Task, spec: EvaluationSpec, one: Asked, bound: int | None) -> Judged:
    """A line of predictions as the judgement that it was written from."""
    line = one.line
    if "text" in line:
        answers: tuple[Answer, ...] = (task.judge_text(one.example, line["text"]),)
    elif one.choices:
        scores = evaluators.normalised(line, spec.normaliser)
        answers = decisions.judge(task, one.example, scores)
    else:
        answers = (Answer(None, "", {"nats_per_token": line["nats_per_token"]}),)
    return Judged(one.example, answers, line, max_new_tokens=bound)


def _computed(
    subject: Subject, reference: str, items: int | None, pools: Pools
) -> tuple[Task, str, list[Judged]]:
    task = find_task(reference)
    known = [name for name in task.protocols if find_protocol(name).prompts]
    asked_for = subject.spec.protocol
    if task.kind == "perplexity" or asked_for in known:
        known.insert(0, asked_for)
    if not known:
        raise UsageError(f"The task {reference} is answered through a classification head alone.")
    values: dict[str, Any] = {"tasks": (reference,), "protocol": known[0]}
    if items is not None:
        values["items"] = items
    spec = subject.spec.model_copy(update=values)
    ((_, examples),) = pools.sample(spec.tasks, spec.source, spec.split, spec.items, spec.sample)
    check_evaluation(subject.model, subject.tokenizer, spec, [(task, examples)])
    context = evaluators.Context(
        subject.model,
        subject.tokenizer,
        spec,
        packed=False,
        cached=subject.cached,
        device=this_device(),
        advance=lambda _: None,
    )
    return task, spec.protocol, evaluators.evaluate(context, task, examples)
