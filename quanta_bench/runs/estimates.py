"""Rough estimates of a run's memory and work from its settings.

They determine how many runs are computed at once and in which order. For more careful estimates of
GPU time, see :mod:`quanta_bench.costs.gpu_hours`.
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
"""Bytes per logit with its log-probability or gradient."""

TRAINED_BYTES = 16
"""Bytes per trained parameter: gradient, AdamW's two moments and the best weights, float32."""

PASSES = 3
"""Work of a training item relative to a scored one: forward, and twice as much backward."""


def peak_memory(run: PlannedRun) -> float | None:
    """Estimated peak memory of a run on a CPU, in bytes; ``None`` if the model is unknown."""
    training = run.training
    try:
        size = _size(training.model)
    except BenchError:
        return None
    # The base's own weights are trained.
    whole = run.method.base_precision == "float32"
    wide = whole or training.precision == "float32"
    total = PROCESS_BYTES + size.parameters * (4 if wide else 2)
    tokens = CPU_EVALUATION_TOKENS
    if run.method.trains:
        # Adapters are small compared with the base.
        total += TRAINED_BYTES * size.parameters * (1.0 if whole else 0.05)
        items = max(1, training.batch_size // training.accumulate)
        # A single item may exceed the budget.
        most = max(CPU_TRAINING_TOKENS, training.max_length)
        tokens = max(tokens, min(items * training.max_length, most))
        total += tokens * size.layers * size.width * KEPT
    return total + tokens * size.vocabulary * LOGIT_BYTES


def work(run: PlannedRun, pools: Pools) -> float:
    """A run's work in units of scored items; training items count for more.

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
        # Training the base's own weights adds the cost of their gradients.
        passes = PASSES + (1 if run.method.base_precision == "float32" else 0)
        total += passes * trained + training.validations * validated
    return total


class DurationEstimator:
    """Predicts the duration of runs from finished runs of the same row.

    Work only counts items; the relative cost of a method's layers is known once it is measured.
    """

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def observe(self, label: str, work: float, result: Result) -> None:
        """Record the duration of a row's finished run."""
        if work > 0:
            self._rates[label] = (result.training.seconds + result.evaluation_seconds) / work

    def seconds(self, label: str, work: float) -> float:
        """Expected seconds of a run; its work if nothing has been measured yet."""
        mean = fmean(self._rates.values()) if self._rates else 1.0
        return work * self._rates.get(label, mean)


class _Size:
    """The sizes of a model used by the estimates."""

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
