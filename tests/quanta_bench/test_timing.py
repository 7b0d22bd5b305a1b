"""Times of sides that take turns: their order, their ratios with intervals, memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError

from quanta_bench import timing
from quanta_bench.benchmark import Side, at_least, at_most
from quanta_bench.errors import BenchError


def side(name: str, seconds: list[float], work: list[float] | None = None) -> Side:
    return Side(name=name, seconds=seconds, work=work or [], unit="items" if work else "")


def test_every_side_is_called_equally_often_and_none_always_follows_the_same() -> None:
    called: list[str] = []
    sides = {name: lambda name=name: called.append(name) for name in "abc"}
    timed = timing.interleave(sides, rounds=12, warmup=2, work=5, unit="tokens")
    assert [one.name for one in timed] == ["a", "b", "c"]
    assert all(len(one.seconds) == 12 and one.work == [5.0] * 12 for one in timed)
    assert called[:6] == list("abcabc")
    rounds = [tuple(called[i : i + 3]) for i in range(6, len(called), 3)]
    assert len(rounds) == 12
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 2


def test_short_calls_are_timed_several_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    counts = {"slow": 0, "quick": 0}

    def call(name: str, seconds: float) -> None:
        counts[name] += 1
        clock.now += seconds

    slow, quick = timing.interleave(
        {"slow": lambda: call("slow", 0.5), "quick": lambda: call("quick", 0.125)},
        rounds=2,
        least=1.0,
    )
    # One to warm up, then two rounds of as many calls as the quicker side needs for a second.
    assert counts == {"slow": 1 + 2 * 8, "quick": 1 + 2 * 8}
    # A sample is the time of one call.
    assert (slow.seconds, quick.seconds) == ([0.5] * 2, [0.125] * 2)


class Clock:
    """Seconds that pass only when a test says so."""

    now = 0.0


def percentiles(statistic: Callable[[np.ndarray], np.ndarray], rounds: int) -> tuple[float, float]:
    """The 95 % interval of a statistic of resampled rounds: the bootstrap, written out."""
    rows = np.random.default_rng(9).integers(0, rounds, (20_000, rounds))
    low, high = np.percentile(statistic(rows), [2.5, 97.5])
    return float(low), float(high)


def test_a_ratio_of_medians_has_a_bootstrap_interval() -> None:
    draw = np.random.default_rng(3)
    speed = draw.lognormal(0, 0.3, 40)  # what both sides share in a round
    one, other = 2 * speed * draw.lognormal(0, 0.05, 40), speed * draw.lognormal(0, 0.05, 40)
    found = timing.time_ratio(side("a", list(one)), side("b", list(other)), target=at_most(2.2))
    expected = percentiles(lambda rows: np.median((one / other)[rows], axis=1), 40)
    assert found.value == pytest.approx(np.median(one / other))
    assert (found.low, found.high) == pytest.approx(expected, rel=0.01)
    assert found.low is not None
    assert found.low < 2.05
    assert found.met is True
    assert found.title == "time, a / b"


def test_a_ratio_of_totals_is_of_work_and_has_a_bootstrap_interval() -> None:
    draw = np.random.default_rng(4)
    seconds, work = draw.uniform(1, 2, 30), draw.uniform(100, 200, 30)
    slower, more = draw.uniform(2, 4, 30), draw.uniform(100, 200, 30)
    ours, theirs = side("a", list(seconds), list(work)), side("b", list(slower), list(more))
    found = timing.speed_ratio(ours, theirs, by="total", target=at_least(2.5))

    def speed(rows: np.ndarray) -> np.ndarray:
        one = work[rows].sum(-1) / seconds[rows].sum(-1)
        return one / (more[rows].sum(-1) / slower[rows].sum(-1))

    assert found.value == pytest.approx(speed(np.arange(30)))
    assert (found.low, found.high) == pytest.approx(percentiles(speed, 30), rel=0.01)
    assert found.title == "items/s, a / b"
    assert found.met is (found.value >= 2.5)


def test_one_round_has_an_interval_of_no_width_and_none_has_no_ratio() -> None:
    found = timing.time_ratio(side("a", [3.0], [2.0]), side("b", [1.0], [1.0]))
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)
    for one, other in (([], []), ([1.0], [1.0, 2.0])):
        for by in ("median", "total"):
            with pytest.raises(ValueError, match="same rounds"):
                timing.time_ratio(side("a", one), side("b", other), by=by)  # type: ignore[arg-type]


def test_work_is_given_for_every_sample_or_none() -> None:
    with pytest.raises(ValidationError, match="a: 1 amounts of work, 2 samples"):
        side("a", [1.0, 2.0], [1.0])


def test_memory_ratios_need_both_peaks() -> None:
    one, other = Side(name="a", peak_bytes=3), Side(name="b", peak_bytes=4)
    found = timing.memory_ratio(one, other, target=at_most(0.7))
    assert (found.value, found.low, found.met) == (0.75, None, False)
    with pytest.raises(ValueError, match="no peak"):
        timing.memory_ratio(one, Side(name="c"))


def test_targets_hold_at_their_bound_and_never_for_no_number() -> None:
    assert at_most(1.6).met(1.6)
    assert at_least(2).met(2.0)
    assert not at_most(1.6).met(float("nan"))
    assert not at_least(1.6).met(float("nan"))
    assert (str(at_most(1.25)), str(at_least(2.0))) == ("at most 1.25", "at least 2")


def test_peak_memory_is_that_of_the_call_in_a_process_of_its_own() -> None:
    small, large = (timing.in_own_process(peak_of_bytes, size) for size in (10, 90))
    # Of bytes that were freed again before the call ended.
    assert 60 * 2**20 < large - small < 110 * 2**20
    assert timing.in_own_process(os.getpid) != os.getpid()


def test_what_goes_wrong_in_the_other_process_comes_back() -> None:
    with pytest.raises(ZeroDivisionError):
        timing.in_own_process(divmod, 1, 0)
    with pytest.raises(BenchError, match="ended with exit status 9"):
        timing.in_own_process(os._exit, 9)


def peak_of_bytes(mebibytes: int) -> int:
    return timing.peak_above(lambda: bytearray(os.urandom(1)) * (mebibytes * 2**20) and None)


def test_resampling_repeats_itself() -> None:
    numbers = list(itertools.accumulate([1.0] * 9))
    one, other = side("a", numbers), side("b", numbers[::-1])
    assert timing.time_ratio(one, other) == timing.time_ratio(one, other)
