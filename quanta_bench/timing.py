"""Interleaved wall-time measurements, their ratios, and peak memory in a separate process.

A machine's speed drifts by more than the differences to be measured. So the sides run in turn,
round by round, and a ratio compares times from the same rounds.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy import stats

from quanta_bench.benchmark import Finding, Side, Target
from quanta_bench.utils.device import peak_memory, reset_peak_memory
from quanta_bench.utils.processes import in_own_process
from quanta_bench.utils.quiet import without_collection

__all__ = [
    "in_own_process",
    "interleave",
    "median_ratio",
    "memory_ratio",
    "peak_above",
    "seconds_of",
    "speed_ratio",
    "synchronize",
    "time_ratio",
    "total_ratio",
]

RESAMPLES = 2000
COVERAGE = 0.95


def synchronize() -> None:
    """Wait until the GPU, if there is one, has finished all queued work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], calls: int = 1) -> float:
    """Mean wall time of ``calls`` consecutive calls, GPU work included."""
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize()
    return (time.perf_counter() - start) / calls


def interleave(
    sides: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    least: float = 0.0,
    work: float | Sequence[float] = (),
    unit: str = "",
) -> list[Side]:
    """Time several ways to do the same work, alternating between them.

    In each round every side is timed once, in a fresh random order (the same in every call of this
    function), so that no side always follows the same other one. Garbage is collected only between
    rounds.

    Args:
        sides: the functions to call, by name.
        rounds: samples per side.
        warmup: rounds run first and not counted; at least one if ``least`` is given.
        least: minimum duration of a sample of the fastest side, in seconds. As many calls as that
            takes are timed together, equally many for each side; the sample is their mean.
        work: amount of work per call, in ``unit``: one number, or one for each round.
        unit: the unit of work.

    Returns:
        The sides, in the given order.
    """
    names = list(sides)
    amounts = [float(work)] * rounds if isinstance(work, (int, float)) else list(map(float, work))
    fastest = float("inf")
    for _ in range(max(warmup, 1) if least else warmup):
        fastest = min(map(seconds_of, sides.values()))
    calls = max(1, math.ceil(least / fastest)) if least else 1
    order = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        gc.collect()
        with without_collection():
            for name in order.sample(names, len(names)):
                seconds[name].append(seconds_of(sides[name], calls))
    return [Side(name=name, seconds=seconds[name], work=amounts, unit=unit) for name in names]


def time_ratio(
    of: Side,
    over: Side,
    *,
    target: Target | None = None,
    by: Literal["median", "total"] = "median",
    title: str = "",
) -> Finding:
    """The ratio of two sides' times for the same work.

    Args:
        of: the numerator.
        over: the denominator, timed in the same rounds.
        target: the bound that the ratio should satisfy.
        by: ``median`` of the rounds' ratios, or the ratio of the ``total`` times, which suits
            rounds that are parts of one long run.
        title: replaces ``"time, OF / OVER"``.

    Returns:
        The ratio with a 95 % interval, bootstrapped over rounds.

    Raises:
        ValueError: the sides have different numbers of samples, or none.
    """
    work, other_work = _amounts(of), _amounts(over)
    costs = np.asarray(of.seconds) / work, np.asarray(over.seconds) / other_work
    if by == "median":
        value, low, high = median_ratio(*costs)
    else:
        value, low, high = total_ratio(
            (np.asarray(of.seconds), work), (np.asarray(over.seconds), other_work)
        )
    title = title or f"time, {of.name} / {over.name}"
    return Finding(title=title, value=value, low=low, high=high, target=target)


def speed_ratio(
    of: Side,
    over: Side,
    *,
    target: Target | None = None,
    by: Literal["median", "total"] = "median",
    title: str = "",
) -> Finding:
    """The ratio of two sides' speeds; the arguments are those of :func:`time_ratio`."""
    unit = of.unit or over.unit
    title = title or f"{unit + '/s' if unit else 'speed'}, {of.name} / {over.name}"
    return time_ratio(over, of, target=target, by=by, title=title)


def memory_ratio(of: Side, over: Side, *, target: Target | None = None, title: str = "") -> Finding:
    """The ratio of two sides' peak memory.

    Raises:
        ValueError: a side's peak was not measured.
    """
    if of.peak_bytes is None or not over.peak_bytes:
        raise ValueError(f"memory_ratio: no peak of {of.name} or of {over.name}")
    title = title or f"peak memory, {of.name} / {over.name}"
    return Finding(title=title, value=of.peak_bytes / over.peak_bytes, target=target)


def _amounts(side: Side) -> Any:
    return np.asarray(side.work or [1.0] * len(side.seconds))


def median_ratio(of: Any, over: Any) -> tuple[float, float, float]:
    """The median of paired ratios, with its 95 % bootstrap interval over pairs.

    Args:
        of: (rounds,) numerators.
        over: (rounds,) denominators of the same rounds.

    Returns:
        The median and the interval's lower and upper end.

    Raises:
        ValueError: the samples are empty or differ in number.
    """
    return _bootstrap(lambda a, b, axis: np.median(a / b, axis=axis), of, over)


def total_ratio(of: tuple[Any, Any], over: tuple[Any, Any]) -> tuple[float, float, float]:
    """The ratio of total seconds per unit of work, with its 95 % bootstrap interval.

    Args:
        of: (rounds,) seconds and (rounds,) work.
        over: those of the other side.

    Returns:
        The ratio and the interval's lower and upper end.

    Raises:
        ValueError: the samples are empty or differ in number.
    """

    def ratio(a: Any, m: Any, b: Any, n: Any, axis: int) -> Any:
        return (a.sum(axis) / m.sum(axis)) / (b.sum(axis) / n.sum(axis))

    return _bootstrap(ratio, *of, *over)


def _bootstrap(statistic: Callable[..., Any], *samples: Any) -> tuple[float, float, float]:
    """A statistic of paired samples, with the percentile interval over resampled rounds.

    The seed is fixed, so that reports are reproducible. A single round has no spread to resample.
    """
    arrays = [np.asarray(sample) for sample in samples]
    counts = {len(array) for array in arrays}
    if counts == {0} or len(counts) > 1:
        rounds = " and ".join(str(len(array)) for array in arrays)
        raise ValueError(f"a ratio needs samples of the same rounds, not {rounds}")
    value = float(statistic(*arrays, axis=-1))
    if counts == {1}:
        return value, value, value
    interval = stats.bootstrap(
        arrays,
        statistic,
        paired=True,
        method="percentile",
        confidence_level=COVERAGE,
        n_resamples=RESAMPLES,
        rng=0,
    ).confidence_interval
    return value, float(interval.low), float(interval.high)


def peak_above(work: Callable[[], object]) -> int:
    """Peak memory of a call above the memory in use before it, in bytes.

    Run it in a process of its own (:func:`in_own_process`) after loading the model and importing
    the libraries: memory that an earlier call freed may still be resident and would hide a peak.
    Measures resident memory on a CPU and allocated memory on a GPU.
    """
    reset_peak_memory()
    before = peak_memory()
    work()
    synchronize()
    return max(0, peak_memory() - before)
