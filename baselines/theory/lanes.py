"""Many small trainings at once: a lane each, of one seed, one planted rank and one learning rate.

Every lane has its own base model, adapter, inputs and optimiser state. `torch.func.vmap` runs the
method's own adapted model over all lanes in one pass, and Adam works entry by entry, so lanes do
not touch one another.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim.lr_scheduler import LambdaLR

from baselines.theory.planted import Task
from quanta_bench.method import Method

WARM_UP = 0.05
"""Share of the steps in which the rate rises; then it falls to zero along a cosine."""


class Lane(NamedTuple):
    """One training."""

    seed: int
    rank: int
    rate: float


class Learner:
    """A method on a task.

    Args:
        task: what is learned.
        method: how.
        seeds: all seeds of lanes that will be asked for.
    """

    def __init__(self, task: Task, method: Method[Any], seeds: Sequence[int]) -> None:
        self.task = task
        self.seeds = list(seeds)
        bases = [task.base(_generator(seed, 0)) for seed in seeds]
        self.bare = bases[0]
        self.base = _stacked([dict(base.named_parameters()) for base in bases])
        self.changed = {
            rank: _stacked(
                [
                    task.plant(base, rank, _generator(seed, 1, rank))
                    for seed, base in zip(seeds, bases, strict=True)
                ]
            )
            for rank in task.ranks
        }
        adapted = [
            method.adapt(copy.deepcopy(base), seed) for seed, base in zip(seeds, bases, strict=True)
        ]
        self.model = adapted[0]
        self.trained = _stacked([method.trainable(model) for model in adapted])
        self.fixed = _stacked(
            [
                {
                    name: value
                    for name, value in (*model.named_parameters(), *model.named_buffers())
                    if name not in self.trained
                }
                for model in adapted
            ]
        )
        self.parameters = sum(value[0].numel() for value in self.trained.values())

    def errors(self, lanes: Sequence[Lane], steps: int) -> dict[Lane, float]:
        """Train every lane and measure it on test inputs.

        Returns:
            The relative error left, ``|f - f'| / |f_0 - f'|`` with f' the changed model and f_0
            the base; infinite where training diverged.
        """
        lanes = sorted(lanes, key=lambda lane: lane.rate)
        at = torch.tensor([self.seeds.index(lane.seed) for lane in lanes])
        fixed = {name: value[at] for name, value in self.fixed.items()}
        base = {name: value[at] for name, value in self.base.items()}
        teacher = base | {
            name: torch.stack(
                [self.changed[lane.rank][name][i] for lane, i in zip(lanes, at, strict=True)]
            )
            for name in next(iter(self.changed.values()))
        }
        groups = []
        for rate in dict.fromkeys(lane.rate for lane in lanes):
            own = torch.tensor([i for lane, i in zip(lanes, at, strict=True) if lane.rate == rate])
            values = {name: value[own].requires_grad_() for name, value in self.trained.items()}
            groups.append((rate, values))
        optimizer = torch.optim.Adam(
            [{"params": list(values.values()), "lr": rate} for rate, values in groups]
        )
        schedule = LambdaLR(optimizer, lambda step: _factor(step / steps))
        streams = [_generator(seed, 2) for seed in self.seeds]
        for _ in range(steps):
            x = torch.stack([self.task.inputs(self.task.batch, stream) for stream in streams])[at]
            with torch.no_grad():
                wanted = _apply(self.bare, teacher, x)
            optimizer.zero_grad()
            found = _apply(self.model, _joined(groups) | fixed, x)
            loss: Any = (found - wanted).square().flatten(1).mean(1).sum()
            loss.backward()
            optimizer.step()
            schedule.step()
        tests = [self.task.inputs(self.task.test, _generator(seed, 3)) for seed in self.seeds]
        x = torch.stack(tests)[at]
        with torch.no_grad():
            wanted = _apply(self.bare, teacher, x)
            left = _norm(_apply(self.model, _joined(groups) | fixed, x) - wanted)
            whole = _norm(_apply(self.bare, base, x) - wanted)
        errors = (left / whole).tolist()
        return {
            lane: error if math.isfinite(error) else math.inf
            for lane, error in zip(lanes, errors, strict=True)
        }


def _apply(model: nn.Module, values: dict[str, Tensor], x: Tensor) -> Tensor:
    def one(own: dict[str, Tensor], vectors: Tensor) -> Any:
        return functional_call(model, own, (vectors,))

    result: Tensor = vmap(one)(values, x)
    return result


def _joined(groups: Sequence[tuple[float, dict[str, Tensor]]]) -> dict[str, Tensor]:
    return {name: torch.cat([values[name] for _, values in groups]) for name in groups[0][1]}


def _stacked(parts: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name].detach() for part in parts]) for name in parts[0]}


def _norm(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1).double(), dim=1)
    return norms


def _factor(done: float) -> float:
    return min(1.0, (done + 0.005) / WARM_UP) * (1 + math.cos(math.pi * done)) / 2


def _generator(seed: int, *what: int) -> torch.Generator:
    """A stream of random numbers of its own for each seed and purpose."""
    number = seed
    for part in what:
        number = number * 1009 + part + 1
    return torch.Generator().manual_seed(number)
