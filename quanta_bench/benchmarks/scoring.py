"""Scoring choices: the suite's evaluator, one candidate at a time, and lm-evaluation-harness."""

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
ONE = "one candidate at a time"
BATCH_SIZES = (8, 32)
ROUNDING = 8
"""Two candidates this many units of rounding apart, in nats a token, may change places."""

NOTES = [
    "One candidate at a time and HFLM read the model as it is loaded, without autocast.",
    "Multiply-adds are those of the layers' weights for every token read, padding included, and of "
    "the output layer, in ours for the predicted tokens and in the others for every one; scores of "
    "attention are not among them. The ratio of the times would be theirs if nothing else took "
    "time and short rows were computed as fast as long ones.",
]

Sums = list[list[float]]
"""Of each item, the log-likelihood of each of its candidates."""


class Scoring(Benchmark):
    """Items a second of whole evaluations, tokenising included, and whether they choose alike."""

    name = "scoring"
    title = "scoring choices: ours against one candidate at a time and lm-eval's HFLM"
    needs = ("lm_eval",)
    reads = True
    place = 40

    def run(self, conditions: Conditions) -> Outcome:
        """A case a task; every round scores other items."""
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


class Put(NamedTuple):
    """Items as they are put to a model."""

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
    """Score the same items every way, in as many rounds, after one round that is not counted."""
    spec = EvaluationSpec(tasks=(task.name,))
    size = len(examples) // (rounds + 1)
    chunks = []
    for start in range(0, size * (rounds + 1), size):
        some = examples[start : start + size]
        chunks.append(Put(task, some, [task.prompt(item, spec.protocol) for item in some]))
    context = evaluators.Context(
        base.model,
        base.tokenizer,
        spec,
        packed=packed,
        cached=True,
        device=materials.device,
        advance=lambda count: None,
    )
    ways: dict[str, Callable[[Put], Sums]] = {
        OURS: lambda put: ours(materials, context, put),
        ONE: lambda put: one_at_a_time(materials, base, spec, put),
    }
    for batch_size in BATCH_SIZES:
        harness = Harness(materials, base, spec.max_length, batch_size)
        ways[f"lm-eval, batches of {batch_size}"] = harness.score
    found: dict[str, Sums] = {name: [] for name in ways}
    read: Counter[str] = Counter()

    def side(name: str) -> Callable[[], None]:
        left = iter(chunks)

        def score() -> None:
            with tokens_read(base.model) as tokens:
                found[name].extend(ways[name](next(left)))
            read[name] += sum(tokens)

        return score

    timed = interleave({name: side(name) for name in ways}, rounds=rounds, work=size, unit="items")
    first, one, *harnesses = timed
    best = min(harnesses, key=lambda one: sum(one.seconds))
    whole = Put(task, [item for put in chunks for item in put.examples], ())
    predicted = sum(
        len(candidate) for item in encoded(base, spec, whole) for candidate in item.candidates
    )
    least = multiply_adds(base.model, read[OURS], predicted)
    return Case(
        title=f"{task.reference}, {materials.precision['base']}",
        sides=timed,
        findings=[
            speed_ratio(first, one, by="total", target=at_least(3.0)),
            speed_ratio(first, best, by="total", target=at_least(2.0)),
            *(
                Finding(
                    title=f"multiply-adds, {other.name} / {OURS}",
                    value=multiply_adds(base.model, read[other.name], read[other.name]) / least,
                )
                for other in (one, best)
            ),
            *differences(materials, base, spec, whole, found, [one, best]),
        ],
    )


