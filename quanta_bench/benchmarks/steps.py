"""A training step by itself, for comparisons that need not run a whole training."""

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
    """A training's batches as micro-batches, as its loader has them, in its order."""
    return [
        [one.to(device) for one in data.micro_batches(batch)]
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
    """A function that does the next optimiser step, over and over through the batches.

    Forward and backward of a step's micro-batches, the gradient's norm clipped, AdamW: what a run
    does, without its bookkeeping.

    Args:
        model: the adapted model.
        method: the method that adapted it.
        spec: the learning rate, the weight decay and the bound on the norm.
        data: the objective.
        batches: each step's batch, in micro-batches.
        materials: the precision.
    """
    parameters = list(method.trainable(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    endless: Iterator[Sequence[Any]] = itertools.cycle(batches)

    def step() -> None:
        with materials.autocast():
            accumulate_gradients(data.objective, model, next(endless))
        torch.nn.utils.clip_grad_norm_(parameters, spec.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()

    return step
