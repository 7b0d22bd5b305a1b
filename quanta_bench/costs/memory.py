"""Fit a training into a device's memory: micro-batches, and whether activations are recomputed.

Neither changes what is computed but for rounding, so neither belongs to a run's identity. The plan
of a table chooses for a GPU of a data sheet, a run for the memory that is free on its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from quanta_bench.costs.footprints import Footprint, Shape
from quanta_bench.errors import UsageError
from quanta_bench.spec import Optimizer, Quantization

USABLE = 0.9
"""Fraction of free memory available to tensors; fragmentation and libraries take the rest."""

LEAST_TOKENS = 512
"""Tokens of a micro-batch for which activations are kept rather than recomputed.

Smaller ones lose more to launches and to reading weights than the third of a pass more that
recomputation costs.
"""

WEIGHT_BYTES = 4
GRADIENT_BYTES = 4
MOMENT_BYTES: dict[Optimizer, int] = {"adamw": 8, "adamw-8bit": 2}
"""Bytes of AdamW's two moments for each trained parameter."""


QUANTIZED_BYTES: dict[Quantization, float] = {"nf4": 0.5 + 4 / 64}
"""Bytes of a quantised weight, with the float32 scale of each 64."""


def weight_bytes(
    base: int,
    added: int,
    *,
    wide: bool,
    quantization: Quantization = "none",
    outside: int = 0,
) -> int:
    """Bytes of an adapted model: its base's weights, and the added parameters in float32.

    Args:
        base: parameters of the base.
        added: parameters that the method adds.
        wide: whether the base's are float32, not bfloat16.
        quantization: of the base.
        outside: parameters of the base that are never quantised: embedding and output layer.
    """
    plain = 4 if wide else 2
    within = QUANTIZED_BYTES.get(quantization, plain)
    return round(within * (base - outside)) + plain * outside + 4 * added


def step_bytes(optimizer: Optimizer, trainable: int) -> int:
    """Bytes that a step reads and writes: a weight and its moments both, its gradient once."""
    return (2 * WEIGHT_BYTES + GRADIENT_BYTES + 2 * MOMENT_BYTES[optimizer]) * trainable


def optimizer_bytes(optimizer: Optimizer, trainable: int) -> int:
    """Bytes of the gradients and of the optimiser's moments."""
    return (GRADIENT_BYTES + MOMENT_BYTES[optimizer]) * trainable


@dataclass(frozen=True)
class Fit:
    """How a training's micro-batches are computed.

    Attributes:
        items: items of a micro-batch, if all are as long as the longest; at least one.
        recomputed: whether activations are computed again in the backward pass.
        activation_bytes: what is kept for the backward pass at its peak.
        fits: whether that is within the room.
    """

    items: int
    recomputed: bool
    activation_bytes: float
    fits: bool


class Measured(Protocol):
    """:meth:`quanta_bench.costs.footprints.Footprints.get` of a model, a method and a precision."""

    def __call__(self, shape: Shape, *, recomputed: bool) -> tuple[Footprint, Footprint]:
        """The footprint of the whole model, and that of each layer after the first."""


def logit_bytes() -> float:
    """Bytes of the logits held at a time on a GPU, in float32 and in bfloat16."""
    from quanta_bench.models.chunked_log_softmax import OTHER_LOGIT_BYTES

    return 1.5 * OTHER_LOGIT_BYTES


def activation_bytes(measured: Measured, shape: Shape, *, recomputed: bool) -> float:
    """Bytes kept at the peak of a micro-batch's backward pass."""
    kept = measured(shape, recomputed=recomputed)[0].kept
    if recomputed:
        # One layer at a time is computed again, and its activations kept.
        kept += measured(shape, recomputed=False)[1].kept
    return kept + (logit_bytes() if shape.predicted else 0)


def fit(measured: Measured, most: Shape, room: float, *, recompute: bool = False) -> Fit:
    """The largest micro-batches that fit, with activations kept if these are large enough.

    Args:
        measured: what a micro-batch of a shape keeps; affine in the number of its items.
        most: the largest micro-batch, all of whose items are as long as the longest.
        room: bytes for activations.
        recompute: never keep them.

    Raises:
        UsageError: nothing works.
    """
    found: list[Fit] = []
    for recomputed in (True,) if recompute else (False, True):
        try:
            found.append(_largest(measured, most, room, recomputed))
        except UsageError:
            # Some methods cannot recompute.
            if not found:
                raise
        enough = min(most.items, math.ceil(LEAST_TOKENS / replace(most, items=1).fed))
        if found[-1].fits and found[-1].items >= enough:
            return found[-1]
    fitting = [one for one in found if one.fits]
    # What keeps least comes nearest to fitting, and may, where the estimate is too high.
    return max(fitting, key=lambda one: one.items) if fitting else found[-1]


def _largest(measured: Measured, most: Shape, room: float, recomputed: bool) -> Fit:
    whole = activation_bytes(measured, most, recomputed=recomputed)
    if whole <= room:
        return Fit(most.items, recomputed, whole, True)
    least = activation_bytes(measured, replace(most, items=1), recomputed=recomputed)
    if least > room or most.items == 1:
        return Fit(1, recomputed, least, False)
    each = (whole - least) / (most.items - 1)
    count = 1 + int((room - least) / each)
    return Fit(count, recomputed, least + (count - 1) * each, True)