@contextmanager
def tokens_read(model: Any) -> Iterator[list[int]]:
    """How many tokens each call of a model reads within, padding included."""
    tokens: list[int] = []

    def count(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        tokens.append(given[0].numel())

    handle = model.get_input_embeddings().register_forward_pre_hook(count)
    try:
        yield tokens
    finally:
        handle.remove()


def multiply_adds(model: Any, tokens: int, outputs: int) -> int:
    """Those of a model's weights for tokens that it reads and positions whose logits it makes."""
    head = output_layer(model)
    vocabulary = () if head is None else tuple(head.parameters())
    tables = {id(weight) for weight in (model.get_input_embeddings().weight, *vocabulary)}
    layers: int = sum(
        weight.numel()
        for weight in model.parameters()
        if weight.dim() > 1 and id(weight) not in tables
    )
    of_outputs: int = sum(weight.numel() for weight in vocabulary if weight.dim() > 1)
    return tokens * layers + outputs * of_outputs


def ours(materials: Materials, context: evaluators.Context, put: Put) -> Sums:
    """By the suite's evaluator, in the precision of its runs."""
    with materials.autocast():
        judged = evaluators.evaluate(context, put.task, put.examples)
    return [list(item.detail["log_likelihoods"]) for item in judged]


def encoded(base: LoadedModel, spec: EvaluationSpec, put: Put) -> list[Encoded]:
    """Items in token ids, as the suite encodes them."""
    return encode_items(
        base.tokenizer, [(put.task, put.examples)], spec.protocol, max_length=spec.max_length
    )


@torch.no_grad()
def one_at_a_time(materials: Materials, base: LoadedModel, spec: EvaluationSpec, put: Put) -> Sums:
    """A call of the model for each candidate, with its whole prompt."""
    sums: Sums = []
    for item in encoded(base, spec, put):
        row = []
        for context, candidate in zip(item.contexts, item.candidates, strict=True):
            ids = torch.tensor([[*context, *candidate]], device=materials.device)
            logits = base.model(input_ids=ids[:, :-1]).logits[0, -len(candidate) :].float()
            chosen = logits.log_softmax(-1).gather(1, ids[0, -len(candidate) :, None])
            row.append(float(chosen.sum()))
        sums.append(row)
    return sums


class Harness:
    """lm-evaluation-harness's own class for models of ``transformers``.

    Args:
        materials: the device.
        base: the model.
        max_length: tokens that the model reads at once.
        batch_size: requests that it puts to the model together.
    """

    def __init__(
        self, materials: Materials, base: LoadedModel, max_length: int, batch_size: int
    ) -> None:
        with warnings.catch_warnings():
            # What it imports is not this project's.
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

    def score(self, put: Put) -> Sums:
        """The items' candidates as its requests."""
        pairs = [(prompt.context, text) for prompt in put.prompts for text in prompt.candidates]
        requests = [
            self._instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)
        ]
        answers: list[Any] = self._lm.loglikelihood(requests, disable_tqdm=True)
        totals = iter(float(total) for total, _ in answers)
        return [[next(totals) for _ in prompt.candidates] for prompt in put.prompts]


def differences(
    materials: Materials,
    base: LoadedModel,
    spec: EvaluationSpec,
    put: Put,
    found: dict[str, Sums],
    others: Sequence[Side],
) -> list[Finding]:
    """On how many items ours chooses otherwise; none may that is not within rounding."""
    lengths = [[len(one) for one in item.candidates] for item in encoded(base, spec, put)]
    means = {
        name: [
            [total / length for total, length in zip(row, sizes, strict=True)]
            for row, sizes in zip(sums, lengths, strict=True)
        ]
        for name, sums in found.items()
    }
    tolerance = rounding(materials.dtype)
    findings = []
    for other in others:
        all_of_them = disagreements(means[OURS], means[other.name], 0.0)
        beyond = disagreements(means[OURS], means[other.name], tolerance)
        name = f"{OURS} and {other.name}"
        many = len(put.examples)
        findings += [
            Finding(title=f"choices of {many} that differ, {name}", value=all_of_them, ratio=False),
            Finding(
                title=f"of them beyond rounding, {name}",
                value=beyond,
                target=at_most(0),
                ratio=False,
            ),
        ]
    return findings


def rounding(dtype: torch.dtype) -> float:
    """How far apart two ways to compute one mean log-likelihood may come out, nats a token."""
    return max(1e-3, ROUNDING * torch.finfo(dtype).eps)


def disagreements(ours: Sums, theirs: Sums, tolerance: float) -> int:
    """Items whose best candidates differ, and by theirs lie more than a tolerance apart."""
    count = 0
    for mine, other in zip(ours, theirs, strict=True):
        a, b = (max(range(len(row)), key=row.__getitem__) for row in (mine, other))
        count += a != b and other[b] - other[a] > tolerance
    return count
