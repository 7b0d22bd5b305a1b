"""Fit a run's micro-batches into the memory that is free on its GPU, before the run starts."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from quanta_bench.costs.footprints import Footprints, Shape
from quanta_bench.costs.memory import USABLE, fit, optimizer_bytes, weight_bytes
from quanta_bench.data.encoding import Encoded
from quanta_bench.errors import BenchError
from quanta_bench.method import Method
from quanta_bench.models.meta import Counts, layers_of, outside_layers
from quanta_bench.spec import TrainingSpec, meta_reference
from quanta_bench.training.datamodule import BenchData

ROUNDING = 32
"""Lengths are rounded up to multiples of this, so that runs share measurements."""


@cache
def _known() -> tuple[Footprints, Counts]:
    """What this process has measured, for all its runs."""
    return Footprints(), Counts()


def fit_to_memory(
    data: BenchData,
    spec: TrainingSpec,
    method: Method[Any],
    *,
    free: int,
    wide: bool,
    mixed: bool,
    shards: int = 1,
) -> None:
    """Set the size of the micro-batches, and whether activations are recomputed, on ``data``.

    What cannot be predicted, such as a model whose configuration is not known without its weights,
    leaves ``data`` as it is; what does not fit after all is cut when memory runs out
    (:meth:`quanta_bench.training.module.FineTuning.training_step`).

    Args:
        data: the run's batches.
        spec: the training spec.
        method: the method.
        free: bytes that are free on the device, where nothing of the run is yet.
        wide: whether the base's weights are float32, not bfloat16.
        mixed: whether arithmetic is in bfloat16.
        shards: over how many devices the frozen weights are spread
            (:mod:`quanta_bench.models.sharding`).
    """
    footprints, counts = _known()
    model = meta_reference(spec.model)
    try:
        count = counts.get(model, spec.method, spec.settings)
        weights = weight_bytes(
            count.base if shards == 1 else _held(model, count.base, shards),
            count.added,
            wide=wide,
            quantization=spec.quantization,
            outside=outside_layers(model),
        )
        taken = weights + optimizer_bytes(spec.optimizer, count.trainable)
        measured = partial(
            footprints.get, model, method, precision="bfloat16" if mixed else "float32"
        )
        most = longest_micro_batch(data)
        room = USABLE * free - taken
        found = fit(measured, most, room, recompute=spec.gradient_checkpointing)
    except BenchError:
        return
    data.tokens = min(data.tokens, found.items * data.longest)
    data.recomputed = found.recomputed
    data.predicted_bytes = round(taken + found.activation_bytes)


def _held(model: str, base: int, shards: int) -> int:
    """Frozen weights of a sharded model that one device holds: its part, what is not spread
    (embeddings and output layer), the block that is computed and the one gathered ahead.
    """
    outside = outside_layers(model)
    within = base - outside
    return min(base, outside + within // shards + 2 * within // layers_of(model))


def longest_micro_batch(data: BenchData) -> Shape:
    """The largest micro-batch of a budget, if all items were as long as the longest."""
    longest = max(data.train_items, key=lambda item: item.cost(data.train_packed))
    items = max(1, min(data.most_items, data.tokens // data.longest))
    if not isinstance(longest, Encoded):
        return Shape(items, _rounded(data.longest), 0, 0)
    return Shape(
        items,
        _rounded(max(map(len, longest.contexts))),
        len(longest.candidates),
        max(map(len, longest.candidates)),
        packed=data.train_packed and longest.shared,
    )


def _rounded(length: int) -> int:
    return -(-length // ROUNDING) * ROUNDING
