"""Our training run against ``transformers.Trainer`` with ``peft`` and its default collator.

Both train LoRA r=8 on the same real items of Table 3's mixture, as language modelling of the right
answer, with the same model, batch size, optimizer, schedule and base dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from quanta_bench.bench.turns import EndPart, take_turns
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
from quanta_bench.benchmarks import reference
from quanta_bench.benchmarks.materials import (
    Materials,
    adapted,
    lengths,
    make,
    parts,
    resolve_arithmetic,
    row_settings,
    scratch,
)
from quanta_bench.benchmarks.padding import padding
from quanta_bench.data.pools import Pools
from quanta_bench.models.capabilities import can_pack
from quanta_bench.spec import TrainingSpec
from quanta_bench.timing import in_own_process, memory_ratio, peak_above, speed_ratio
from quanta_bench.training import trainer as training
from quanta_bench.training.datamodule import BenchData

METHOD = "lora"
OURS = "ours"
THEIRS = "Trainer + peft"
GROUPED = "Trainer + peft, grouped by length"
PARTS = 10
Tell = Callable[[str], None]


class Training(Benchmark):
    """Speed of whole runs, peak memory, and the loss curve."""

    name = "training"
    title = "our training run against transformers.Trainer + peft, LoRA r=8, right answers"
    reads = True
    place = 10

    def run(self, conditions: Conditions) -> Outcome:
        """Interleaved whole runs and, unless quick, loss curves and peak memory; padding."""
        materials = Materials.of(conditions)
        cases = [speed(materials, conditions.choose(50, quick=4), conditions.tell)]
        if not conditions.quick:
            cases.append(curve(materials, 20, conditions.tell))
            cases.append(memory(materials, 16, conditions.tell))
        conditions.tell("counting padding")
        cases.append(padding(materials))
        return Outcome(cases=cases)


def answers(materials: Materials, items: int, **values: Any) -> TrainingSpec:
    """Training on the right answers of ``items`` items per task.

    There is no warm-up: ``Trainer`` starts its own at a learning rate of zero.
    """
    overrides = {"loss": "answer", "accumulate": 1, "warmup": 0.0}
    return materials.spec(METHOD, row_settings(METHOD), train_items=items, **overrides, **values)


class Ours:
    """Our training run, set up as the runner does it.

    Args:
        materials: model and data.
        spec: the training spec.
        dtype: dtype of the base.
    """

    def __init__(self, materials: Materials, spec: TrainingSpec, dtype: torch.dtype) -> None:
        base = materials.load(dtype)
        packed = can_pack(base.model)
        self.method = make(METHOD)
        self.spec = spec
        self.device = materials.device
        self.precision = resolve_arithmetic(dtype)
        self.model = adapted(base, self.method, self.device)
        self.data = BenchData(spec, Pools(), base.tokenizer, packed=packed)

    def run(self, advance: Callable[[int, int], None] = lambda done, steps: None) -> Any:
        """Train to the end."""
        with scratch() as folder:
            return training.train(
                self.model,
                self.method,
                self.spec,
                self.data,
                folder,
                device=self.device,
                precision=self.precision,
                advance=advance,
            )


def speed(materials: Materials, items_a_task: int, tell: Tell) -> Case:
    """Tokens per second, without padding, of whole runs interleaved part by part."""
    tell("speed: loading models, choosing Trainer's precision")
    spec = answers(materials, items_a_task)
    ours = Ours(materials, spec, materials.dtype)
    items = ours.data.train_items
    autocast = reference.faster_with_autocast(materials, items, spec)
    steps = -(-len(items) // spec.batch_size)
    number = min(PARTS, steps, ours.data.steps)
    # The tokens of a part depend on each side's order; the totals, which are compared, agree.
    tokens = lengths(items) / number
    ends = parts(ours.data.steps, number)

    def our_run(end_part: EndPart) -> None:
        completed: list[int] = []

        def advance(step: int, steps: int) -> None:
            if step in ends and step not in completed:
                completed.append(step)
                end_part(tokens)
                tell(f"speed: {step} of {steps} steps of each side")

        ours.run(advance)

    sides: dict[str, Callable[[EndPart], object]] = {OURS: our_run}
    for name, by_length in {THEIRS: False, GROUPED: True}.items():
        trainer = reference.trainer(
            materials, items, spec, materials.dtype, grouped=by_length, autocast=autocast
        )
        trainer.add_callback(reference.Parts(parts(steps, number), tokens))
        sides[name] = partial(reference.run, trainer)
    timed = take_turns(sides, unit="tokens")
    first, plain, grouped = timed
    return Case(
        title=f"{len(items)} items, {materials.precision['base']}",
        sides=timed,
        findings=[
            speed_ratio(first, plain, by="total", target=at_least(2.0)),
            speed_ratio(first, grouped, by="total"),
        ],
        notes=[
            "Trainer runs with bfloat16 autocast, which was faster here."
            if autocast
            else "Trainer runs without autocast, which was faster here."
        ],
    )


def memory(materials: Materials, items_a_task: int, tell: Tell) -> Case:
    """Peak memory above the loaded model, each side in its own process."""
    peaks = {}
    for name, measure in {OURS: our_peak, THEIRS: their_peak}.items():
        tell(f"memory: {name}")
        peaks[name] = Side(name=name, peak_bytes=in_own_process(measure, materials, items_a_task))
    return Case(
        title=f"above the loaded model, {materials.precision['base']}",
        sides=list(peaks.values()),
        findings=[memory_ratio(peaks[OURS], peaks[THEIRS], target=at_most(0.7))],
    )


def our_peak(materials: Materials, items: int) -> int:
    """Peak bytes above the loaded model of our run on ``items`` items per task."""
    return peak_above(Ours(materials, answers(materials, items), materials.dtype).run)


def their_peak(materials: Materials, items: int) -> int:
    """Peak bytes above the loaded model of Trainer's run."""
    spec = answers(materials, items)
    data = BenchData(spec, Pools(), materials.tokenizer(), packed=False)
    trainer = reference.trainer(materials, data.train_items, spec, materials.dtype)
    return peak_above(trainer.train)


def curve(materials: Materials, items_a_task: int, tell: Tell) -> Case:
    """Losses of both sides in float32, on the same batches and from the same initial weights."""
    tell("loss curves in float32")
    spec = answers(materials, items_a_task, precision="float32")
    ours = Ours(materials, spec, torch.float32)
    start = {name: value.detach().clone() for name, value in trained(ours.model)}
    batches = [batch for interval in ours.data.intervals for batch in interval]
    losses = ours.run().losses
    trainer = reference.trainer(
        materials, [item for batch in batches for item in batch], spec, torch.float32, in_order=True
    )
    theirs = reference.losses(trainer, start)
    return Case(
        title=f"loss of {len(losses)} steps, float32",
        findings=[
            Finding(
                title="largest relative difference of losses",
                value=largest_difference(losses, theirs),
                target=at_most(1e-3),
                ratio=False,
            )
        ],
    )


def trained(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """The trainable parameters with their names."""
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]


def largest_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest relative difference; infinite if the numbers of losses differ."""
    if len(ours) != len(theirs):
        return float("inf")
    left, right = np.asarray(ours), np.asarray(theirs)
    return float((np.abs(left - right) / np.abs(right)).max())
