"""Answer generation: the suite's batches against one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import torch

from quanta_bench.benchmark import Benchmark, Case, Conditions, Finding, Outcome, at_least, at_most
from quanta_bench.benchmarks.materials import Materials
from quanta_bench.evaluation import evaluators
from quanta_bench.evaluation.generation import cut_at, read_context
from quanta_bench.models.loading import LoadedModel
from quanta_bench.models.precision import dtype_name
from quanta_bench.models.special_tokens import end_tokens, pad_token
from quanta_bench.spec import EvaluationSpec
from quanta_bench.task import DEFAULT_NEW_TOKENS, Example, Task
from quanta_bench.timing import interleave, speed_ratio

OURS = "ours"
SINGLE = "one at a time"

SHORT = "drop"
"""Long prompts, short answers: nearly all of the time goes into the prompts."""

LONG = "gsm8k"
"""Short prompts, long answers: nearly all of the time goes into decoding."""

MAX_NEW_TOKENS = 64
"""Bound on the answers to `LONG`, so that one at a time takes about a minute."""


class Generation(Benchmark):
    """Greedy decoding with stop strings: items per second, and whether the texts are equal."""

    name = "generation"
    title = "greedy answers with stop strings: ours against one at a time"
    reads = True
    place = 50

    def run(self, conditions: Conditions) -> Outcome:
        """Short answers in this machine's dtype and in float32, and long answers."""
        materials = Materials.of(conditions)
        plans = [(SHORT, materials.dtype, conditions.choose(24, quick=4))]
        if not conditions.quick:
            if materials.dtype is not torch.float32:
                plans.append((SHORT, torch.float32, 8))
            plans.append((LONG, materials.dtype, 32))
        cases = []
        for name, dtype, items in plans:
            conditions.tell(f"{name} in {dtype}: {items} items")
            task, examples = materials.items(name, "test", items)
            if name == LONG:
                task = with_long_answers(task, MAX_NEW_TOKENS)
            cases.append(compare(materials, dtype, task, examples))
        return Outcome(cases=cases)


def with_long_answers(task: Task, tokens: int) -> Task:
    """A copy of a task whose answers may span several lines, up to a number of tokens.

    With the task's own stop strings an untrained model ends most answers after a short line. The
    stop string used instead is that of lm-evaluation-harness.
    """
    longer = copy(task)
    longer.max_new_tokens = min(tokens, task.max_new_tokens or tokens)
    longer.stop = ("Question:",)  # type: ignore[misc]
    return longer


def compare(
    materials: Materials,
    dtype: torch.dtype,
    task: Task,
    examples: Sequence[Example],
) -> Case:
    """Answer the same items both ways, in one round: the suite answers many items together."""
    base = materials.load(dtype)
    spec = EvaluationSpec(tasks=(task.name,), protocol="generate")
    context = evaluators.Context(
        base.model,
        base.tokenizer,
        spec,
        packed=False,
        cached=True,
        device=materials.device,
        advance=lambda count: None,
    )

    def ours(items: Sequence[Example]) -> list[str]:
        with materials.autocast(dtype):
            judged = evaluators.evaluate(context, task, items)
        return [str(item.detail["text"]) for item in judged]

    methods: dict[str, Callable[[Sequence[Example]], list[str]]] = {
        OURS: ours,
        SINGLE: lambda items: [one_at_a_time(materials, base, spec, task, item) for item in items],
    }
    texts: dict[str, list[str]] = {name: [] for name in methods}

    def side(name: str) -> Callable[[], None]:
        return lambda: texts[name].extend(methods[name](examples))

    for answer in methods.values():
        answer(examples[:1])
    batched, single = interleave(
        {name: side(name) for name in methods}, rounds=1, warmup=0, work=len(examples), unit="items"
    )
    differing = sum(a != b for a, b in zip(texts[OURS], texts[SINGLE], strict=True))
    exact = dtype is torch.float32
    return Case(
        title=f"{task.title}, answers of up to {task.max_new_tokens} tokens, {dtype_name(dtype)}",
        sides=[batched, single],
        findings=[
            speed_ratio(batched, single, by="total", target=at_least(5.0)),
            Finding(
                title=f"texts of {len(texts[OURS])} that differ",
                value=differing,
                target=at_most(0) if exact else None,
                ratio=False,
            ),
        ],
    )


@torch.no_grad()
def one_at_a_time(
    materials: Materials, base: LoadedModel, spec: EvaluationSpec, task: Task, item: Example
) -> str:
    """The answer to one prompt from ``transformers`` alone, without padding."""
    prompt = task.prompt(item, spec.protocol)
    max_new_tokens = task.max_new_tokens or DEFAULT_NEW_TOKENS
    ids, _ = read_context(
        base.tokenizer, prompt, max_length=spec.max_length, max_new_tokens=max_new_tokens
    )
    rows = torch.tensor([ids], device=materials.device)
    options = {"stop_strings": list(task.stop), "tokenizer": base.tokenizer} if task.stop else {}
    output = base.model.generate(
        input_ids=rows,
        attention_mask=torch.ones_like(rows),
        max_new_tokens=max_new_tokens,
        eos_token_id=end_tokens(base.tokenizer, base.model),
        do_sample=False,
        num_beams=1,
        pad_token_id=pad_token(base.tokenizer),
        temperature=None,
        top_p=None,
        top_k=None,
        **options,
    )
    text: str = base.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
    return cut_at(text, task.stop)
