"""Whole runs in turns: only one works at a time, in order, and a failure ends them all."""

from __future__ import annotations

import threading

import pytest

from quanta_bench.bench import turns
from quanta_bench.bench.turns import EndPart, take_turns


class Clock:
    """Seconds that pass only while a run works, of which there is one at any time."""

    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(turns.time, "perf_counter", lambda: made.now)
    return made


def test_parts_alternate_until_the_longer_run_is_alone(clock: Clock) -> None:
    order: list[str] = []

    def run(name: str, count: int, seconds: float) -> object:
        def whole(done: EndPart) -> None:
            for part in range(count):
                order.append(f"{name}{part}")
                clock.now += seconds
                done(10 * part + 1)
            order.append(f"{name} end")

        return whole

    sides = {"a": run("a", 2, 0.5), "b": run("b", 4, 2.0), "c": run("c", 1, 0.25)}
    a, b, c = take_turns(sides, unit="tokens")  # type: ignore[arg-type]
    assert order[:3] == ["a0", "b0", "c0"]
    assert [entry for entry in order if entry[0] == "b"] == ["b0", "b1", "b2", "b3", "b end"]
    assert [one.work for one in (a, b, c)] == [[1, 11], [1, 11, 21, 31], [1]]
    # A wait for the others is not in a part's time.
    assert (a.seconds, b.seconds, c.seconds) == ([0.5] * 2, [2.0] * 4, [0.25])


def test_the_first_has_the_main_thread() -> None:
    threads = {}

    def run(name: str) -> object:
        def whole(done: EndPart) -> None:
            threads[name] = threading.current_thread() is threading.main_thread()
            done(1)

        return whole

    take_turns({"a": run("a"), "b": run("b")})  # type: ignore[arg-type, dict-item]
    assert threads == {"a": True, "b": False}


@pytest.mark.parametrize("failing", ["a", "b", "c"])
def test_a_failure_of_any_ends_all(failing: str) -> None:
    def run(name: str) -> object:
        def whole(done: EndPart) -> None:
            for part in range(3):
                if name == failing and part == 1:
                    raise ZeroDivisionError(name)
                done(1)

        return whole

    with pytest.raises(ZeroDivisionError, match=failing):
        take_turns({name: run(name) for name in "abc"})  # type: ignore[misc]
