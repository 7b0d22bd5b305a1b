"""Evaluators: score a model on the items of a task; each item gets one judged record."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import nn

from quanta_bench.data.batches import CandidateBatch, collate
from quanta_bench.data.bucketing import by_tokens, cheapest_cuts
from quanta_bench.data.chat import prompts_of
from quanta_bench.data.encoding import Encoded
from quanta_bench.data.loader import Batches, evaluation_tokens
from quanta_bench.data.texts import collate_texts, encode_texts
from quanta_bench.data.tokenization import encode_items
from quanta_bench.data.windows import encode_windows, scoring_overlap
from quanta_bench.evaluation import decisions, likelihood
from quanta_bench.evaluation.classification import head_outputs, judge_outputs
from quanta_bench.evaluation.decoding import FEWEST_ROWS, rows_together
from quanta_bench.evaluation.generation import (
    NonFiniteLogitsError,
    fastest_decoding,
    generate,
    read_context,
)
from quanta_bench.evaluation.limits import answer_lengths, bound_on_new_tokens
from quanta_bench.models.sharding import in_step, is_sharded
from quanta_bench.models.special_tokens import pad_token
from quanta_bench.plugins import find_protocol
from quanta_bench.spec import EvaluationSpec, Normaliser
from quanta_bench.task import Answer, Example, Kind, Task
from quanta_bench.utils.out_of_memory import in_halves
from quanta_bench.utils.process_group import ALONE, Group
from quanta_bench.utils.readback import Readback

T = TypeVar("T")
R = TypeVar("R")

GENERATION_BATCH = FEWEST_ROWS
"""Maximum number of items per generation batch if prompts cannot be read separately."""

STEP_CHARGE = 8
"""Fixed cost of a decoding step of such a batch, in prompt tokens.

A step reads all weights for a few rows; most answers end long before their bound.
"""


@dataclass(frozen=True)
class Judged:
    """One item's outcome.

    Attributes:
        example: the item.
        answers: what the model answered and how it was judged: one answer, or one for each of the
            candidates that tie for the best score, all equally likely.
        detail: what the judgement rests on: candidates' log-likelihoods, the generated text, or a
            head's outputs.
        cut: tokens cut from the text.
        max_new_tokens: bound on the answer's tokens, where it was generated.
        too_long: whether the right answer is longer than that.
    """

    example: Example
    answers: tuple[Answer, ...]
    detail: Mapping[str, Any]
    cut: int = 0
    max_new_tokens: int | None = None
    too_long: bool = False

    @property
    def tied(self) -> bool:
        """Whether several candidates share the best score."""
        return len(self.answers) > 1

    @cached_property
    def answer(self) -> Answer:
        """The answers as one, with their expected scores."""
        return decisions.expected(self.answers)


@dataclass(frozen=True)
class Context:
    """What every evaluator needs.

    Attributes:
        model: the model to score, in evaluation mode.
        tokenizer: its tokenizer.
        spec: the evaluation spec.
        packed: whether candidates may share a row.
        cached: whether the model works with a key/value cache.
        device: where the model is.
        advance: called with the number of items done since the last call.
        group: the processes that share the items; an evaluator scores its share and returns all.
    """

    model: nn.Module
    tokenizer: Any
    spec: EvaluationSpec
    packed: bool
    cached: bool
    device: torch.device
    advance: Callable[[int], None]
    group: Group = ALONE

    def in_halves(self, compute: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
        """:func:`quanta_bench.utils.out_of_memory.in_halves`, but not with a sharded model.

        Another process may be in the middle of the same pass, which cannot be broken off alone.
        """
        return compute(items) if is_sharded(self.model) else in_halves(compute, items)


def _likelihoods(context: Context, task: Task, items: Sequence[Encoded]) -> list[list[float]]:
    """The log-likelihoods of each encoded item's candidates, in the items' order.

    Raises:
        NonFiniteError: one of them is NaN or infinite.
    """
    pad = pad_token(context.tokenizer)
    batches = by_tokens(items, evaluation_tokens(context.device), packed=context.packed)
    sums: dict[int, list[float]] = {id(item): [] for item in items}
    computed: list[tuple[list[Encoded], Readback]] = []
    begun: set[str] = set()
    laid_out = partial(collate, pad_token=pad, packed=context.packed)

    def compute(
        batch: CandidateBatch, part: Sequence[Encoded]
    ) -> list[tuple[list[Encoded], Readback]]:
        if len(part) < len(batch.items):
            batch = laid_out(part)
        values = likelihood.log_likelihoods(context.model, batch.to(context.device))
        return [([batch.items[n] for n in batch.example.tolist()], Readback(values))]

    with torch.no_grad(), in_step(context.model, context.group):
        for batch in Batches(batches, laid_out).loader(context.device):
            computed += context.in_halves(partial(compute, batch), batch.items)
            # Windows of one text count as one.
            new = {item.example.id for item in batch.items} - begun
            begun |= new
            context.advance(len(new))
    for owners, read in computed:
        for item, value in zip(owners, read.tolist(), strict=True):
            sums[id(item)].append(value)
    for item in items:
        # A window of a text is an item with one candidate.
        decisions.check_finite(
            sums[id(item)], "the log-likelihood of candidate", item.example, task.reference
        )
    return [sums[id(item)] for item in items]


def choose(context: Context, task: Task, examples: Sequence[Example]) -> list[Judged]:
    """Judge each item by its likeliest candidate; candidates that tie share it."""
    items = encode_items(
        context.tokenizer,
        [(task, context.group.share(examples))],
        context.spec.protocol,
        max_length=context.spec.max_length,
        chat=context.spec.chat_template,
    )
    judged = []
    for item, sums in zip(items, _likelihoods(context, task, items), strict=True):
        detail: dict[str, Any] = {
            "log_likelihoods": sums,
            "tokens": [len(candidate) for candidate in item.candidates],
            "bytes": list(item.sizes),
        }
        scores = normalised(detail, context.spec.normaliser)
        answers = decisions.judge(task, item.example, scores)
        detail["tied"] = _tied(scores)
        judged.append(Judged(item.example, answers, detail, item.cut))
    return context.group.collect(judged)


def normalised(detail: Mapping[str, Any], normaliser: Normaliser) -> list[float]:
    """An item's log-likelihoods made comparable across lengths, one a candidate."""
    sums = detail["log_likelihoods"]
    sizes = {"sum": [1] * len(sums), "token_mean": detail["tokens"], "byte_mean": detail["bytes"]}
    return [total / size for total, size in zip(sums, sizes[normaliser], strict=True)]


