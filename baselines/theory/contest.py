"""Methods of nearly equal size on tasks whose needed update has a known rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from baselines.full import FullFineTuning
from baselines.krona import Krona
from baselines.lora import Lora
from baselines.loretta import LorettaRep
from baselines.mora import Mora
from baselines.quanta.method import Quanta
from baselines.theory.lanes import Lane, Learner
from baselines.theory.planted import TASKS, LinearMap, Task
from quanta_bench.experiment import (
    Conditions,
    Curve,
    Outcome,
    Panel,
    Point,
    UsageError,
)
from quanta_bench.method import Method

LORA_RANK = 6


class Contender(NamedTuple):
    """A method at its size; ``targets`` says whether it takes names of modules."""

    title: str
    method: type[Method[Any]]
    settings: Mapping[str, Any]
    targets: bool = True


CONTENDERS = (
    Contender("QuanTA 4-4-4", Quanta, {"dims": (4, 4, 4)}),
    Contender(f"LoRA r={LORA_RANK}", Lora, {"r": LORA_RANK}),
    Contender("KronA 32", Krona, {"side": 32}),
    Contender("MoRA r=6", Mora, {"r": 6}),
    Contender("LoRETTA rank 4", LorettaRep, {"rank": 4, "bottleneck": 64, "start": "zero"}),
    Contender("Full fine-tuning", FullFineTuning, {}, targets=False),
)

SEEDS = tuple(range(10))
TUNING_SEEDS = (1001, 1002)
RATES = (-6, -5, -4, -3, -2)
"""Half decades: 1e-3 to 1e-1. Where the best is at an end, the next one beyond is tried."""
FARTHEST = 12


def contest(conditions: Conditions) -> Outcome:
    """Tune every method at every rank on seeds of their own, then train and test.

    Raises:
        UsageError: a seed is among those of tuning.
    """
    seeds = conditions.seeds or conditions.choose(SEEDS, quick=SEEDS[:2])
    if set(seeds) & set(TUNING_SEEDS):
        raise UsageError(
            f"The seeds {', '.join(map(str, TUNING_SEEDS))} choose the learning rates; give others."
        )
    panels = []
    for task in TASKS:
        curves = []
        for contender in CONTENDERS:
            conditions.tell(f"{task.title}: {contender.title}")
            curves.append(measure(task, contender, seeds, conditions))
        if isinstance(task, LinearMap):
            curves.append(best_low_rank(task, seeds, ranks_of(task, conditions)))
        panels.append(Panel(task.title, tuple(curves)))
    return Outcome(
        panels,
        across="rank k of the planted change",
        upward="relative error left, test inputs",
        caption=(
            f"Means and 95 % intervals (t) over {len(seeds)} seeds; an error of 1 is the base "
            "model's. In brackets: trained parameters. Adam, "
            f"{' and '.join(str(steps_of(task, conditions)) for task in TASKS)} steps, learning "
            "rates half a decade apart, chosen for each method and rank on "
            f"{len(_tuning(conditions))} other seeds: {_rates(panels)}. "
            f"Dotted: the nearest matrix of rank {LORA_RANK}."
        ),
        notes=[
            "Planted changes are products of random Gaussian factors, scaled to half of the "
            "weight's Frobenius norm, whatever their rank.",
            "The rate warms up and falls to zero along a cosine; inputs are new at each step.",
            "KronA has sizes of 128, 272 and 1,028 at this width; the nearest above the "
            "others' is shown.",
            "Full fine-tuning trains every weight, also those that were not changed.",
            "The dotted line is the best that any matrix of LoRA's rank can do (Eckart and "
            "Young 1936).",
        ],
    )


def measure(
    task: Task, contender: Contender, seeds: tuple[int, ...], conditions: Conditions
) -> Curve:
    """A method's errors at every rank, each at its own tuned learning rate."""
    settings = dict(contender.settings)
    if contender.targets:
        settings["target_modules"] = task.targets
    method = contender.method.from_settings(settings)
    threads = torch.get_num_threads()
    tuning = _tuning(conditions)
    learner = Learner(task, method, [*seeds, *tuning])
    ranks = ranks_of(task, conditions)
    steps = steps_of(task, conditions)
    try:
        # Products of this size are no faster with more threads.
        torch.set_num_threads(min(threads, 2))
        best = tune(learner, ranks, tuning, steps, grows=not conditions.quick)
        lanes = [Lane(seed, rank, rate_of(best[rank])) for rank in ranks for seed in seeds]
        errors = learner.errors(lanes, steps)
    finally:
        torch.set_num_threads(threads)
    points = [
        Point(
            rank,
            tuple(errors[lane] for lane in lanes if lane.rank == rank),
            f"learning rate {rate_of(best[rank]):.2g}",
        )
        for rank in ranks
    ]
    return Curve(contender.title, f"{learner.parameters:,}", tuple(points))


