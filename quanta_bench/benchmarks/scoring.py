"""Multiple-choice scoring: the suite, one candidate at a time, and lm-evaluation-harness."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from quanta_bench.benchmark import (
    Benchmark,
    Case,
    Conditions,
    Finding,
    Outcome,
    Side,
    at_least,
    at_most,
)
from quanta_bench.benchmarks.materials import Materials
from quanta_bench.data.encoding import Encoded
from quanta_bench.data.tokenization import encode_items
from quanta_bench.evaluation import evaluators
from quanta_bench.models.capabilities import can_pack
from quanta_bench.models.loading import LoadedModel
from quanta_bench.models.output_layer import output_layer
from quanta_bench.spec import EvaluationSpec
from quanta_bench.task import Example, Prompt, Task
from quanta_bench.timing import interleave, speed_ratio

TASKS = ("hellaswag", "arc_easy", "boolq:with_passage")
OURS = "ours"
SINGLE = "one candidate at a time"
BATCH_SIZES = (8, 32)
ROUNDING = 8
"""Candidates whose scores differ by less than this many rounding units may swap ranks."""

NOTES = [
    "One candidate at a time and HFLM run the model as loaded, without autocast.",
    "Multiply-adds count the layers' weights for every token read, padding included, and the "
    "output layer: for the predicted tokens only in ours, for every token in the others. "
    "Attention scores are not counted. The times would have the same ratio if nothing else took "
    "time and short rows were computed as fast as long ones.",
]

Sums = list[list[float]]
"""The log-likelihood of each candidate, by item."""


class Scoring(Benchmark):
    """Items per second of whole evaluations, tokenising included, and whether choices agree."""

    name = "scoring"
    title = "scoring choices: ours against one candidate at a time and lm-eval's HFLM"
    needs = ("lm_eval",)
    reads = True
    place = 40

    def run(self, conditions: Conditions) -> Outcome:
        """One case per task; each round scores different items."""
        materials = Materials.of(conditions)
        base = materials.load()
        packed = can_pack(base.model)
        items, rounds = conditions.choose((16, 2), quick=(8, 1))
        cases = []
        for name in conditions.choose(TASKS, quick=TASKS[1:2]):
            conditions.tell(f"{name}: {rounds} rounds of {items} items")
            task, examples = materials.items(name, "test", items * (rounds + 1))
            cases.append(compare(materials, base, task, examples, rounds, packed=packed))
        return Outcome(cases=cases, notes=NOTES)


class PromptedItems(NamedTuple):
    """Items of a task with their prompts."""

    task: Task
    examples: Sequence[Example]
    prompts: Sequence[Prompt]


def compare(
    materials: Materials,
    base: LoadedModel,
    task: Task,
    examples: Sequence[Example],
    rounds: int,
    *,
    packed: bool,
) -> Case:
    """Score the same items with every scorer, after one round that is not counted."""
    spec = EvaluationSpec(tasks=(task.name,))
    size = len(examples) // (rounds + 1)
    chunks = []
    for start in range(0, size * (rounds + 1), size):
        part = examples[start : start + size]
        chunks.append(
            PromptedItems(task, part, [task.prompt(item, spec.protocol) for item in part])
        )
    context = evaluators.Context(
        base.model,
        base.tokenizer,
        spec,
        packed=packed,
        cached=True,
        device=materials.device,
        advance=lambda count: None,
    )
    scorers: dict[str, Callable[[PromptedItems], Sums]] = {
        OURS: lambda chunk: ours(materials, context, chunk),
        SINGLE: lambda chunk: one_at_a_time(materials, base, spec, chunk),
    }
    for batch_size in BATCH_SIZES:
        harness = Harness(materials, base, spec.max_length, batch_size)
        scorers[f"lm-eval, batches of {batch_size}"] = harness.score
    sums: dict[str, Sums] = {name: [] for name in scorers}
    read: Counter[str] = Counter()

    def side(name: str) -> Callable[[], None]:
        remaining = iter(chunks)

        def score() -> None:
            with tokens_read(base.model) as tokens:
                sums[name].extend(scorers[name](next(remaining)))
            read[name] += sum(tokens)

        return score

    timed = interleave(
        {name: side(name) for name in scorers}, rounds=rounds, work=size, unit="items"
    )
    first, single, *harnesses = timed
    best = min(harnesses, key=lambda side: sum(side.seconds))
    whole = PromptedItems(task, [item for chunk in chunks for item in chunk.examples], ())
    predicted = sum(
        len(candidate) for item in encoded(base, spec, whole) for candidate in item.candidates
    )
    least = multiply_adds(base.model, read[OURS], predicted)
    return Case(
        title=f"{task.reference}, {materials.precision['base']}",
        sides=timed,
        findings=[
            speed_ratio(first, single, by="total", target=at_least(3.0)),
            speed_ratio(first, best, by="total", target=at_least(2.0)),
            *(
                Finding(
                    title=f"multiply-adds, {other.name} / {OURS}",
                    value=multiply_adds(base.model, read[other.name], read[other.name]) / least,
                )
                for other in (single, best)
            ),
            *differences(materials, base, spec, whole, sums, [single, best]),
        ],
    )


@contextmanager
def tokens_read(model: Any) -> Iterator[list[int]]:
    """Record the number of tokens, padding included, of each call of a model inside the block."""
    tokens: list[int] = []

    def count(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        tokens.append(arguments[0].numel())

    handle = model.get_input_embeddings().register_forward_pre_hook(count)
    try:
        yield tokens
    finally:
        handle.remove()


def multiply_adds(model: Any, tokens: int, outputs: int) -> int:
    """Multiply-adds of a model's weights.

    Args:
        model: a causal language model.
        tokens: number of tokens read.
        outputs: number of positions whose logits are computed.
    """
    head = output_layer(model)
    vocabulary = () if head is None else tuple(head.parameters())
    tables = {id(weight) for weight in (model.get_input_embeddings().weight, *vocabulary)}
    layer_weights: int = sum(
        weight.numel()
        for weight in model.parameters()
        if weight.dim() > 1 and id(weight) not in tables
    )
    output_weights: int = sum(weight.numel() for weight in vocabulary if weight.dim() > 1)
    return tokens * layer_weights + outputs * output_weights


def ours(materials: Materials, context: evaluators.Context, chunk: PromptedItems) -> Sums:
    """Score with the suite's evaluator, in the precision of its runs."""
    with materials.autocast():
        judged = evaluators.evaluate(context, chunk.task, chunk.examples)
    return [list(item.detail["log_likelihoods"]) for item in judged]


