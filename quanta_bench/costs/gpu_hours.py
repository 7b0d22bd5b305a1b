"""Estimate a run's GPU-hours and memory before anything is downloaded.

Items and lengths come from :mod:`quanta_bench.costs.workloads`, operations and saved activations
from :mod:`quanta_bench.costs.footprints`, and a GPU is described by its data sheet. The rest is one
assumption, `UTILISATION`, and arithmetic:

- a pass takes the time of its operations at that fraction of the GPU's peak or of reading the
  weights from memory, whichever is longer; the optimiser step is memory-bound;
- generation is memory-bound: each token reads the weights, keys and values once per batch;
- memory is weights, gradients and AdamW's moments, the activations saved for the longest items of
  a micro-batch, and the chunk of logits held at a time; micro-batches and recomputation are what a
  run on that GPU would choose (:mod:`quanta_bench.costs.memory`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic import BaseModel

from quanta_bench.costs.footprints import Footprints, Shape
from quanta_bench.costs.gpus import Gpu
from quanta_bench.costs.memory import (
    LEAST_TOKENS,
    USABLE,
    Fit,
    fit,
    logit_bytes,
    optimizer_bytes,
    step_bytes,
    weight_bytes,
)
from quanta_bench.costs.workloads import Lengths, parts, workloads
from quanta_bench.method import Method
from quanta_bench.models.meta import Counts, cache_bytes, outside_layers, vocabulary
from quanta_bench.plugins import build_method, find_protocol, find_task
from quanta_bench.spec import (
    DEFAULT_PROTOCOL,
    EvaluationSpec,
    TrainingSpec,
    meta_reference,
)
from quanta_bench.suites.grid import GridRow
from quanta_bench.task import DEFAULT_NEW_TOKENS, Split

UTILISATION = 0.4
"""Assumed fraction of a GPU's peak arithmetic and bandwidth that a run reaches."""

LOGIT_BYTES = 10
"""Bytes per logit in generation: bfloat16 once, and float32 twice for log-probabilities."""


class Cost(BaseModel):
    """The cost of one seed of a row.

    Attributes:
        gpu_hours: training and evaluation; the sum over its runs if tasks are trained separately.
        training_hours: the part spent in training, validations included.
        training_tokens: tokens trained on, without padding.
        memory_bytes: the largest run's peak; in training, the sum of the next three.
        weight_bytes: the model with its adapter.
        optimizer_bytes: gradients and AdamW's moments.
        activation_bytes: saved activations, and the logits held at a time.
        gpus: number of GPUs needed for that peak.
        items: items computed together in training, if all are as long as the longest.
        batch_items: items of an optimiser step.
        recomputed: whether activations are recomputed in the backward pass.
        optimizer: what the moments of the trained parameters are held in; empty without training.
    """

    gpu_hours: float
    training_hours: float
    training_tokens: float
    memory_bytes: float
    weight_bytes: float
    optimizer_bytes: float
    activation_bytes: float
    gpus: int
    items: int = 0
    batch_items: int = 0
    recomputed: bool = False
    optimizer: str = ""


@dataclass(frozen=True)
class _Part:
    """Items of similar length."""

    items: float
    lengths: Lengths

    def fed(self, packed: bool) -> float:
        return self.items * self.lengths.fed(packed=packed)


class Costs:
    """Cost estimates for one GPU; measurements are cached.

    Args:
        gpu: the GPU.
        counts: the cache of parameter counts.
    """

    def __init__(self, gpu: Gpu, counts: Counts) -> None:
        self.gpu = gpu
        self._counts = counts
        self._footprints = Footprints()

    def row(self, row: GridRow) -> Cost:
        """The cost of one seed of a row.

        Raises:
            BenchError: too little is known of the model, the method or a task's lengths.
        """
        jobs = row.jobs[: row.parts]
        runs = [self._run(*job) for job in jobs]
        for number, (training, _) in enumerate(jobs):
            if any(training == earlier for earlier, _ in jobs[:number]):
                runs[number] = _scoring_alone(runs[number])
        largest = max(runs, key=lambda run: run.memory_bytes)
        additive = ("gpu_hours", "training_hours", "training_tokens")
        return largest.model_copy(
            update={name: sum(getattr(run, name) for run in runs) for name in additive}
        )

    def _run(self, training: TrainingSpec, evaluation: EvaluationSpec) -> Cost:
        method = build_method(training.method, training.settings)
        run = _Run(self.gpu, self._counts, self._footprints, training, evaluation, method)
        return run.cost()


