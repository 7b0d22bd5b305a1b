"""How much of what the suite computes is padding: what packing rows could save at most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from quanta_bench.benchmark import Case, Finding
from quanta_bench.benchmarks.materials import PROFILE, Materials
from quanta_bench.data.bucketing import by_tokens, cuts_within
from quanta_bench.data.loader import evaluation_tokens, training_tokens
from quanta_bench.data.pools import Pools
from quanta_bench.evaluation.decoding import MOST_ROWS
from quanta_bench.spec import EvaluationSpec, ModelSpec, Seeds, TrainingSpec
from quanta_bench.suites.loading import load_suite
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.together import passes_of

SUITES = ("sums", "table2", "table3")
SEEDS = 5
"""Runs that are trained together, each with an order of its own."""


def padding(materials: Materials, suites: Sequence[str] = SUITES) -> Case:
    """Count the tokens of all batches of a suite's small size; no model is needed."""
    findings, pools = [], Pools()
    for suite in suites:
        runs = [data_of(materials, suite, seed, pools) for seed in range(SEEDS)]
        shares = {
            "training": share(alone(runs[0])),
            f"{SEEDS} seeds trained together": share(together(runs)),
            "scoring": share(scoring(materials, suite, runs[0], pools)),
        }
        findings += [
            Finding(title=f"% of tokens padded, {suite}, {what}", value=100 * part, ratio=False)
            for what, part in shares.items()
        ]
    return Case(
        title=f"padding on {materials.device.type}",
        findings=findings,
        notes=["Packing items into rows without padding could save these shares at most."],
    )


def share(batches: Iterable[tuple[int, int]]) -> float:
    """The share of padding in batches, given by their real tokens and all of their tokens."""
    counted = [*batches]
    return 1 - sum(real for real, _ in counted) / sum(cells for _, cells in counted)


def data_of(materials: Materials, suite: str, seed: int, pools: Pools) -> BenchData:
    """The data of a training of a suite's small size, with that seed for order and sample."""
    loaded = load_suite(suite)
    profile = loaded.profiles[PROFILE]
    values = {**profile.training, **profile.sizes["small"].training}
    spec = TrainingSpec(
        model=ModelSpec.from_reference(materials.model_name),
        method="lora",
        tasks=tuple(loaded.tasks),
        source=materials.source,
        seeds=Seeds(init=seed, order=seed, sample=seed),
        **values,
    )
    tokenizer = materials.tokenizer()
    return BenchData(spec, pools, tokenizer, packed=True, device=materials.device)


def steps(data: BenchData) -> Iterator[list[Any]]:
    """The micro-batches of each step."""
    for interval in data.intervals:
        for batch in interval:
            yield data.micro_batches(batch)


def alone(data: BenchData) -> Iterator[tuple[int, int]]:
    """Real tokens and all tokens of each micro-batch of a run."""
    for parts in steps(data):
        for part in parts:
            yield part.tokens, part.input_ids.numel()


def together(runs: Sequence[BenchData]) -> Iterator[tuple[int, int]]:
    """The same of each pass of runs that are trained together."""
    for parts in zip(*map(steps, runs), strict=False):
        pieces = [piece for own in parts for piece in own]
        shapes = [piece.shape for piece in pieces]
        for numbers in passes_of(shapes, training_tokens(runs[0].device)):
            width = max(shapes[number][1] for number in numbers)
            rows = sum(shapes[number][0] for number in numbers)
            yield sum(pieces[number].tokens for number in numbers), rows * width


def scoring(
    materials: Materials, suite: str, data: BenchData, pools: Pools
) -> Iterator[tuple[int, int]]:
    """The same of each batch of the test items; where answers are generated, of their prompts."""
    loaded = load_suite(suite)
    profile = loaded.profiles[PROFILE]
    values = {**profile.evaluation, **profile.sizes["small"].evaluation}
    spec = EvaluationSpec(tasks=tuple(loaded.tasks), source=materials.source, **values)
    budget = evaluation_tokens(data.device)
    for task, examples in pools.sample(spec.tasks, spec.source, "test", spec.items, 0):
        items = data.objective.encode(materials.tokenizer(), [(task, examples)], train=False)
        if spec.protocol != "generate":
            for part in by_tokens(items, budget, packed=True):
                batch = data.collate(part)
                yield batch.tokens, batch.input_ids.numel()
            continue
        widths = sorted((len(item.contexts[0]) for item in items), reverse=True)
        for start in range(0, len(widths), MOST_ROWS):
            rows = widths[start : start + MOST_ROWS]
            for cut in cuts_within(rows, budget):
                yield sum(rows[cut]), len(rows[cut]) * rows[cut][0]