def encoded(base: LoadedModel, spec: EvaluationSpec, chunk: PromptedItems) -> list[Encoded]:
    """Items in token ids, as the suite encodes them."""
    return encode_items(
        base.tokenizer, [(chunk.task, chunk.examples)], spec.protocol, max_length=spec.max_length
    )


@torch.no_grad()
def one_at_a_time(
    materials: Materials, base: LoadedModel, spec: EvaluationSpec, chunk: PromptedItems
) -> Sums:
    """Score with one model call per candidate, each with its whole prompt."""
    sums: Sums = []
    for item in encoded(base, spec, chunk):
        row = []
        for context, candidate in zip(item.contexts, item.candidates, strict=True):
            ids = torch.tensor([[*context, *candidate]], device=materials.device)
            logits = base.model(input_ids=ids[:, :-1]).logits[0, -len(candidate) :].float()
            chosen = logits.log_softmax(-1).gather(1, ids[0, -len(candidate) :, None])
            row.append(float(chosen.sum()))
        sums.append(row)
    return sums


class Harness:
    """lm-evaluation-harness's HFLM, its class for ``transformers`` models.

    Args:
        materials: gives the device.
        base: the model.
        max_length: maximum number of tokens in a sequence.
        batch_size: requests per batch.
    """

    def __init__(
        self, materials: Materials, base: LoadedModel, max_length: int, batch_size: int
    ) -> None:
        with warnings.catch_warnings():
            # Its imports raise warnings that this project cannot fix.
            warnings.simplefilter("ignore")
            from lm_eval.api.instance import Instance
            from lm_eval.models.huggingface import HFLM
        self._instance = Instance
        self._lm = HFLM(
            pretrained=base.model,
            tokenizer=base.tokenizer,
            max_length=max_length,
            device=str(materials.device),
            batch_size=batch_size,
        )

    def score(self, chunk: PromptedItems) -> Sums:
        """Score the items' candidates as log-likelihood requests."""
        pairs = [(prompt.context, text) for prompt in chunk.prompts for text in prompt.candidates]
        requests = [
            self._instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)
        ]
        answers: list[Any] = self._lm.loglikelihood(requests, disable_tqdm=True)
        totals = iter(float(total) for total, _ in answers)
        return [[next(totals) for _ in prompt.candidates] for prompt in chunk.prompts]


def differences(
    materials: Materials,
    base: LoadedModel,
    spec: EvaluationSpec,
    chunk: PromptedItems,
    sums: dict[str, Sums],
    others: Sequence[Side],
) -> list[Finding]:
    """Count the items on which ours chooses differently; beyond rounding there may be none."""
    lengths = [
        [len(candidate) for candidate in item.candidates] for item in encoded(base, spec, chunk)
    ]
    means = {
        name: [
            [total / length for total, length in zip(row, sizes, strict=True)]
            for row, sizes in zip(of_side, lengths, strict=True)
        ]
        for name, of_side in sums.items()
    }
    tolerance = rounding(materials.dtype)
    findings = []
    for other in others:
        differing = disagreements(means[OURS], means[other.name], 0.0)
        beyond = disagreements(means[OURS], means[other.name], tolerance)
        name = f"{OURS} and {other.name}"
        total = len(chunk.examples)
        findings += [
            Finding(title=f"choices of {total} that differ, {name}", value=differing, ratio=False),
            Finding(
                title=f"of them beyond rounding, {name}",
                value=beyond,
                target=at_most(0),
                ratio=False,
            ),
        ]
    return findings


def rounding(dtype: torch.dtype) -> float:
    """Tolerance between two computations of one mean log-likelihood, in nats per token."""
    return max(1e-3, ROUNDING * torch.finfo(dtype).eps)


def disagreements(ours: Sums, theirs: Sums, tolerance: float) -> int:
    """Number of items whose best candidates differ by more than a tolerance in ``theirs``."""
    count = 0
    for mine, other in zip(ours, theirs, strict=True):
        a, b = (max(range(len(row)), key=row.__getitem__) for row in (mine, other))
        count += a != b and other[b] - other[a] > tolerance
    return count