def by_normaliser(task: Task, judged: Sequence[Judged]) -> dict[str, float]:
    """The main metric under each normaliser, as ``accuracy/sum`` and so on."""
    metrics = {}
    for normaliser in get_args(Normaliser):
        answers = [
            decisions.judge(task, item.example, normalised(item.detail, normaliser))
            for item in judged
        ]
        metrics[f"{task.metric}/{normaliser}"] = decisions.aggregate(task, answers)[task.metric]
    return metrics


def _tied(scores: Sequence[float]) -> list[int]:
    """The candidates that share the best score; none where one has it alone."""
    best = decisions.winners(scores)
    return list(best) if len(best) > 1 else []


def classify(context: Context, task: Task, examples: Sequence[Example]) -> list[Judged]:
    """Ask the model's classification head for each item's class, or for a number."""
    own = context.group.share(examples)
    items = encode_texts(context.tokenizer, task, own, max_length=context.spec.max_length)
    pad = pad_token(context.tokenizer)
    batches = by_tokens(items, evaluation_tokens(context.device), packed=False)
    laid_out = Batches(batches, partial(collate_texts, pad_token=pad, outputs=task.outputs))
    judged: dict[int, Judged] = {}
    with torch.no_grad(), in_step(context.model, context.group):
        for batch in laid_out.loader(context.device):
            outputs = head_outputs(context.model, batch.to(context.device)).tolist()
            for item, values in zip(batch.items, outputs, strict=True):
                answers = judge_outputs(task, item.example, values)
                detail = {"outputs": values, "tied": _tied(values)}
                judged[id(item)] = Judged(item.example, answers, detail, item.cut)
            context.advance(len(batch.items))
    return context.group.collect([judged[id(item)] for item in items])


def predict(context: Context, task: Task, examples: Sequence[Example]) -> list[Judged]:
    """How well each item's text is predicted; the score is the mean over tokens, in nats.

    A text that is longer than ``max_length`` is read in windows (:mod:`quanta_bench.data.windows`).
    """
    length = context.spec.max_length
    examples = context.group.share(examples)
    texts = [
        encode_windows(
            context.tokenizer,
            example,
            task.prompt(example, context.spec.protocol),
            max_length=length,
            overlap=scoring_overlap(length),
        )
        for example in examples
    ]
    sums = iter(_likelihoods(context, task, [window for windows in texts for window in windows]))
    judged = []
    for example, windows in zip(examples, texts, strict=True):
        total = math.fsum(next(sums)[0] for _ in windows)
        tokens = sum(len(window.candidates[0]) for window in windows)
        detail = {"log_likelihoods": [total], "tokens": [tokens], "bytes": list(windows[0].sizes)}
        words = task.words(example)
        if words is not None:
            detail["words"] = [words]
        answer = Answer(None, "", {"nats_per_token": -total / tokens})
        judged.append(Judged(example, (answer,), detail, windows[0].cut))
    return context.group.collect(judged)


