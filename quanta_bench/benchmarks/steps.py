"""Single training steps, for comparisons that do not need a whole training run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from quanta_bench.benchmarks.materials import Materials
from quanta_bench.method import Method
from quanta_bench.spec import TrainingSpec
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.objectives import accumulate_gradients

Step = Callable[[], object]


def collated(data: BenchData, device: torch.device) -> list[list[Any]]:
    """A run's batches as micro-batches, in the order of its loader."""
    return [
        [micro_batch.to(device) for micro_batch in data.micro_batches(batch)]
        for interval in data.intervals
        for batch in interval
    ]


def stepper(
    model: nn.Module,
    method: Method[Any],
    spec: TrainingSpec,
    data: BenchData,
    batches: Sequence[Sequence[Any]],
    materials: Materials,
) -> Step:
    """A function that takes the next optimiser step, cycling through the batches.

    A step is what a run does without its bookkeeping: forward and backward passes over the
    micro-batches, gradient clipping, AdamW.

    Args:
        model: the adapted model.
        method: the method that adapted it.
        spec: learning rate, weight decay and clipping norm.
        data: gives the objective.
        batches: each step's micro-batches.
        materials: gives the precision.
    """
    parameters = list(method.trainable(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    cycle: Iterator[Sequence[Any]] = itertools.cycle(batches)

    def step() -> None:
        with materials.autocast():
            accumulate_gradients(data.objective, model, next(cycle))
        torch.nn.utils.clip_grad_norm_(parameters, spec.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()

    return step
