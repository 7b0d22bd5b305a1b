"""Rough estimates of a run's memory and work, from its settings alone.

They decide how many runs are computed at once and in which order. GPU time is estimated with more
care in :mod:`quanta_bench.costs.gpu_hours`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import fmean

from quanta_bench.data.loader import CPU_EVALUATION_TOKENS, CPU_TRAINING_TOKENS
from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.results.records import Result
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.spec import ModelSpec
from quanta_bench.task import Split

PROCESS_BYTES = 1.0e9
"""Interpreter, libraries and data of a process."""

KEPT = 34
"""Numbers that a layer keeps for the backward pass, a token and a unit of its width, in 16 bits:
Korthikanti et al. 2022, arXiv:2205.05198, without the attention matrix."""

LOGIT_BYTES = 10
"""Bytes of a logit with its logarithm of probability or its gradient."""

TRAINED_BYTES = 16
"""Gradient, AdamW's two moments and the weights that are kept as the best, in float32."""

PASSES = 3
"""Work of a training item in that of a scored one: forward, and twice as much backward."""


def peak_memory(run: PlannedRun) -> float | None:
    """Bytes that a run takes at its peak on a processor; ``None`` where the model is not known."""
    training = run.training
    try:
        size = _size(training.model)
    except BenchError:
        return None
    # Its own weights are trained.
    whole = run.method.base_precision == "float32"
    wide = whole or training.precision == "float32"
    total = PROCESS_BYTES + size.parameters * (4 if wide else 2)
    tokens = CPU_EVALUATION_TOKENS
    if run.method.trains:
        # Adapters are small beside the base.
        total += TRAINED_BYTES * size.parameters * (1.0 if whole else 0.05)
        items = max(1, training.batch_size // training.accumulate)
        # A single item may be over the budget.
        most = max(CPU_TRAINING_TOKENS, training.max_length)
        tokens = max(tokens, min(items * training.max_length, most))
        total += tokens * size.layers * size.width * KEPT
    return total + tokens * size.vocabulary * LOGIT_BYTES


def work(run: PlannedRun, pools: Pools) -> float:
    """A run's work in scored items, training items counted for what they take.

    Raises:
        BenchError: the items cannot be read.
    """
    training, evaluation = run.training, run.evaluation

    def items(tasks: Sequence[str], source: str, split: Split, count: int | None) -> int:
        sizes = [len(pools.get(task, source, split).examples) for task in tasks]
        return sum(size if count is None else min(size, count) for size in sizes)

    total = float(items(evaluation.tasks, evaluation.source, evaluation.split, evaluation.items))
    if run.method.trains:
        source, tasks = training.source, training.tasks
        trained = training.epochs * items(tasks, source, "train", training.train_items)
        validated = items(tasks, source, "validation", training.validation_items)
        # Its own weights, in float32, cost a gradient each.
        passes = PASSES + (1 if run.method.base_precision == "float32" else 0)
        total += passes * trained + training.validations * validated
    return total


class DurationEstimator:
    """How long runs will take, from how long finished runs of the same row took for their work.

    Work counts items; what a method's own layers cost beside another's is only known once measured.
    """

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def observe(self, label: str, work: float, result: Result) -> None:
        """Use what a row's finished run took."""
        if work > 0:
            self._rates[label] = (result.training.seconds + result.evaluation_seconds) / work

    def seconds(self, label: str, work: float) -> float:
        """What a run is expected to take; its work as long as nothing is measured."""
        mean = fmean(self._rates.values()) if self._rates else 1.0
        return work * self._rates.get(label, mean)


class _Size:
    """The sizes of a model that enter the estimate."""

    def __init__(self, name: str) -> None:
        from quanta_bench.models.meta import layers_of, meta_model, vocabulary, width_of

        self.parameters = sum(value.numel() for value in meta_model(name).parameters())
        self.layers = layers_of(name)
        self.width = width_of(name)
        self.vocabulary = vocabulary(name)


@cache
def _size(model: ModelSpec) -> _Size:
    from quanta_bench.spec import meta_reference

    return _Size(meta_reference(model))