def _scoring_alone(cost: Cost) -> Cost:
    """The cost of scoring a training that another run pays for."""
    scoring = cost.gpu_hours - cost.training_hours
    return cost.model_copy(
        update={"gpu_hours": scoring, "training_hours": 0.0, "training_tokens": 0.0}
    )


class _Run:
    """The estimate of one run."""

    def __init__(
        self,
        gpu: Gpu,
        counts: Counts,
        footprints: Footprints,
        training: TrainingSpec,
        evaluation: EvaluationSpec,
        method: Method[Any],
    ) -> None:
        self.training, self.evaluation, self.method = training, evaluation, method
        self.model = meta_reference(training.model)
        self.packed = bool(method.cacheable)
        self.precision = "float32" if training.precision == "float32" else "bfloat16"
        self.speed = UTILISATION * (gpu.bfloat16 if self.precision == "bfloat16" else gpu.float32)
        self.bandwidth = UTILISATION * gpu.bandwidth
        self.gpu = gpu
        count = counts.get(self.model, training.method, training.settings)
        wide = self.precision == "float32" or method.base_precision == "float32"
        self.weights = weight_bytes(
            count.base,
            count.added,
            wide=wide,
            quantization=training.quantization,
            outside=outside_layers(self.model),
        )
        self.trainable = count.trainable
        by_task = self._trained_parts("train", training.train_items)
        self.trained = [part for some in by_task.values() for part in some]
        self.scored = self._scored_parts()
        widest = self.trained or [part for parts in self.scored.values() for part in parts]
        self.optimizer = optimizer_bytes(training.optimizer, self.trainable)
        longest = self._longest(widest)
        measured = partial(footprints.get, self.model, method, precision=self.precision)
        self.fit = Fit(longest.items, False, 0.0, True)
        if method.trains:
            room = USABLE * gpu.memory - self.weights - self.optimizer
            self.fit = fit(measured, longest, room, recompute=training.gradient_checkpointing)
        self.shape = replace(longest, items=self.fit.items)
        self.whole, _ = measured(self.shape, recomputed=self.fit.recomputed)
        self.forward = self.whole.forward / self.shape.fed

    def cost(self) -> Cost:
        training, tokens = self._training_seconds() if self.method.trains else (0.0, 0.0)
        optimizer = self.optimizer if self.method.trains else 0
        activations = self.fit.activation_bytes
        memory = self.weights + max(optimizer + activations, self._scoring_bytes())
        return Cost(
            gpu_hours=(training + self._scoring_seconds()) / 3600,
            training_hours=training / 3600,
            training_tokens=tokens,
            memory_bytes=memory,
            weight_bytes=self.weights,
            optimizer_bytes=optimizer,
            activation_bytes=activations,
            gpus=max(1, math.ceil(memory / (USABLE * self.gpu.memory))),
            items=self.fit.items if self.method.trains else 0,
            batch_items=self.training.batch_size if self.method.trains else 0,
            recomputed=self.fit.recomputed,
            optimizer=self.training.optimizer if self.method.trains else "",
        )

    # --- workload ------------------------------------------------------------------------------

    def _trained_parts(self, split: Split, sample: int | None) -> dict[str, list[_Part]]:
        """Items by task. Validation compares candidates for every loss."""
        if not self.method.trains:
            return {}
        spec = self.training
        all_candidates = spec.loss == "candidates" or split == "validation"
        return {
            task: [
                _part(
                    items,
                    lengths if all_candidates else lengths.one_answer(),
                    spec.max_length,
                    scored=False,
                )
                for items, lengths in parts(task, split, spec.protocol, sample)
            ]
            for task in spec.tasks
        }

    def _scored_parts(self) -> dict[str, list[_Part]]:
        spec = self.evaluation
        requests = [(task, spec.split, spec.protocol, spec.items) for task in spec.tasks]
        if spec.forgetting:
            requests.append((spec.forgetting, "test", DEFAULT_PROTOCOL, spec.forgetting_items))
        return {
            task: [
                _part(items, lengths, spec.max_length, scored=True)
                for items, lengths in parts(task, split, protocol, sample)
            ]
            for task, split, protocol, sample in requests
        }

    def _longest(self, some: Sequence[_Part]) -> Shape:
        """A training micro-batch of the longest items."""
        from quanta_bench.data.loader import TRAINING_TOKENS

        shape = self._longest_batch(some)
        fitting = TRAINING_TOKENS // replace(shape, items=1).fed
        return replace(shape, items=max(1, min(shape.items, fitting)))

    def _longest_batch(self, some: Sequence[_Part]) -> Shape:
        spec = self.training
        lengths = max((part.lengths for part in some), key=lambda lengths: lengths.longest)
        items = max(1, spec.batch_size // spec.accumulate)
        candidates, answer = round(lengths.candidates), max(1, round(lengths.answer))
        if lengths.text:
            # Every token is predicted.
            return Shape(items, 1, 1, max(1, lengths.longest - 1))
        if not candidates:
            return Shape(items, lengths.longest, 0, 0)
        context = max(1, lengths.longest - candidates * answer)
        together = self.packed and spec.loss == "candidates" and candidates > 1
        return Shape(items, context, candidates, answer, packed=together)

    # --- time -----------------------------------------------------------------------------------

    def _pass(self, operations: float, passes: float) -> float:
        """Seconds for the operations or for reading the weights, whichever takes longer."""
        return max(operations / self.speed, passes * self.weights / self.bandwidth)

    def _training_seconds(self) -> tuple[float, float]:
        spec = self.training
        items = spec.epochs * sum(part.items for part in self.trained)
        tokens = spec.epochs * sum(part.fed(self.shape.packed) for part in self.trained)
        each = (self.whole.forward + self.whole.backward) / self.shape.fed
        steps = math.ceil(items / spec.batch_size)
        micro_batches = math.ceil(spec.batch_size / self.fit.items)
        seconds = self._pass(tokens * each, 2 * steps * micro_batches)
        step = step_bytes(self.training.optimizer, self.trainable)
        seconds += steps * step / self.bandwidth
        seconds += min(spec.validations, steps) * self._validation_seconds()
        return seconds, tokens

    def _validation_seconds(self) -> float:
        """Seconds of one validation: likelihoods, and generated answers if these are scored."""
        spec = self.training
        by_task = self._trained_parts("validation", spec.validation_items)
        seconds = self._reading_seconds([part for some in by_task.values() for part in some])
        if spec.select == "score" and find_protocol(spec.protocol).generates:
            seconds += sum(
                self._writing_seconds(task, part) for task, some in by_task.items() for part in some
            )
        return seconds

    def _reading_seconds(self, some: Sequence[_Part]) -> float:
        """Seconds to compute the likelihoods of all candidates, one forward pass per batch."""
        from quanta_bench.data.loader import EVALUATION_TOKENS

        fed = sum(part.fed(self.packed) for part in some)
        return self._pass(fed * self.forward, math.ceil(fed / EVALUATION_TOKENS))

    def _scoring_seconds(self) -> float:
        seconds = 0.0
        for task, some in self.scored.items():
            if some[0].lengths.generated:
                seconds += sum(self._writing_seconds(task, part) for part in some)
            else:
                seconds += self._reading_seconds(some)
        return seconds

    def _writing_seconds(self, task: str, part: _Part) -> float:
        """Seconds to generate an answer to each item."""
        rows = self._rows(task, part.lengths)
        batches = math.ceil(part.items / rows)
        context, written = part.lengths.context, self._written(task, part)
        seconds = self._pass(part.items * context * self.forward, batches)
        if not self.packed:
            # Without a cache, every token recomputes all earlier ones.
            read = part.items * written * (context + written / 2)
            return seconds + self._pass(read * self.forward, batches * written)
        kept = rows * (context + written / 2) * cache_bytes(self.model)
        return seconds + batches * written * (self.weights + kept) / self.bandwidth

    def _written(self, task: str, part: _Part) -> float:
        """Tokens that a batch generates; an untrained model may never stop by itself."""
        most = find_task(task).max_new_tokens or DEFAULT_NEW_TOKENS
        return min(most, part.lengths.generated) if self.method.trains else most

    # --- memory ---------------------------------------------------------------------------------

    def _scoring_bytes(self) -> float:
        """Memory of evaluation besides the weights: keys and values, or logits."""
        return max(
            self._scoring_bytes_of(task, part.lengths)
            for task, some in self.scored.items()
            for part in some
        )

    def _scoring_bytes_of(self, task: str, lengths: Lengths) -> float:
        if lengths.generated:
            kept = self._row_bytes(task, lengths) if self.packed else 0
            return self._rows(task, lengths) * (kept + LOGIT_BYTES * vocabulary(self.model))
        return logit_bytes() if lengths.candidates else 0

    def _rows(self, task: str, lengths: Lengths) -> int:
        """Number of rows generated together."""
        from quanta_bench.evaluation.decoding import FEWEST_ROWS, rows_together

        return rows_together(self._row_bytes(task, lengths)) if self.packed else FEWEST_ROWS

    def _row_bytes(self, task: str, lengths: Lengths) -> float:
        """Bytes of the keys and values of the longest row, answer included."""
        most = find_task(task).max_new_tokens or DEFAULT_NEW_TOKENS
        return (lengths.longest + most) * cache_bytes(self.model)


def _part(items: float, lengths: Lengths, most: int, *, scored: bool) -> _Part:
    """Items with their context cut to a maximum length, or split into windows of that length."""
    longest = {"longest": min(lengths.longest, most)}
    if lengths.text:
        windows, window = lengths.in_windows(most, scored=scored)
        return _Part(items * windows, window.model_copy(update=longest))
    context = max(0.0, min(lengths.context, most - lengths.answer))
    return _Part(items, lengths.model_copy(update={"context": context, **longest}))


def assumptions(gpu: Gpu, rows: Sequence[GridRow]) -> list[str]:
    """The assumptions behind the estimates of these rows, as sentences."""
    lengths = "; ".join(line for task in _tasks(rows) for line in _length_lines(*task))
    return [
        f"GPU-hours and memory are estimates per seed of a row on one {gpu.title}: its data "
        f"sheet's {gpu.bfloat16 / 1e12:g} TFLOPS (bfloat16, dense), "
        f"{gpu.bandwidth / 1e9:,.0f} GB/s and {gpu.memory / 1e9:g} GB, "
        f"of which {UTILISATION:.0%} of the arithmetic and of the bandwidth is "
        "assumed to be reached; small models and batches reach less. No run was timed on it; "
        "--gpu names another.",
        "Operations, and what the backward pass keeps, are counted by torch on the model with the "
        "method and without content, for a micro-batch of the longest items; the weights, "
        "gradients and AdamW's moments (in float32 12 bytes a trained parameter) and the logits "
        f"come to it, and {1 - USABLE:.0%} of a GPU's memory is left free. Micro-batches are as "
        f"large as fits; where that would be fewer than {LEAST_TOKENS:,} tokens, activations are "
        "recomputed. A run chooses by the memory that is free.",
        f"Tokens per item, assumed (before the answer + candidates x answer): {lengths}. Means, "
        "measured once with the embedded model's tokenizer; other tokenizers differ.",
    ]


def _tasks(rows: Sequence[GridRow]) -> dict[tuple[str, str], None]:
    """Each task that rows train or score, with its protocol."""
    tasks: dict[tuple[str, str], None] = {}
    for row in rows:
        for training, evaluation in row.jobs[: row.parts]:
            for spec in (training, evaluation):
                tasks |= dict.fromkeys((task, spec.protocol) for task in spec.tasks)
    return tasks


def _length_lines(task: str, protocol: str) -> list[str]:
    known = workloads().get(task.partition(":")[0])
    if known is None:
        return []
    if known.mixture:
        return [f"{task} as the {len(known.mixture)} tasks that it mixes"]
    lengths = known.lengths.get(protocol)
    if lengths is None:
        return []
    answers = f" + {lengths.candidates:g} x {lengths.answer:g}" if lengths.candidates else ""
    where = f" ({known.measured})" if known.measured else ""
    return [f"{task} {lengths.context:g}{answers}{where}"]