def tune(
    learner: Learner, ranks: tuple[int, ...], seeds: tuple[int, ...], steps: int, *, grows: bool
) -> dict[int, int]:
    """The best rate of each rank, in half decades, with worse ones on both sides of it."""
    tried: dict[tuple[int, int], float] = {}
    missing = [(rank, place) for rank in ranks for place in RATES]
    while True:
        lanes = [Lane(seed, rank, rate_of(place)) for rank, place in missing for seed in seeds]
        errors = learner.errors(lanes, steps)
        for rank, place in missing:
            own = [errors[Lane(seed, rank, rate_of(place))] for seed in seeds]
            tried[rank, place] = float(np.mean(np.log(own)))
        best, missing = {}, []
        for rank in ranks:
            places = sorted(place for one, place in tried if one == rank)
            best[rank] = min(places, key=lambda place: tried[rank, place])
            if best[rank] in (places[0], places[-1]):
                beyond = best[rank] + (1 if best[rank] == places[-1] else -1)
                if abs(beyond) <= FARTHEST:
                    missing.append((rank, beyond))
        if not missing or not grows:
            return best


def rate_of(place: int) -> float:
    """10^(place / 2), rounded as rates are written: 1e-3, 3.2e-3, 1e-2."""
    return float(f"{10 ** (place / 2):.1e}")


def _tuning(conditions: Conditions) -> tuple[int, ...]:
    return TUNING_SEEDS[: conditions.choose(2, quick=1)]


def _rates(panels: list[Panel]) -> str:
    """The least and the largest rate chosen, by method."""
    chosen: dict[str, list[float]] = {}
    for panel in panels:
        for curve in panel.curves:
            rates = [
                float(point.setting.rpartition(" ")[2]) for point in curve.points if point.setting
            ]
            chosen.setdefault(curve.name, []).extend(rates)
    return ", ".join(
        f"{name} {min(rates):g} to {max(rates):g}"
        if min(rates) < max(rates)
        else f"{name} {rates[0]:g}"
        for name, rates in chosen.items()
        if rates
    )


def ranks_of(task: Task, conditions: Conditions) -> tuple[int, ...]:
    """The ranks planted: all of the task's, or its first and last."""
    return conditions.choose(task.ranks, quick=(task.ranks[0], task.ranks[-1]))


def steps_of(task: Task, conditions: Conditions) -> int:
    """Steps of training: the task's, or a few."""
    return conditions.choose(task.steps, quick=20)


def best_low_rank(task: Task, seeds: tuple[int, ...], ranks: tuple[int, ...]) -> Curve:
    """The relative distance of a planted change from the nearest matrix of LoRA's rank."""
    points = []
    learner = Learner(task, FullFineTuning.from_settings({}), seeds)
    for rank in ranks:
        values = []
        for name, changed in learner.changed[rank].items():
            spectra = torch.linalg.svdvals((changed - learner.base[name]).double())
            rest = spectra[:, LORA_RANK:].norm(dim=1) / spectra.norm(dim=1)
            values = [0.0 if rank <= LORA_RANK else value for value in rest.tolist()]
        points.append(Point(rank, tuple(values)))
    return Curve(f"best of rank {LORA_RANK}", "", tuple(points), reference=True)