def answer(context: Context, task: Task, examples: Sequence[Example]) -> list[Judged]:
    """Generate an answer to each item and let the task parse it."""
    spec = context.spec
    prompts = prompts_of(context.tokenizer, task, examples, spec.protocol, chat=spec.chat_template)
    lengths = answer_lengths(context.tokenizer, prompts)
    # Of all items, so that it does not depend on which of them are this process's.
    most = bound_on_new_tokens(task, lengths, spec.max_new_tokens)
    own = context.group.share(range(len(examples)))
    bounds = {"max_length": spec.max_length, "max_new_tokens": most}
    widths = {i: len(read_context(context.tokenizer, prompts[i], **bounds)[0]) for i in own}
    order = sorted(own, key=lambda i: -widths[i])
    judged: dict[int, Judged] = {}

    def write(chunk: Sequence[int]) -> list[tuple[str, int]]:
        try:
            return generate(
                context.model,
                context.tokenizer,
                [prompts[i] for i in chunk],
                max_length=spec.max_length,
                max_new_tokens=most,
                stop=task.stop,
                use_cache=context.cached,
                device=context.device,
                advance=context.advance,
            )
        except NonFiniteLogitsError as error:
            item = examples[chunk[error.prompt]]
            raise decisions.NonFiniteError(
                f"{task.reference}, item {item.id}: the largest logit of a generated token is "
                f"{error.value}"
            ) from None

    with in_step(context.model, context.group):
        # How a model decodes is tried out by passes too.
        for cut in _generation_cuts(context, most, [widths[i] for i in order]):
            chunk = order[cut]
            answers = context.in_halves(write, chunk)
            for i, (text, lost) in zip(chunk, answers, strict=True):
                judged[i] = Judged(
                    examples[i],
                    (task.judge_text(examples[i], text),),
                    {"text": text},
                    lost,
                    most,
                    lengths[i] > most,
                )
    return context.group.collect([judged[i] for i in own])


def _generation_cuts(context: Context, most_new: int, widths: Sequence[int]) -> list[slice]:
    """Which items are answered together; ``widths`` of their prompts, the widest first."""
    if not widths:
        return []
    longest = widths[0] + most_new
    mode = fastest_decoding(
        context.model, max_new_tokens=most_new, length=longest, cacheable=context.cached
    )
    if mode.joined:
        most = rows_together(mode.token_bytes * longest)
        # Prompts are read in batches of their own, so nothing is gained by answering few together.
        return cheapest_cuts(widths, charge=sum(widths), most=most)
    return cheapest_cuts(widths, charge=STEP_CHARGE * most_new, most=GENERATION_BATCH)


BY_KIND: Mapping[Kind, Callable[[Context, Task, Sequence[Example]], list[Judged]]] = {
    "choice": choose,
    "classify": choose,
    "perplexity": predict,
    "generate": answer,
}
"""The evaluator of each kind of task, where a language model reads prompts."""


def evaluate(context: Context, task: Task, examples: Sequence[Example]) -> list[Judged]:
    """Score one task's items as the spec's protocol does."""
    return find_protocol(context.spec.protocol).evaluate(context, task, examples)


def mean_score(context: Context, tasks: Sequence[tuple[Task, Sequence[Example]]]) -> float:
    """The mean over tasks of each one's main metric, as a fraction."""
    scores = []
    for task, examples in tasks:
        answers = [item.answers for item in evaluate(context, task, examples)]
        scores.append(decisions.aggregate(task, answers)[task.metric])
    return math.fsum(scores) / len(scores)


def perplexity(judged: Sequence[Judged], unit: Literal["tokens", "words"] = "tokens") -> float:
    """Perplexity per token or word over items judged by :func:`predict`, weighted by length.

    Raises:
        NonFiniteError: it is beyond float64 (from 710 nats a unit on).
    """
    total = sum(sum(item.detail["log_likelihoods"]) for item in judged)
    nats = -total / sum(sum(item.detail[unit]) for item in judged)
    try:
        return math.exp(nats)
    except OverflowError:
        raise decisions.NonFiniteError(
            f"the perplexity per {unit.removesuffix('s')}, exp({nats:.5g}), is beyond float64"
        ) from None


def perplexities(judged: Sequence[Judged]) -> dict[str, float]:
    """The perplexity per token and, where the task counts words, per word."""
    values = {"perplexity": perplexity(judged)}
    if all("words" in item.detail for item in judged):
        values["word_perplexity"] = perplexity(judged, "words")
    return values
