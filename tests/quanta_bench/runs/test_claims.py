"""The order in which one of several processes tries the runs of a sweep."""

from __future__ import annotations

import pytest
from clocks import Clock

from quanta_bench.runs import claims as module
from quanta_bench.runs.claims import Claims


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "monotonic", made)
    return made


def test_batches_come_by_rank_and_those_put_back_first(clock: Clock) -> None:
    claims = Claims([[0, 1], [2], [3]], rank=lambda batch: batch[0] == 0)
    first = claims.next()
    assert first == [2]
    claims.put_back([2])
    claims.put_back([])
    assert [claims.next() for _ in range(4)] == [[2], [3], [0, 1], None]
    assert not claims


def test_what_others_compute_comes_back_when_it_is_free(clock: Clock) -> None:
    free: set[int] = set()
    looks: list[int] = []

    def is_free(run: int) -> bool:
        looks.append(run)
        return run in free

    claims = Claims([[0, 1], [2], [3]], is_free)
    for batch in ([0, 1], [2]):
        assert claims.next() == batch
        claims.postpone(batch)
    free.add(2)
    # Not before this process has nothing else to do.
    assert claims.next() == [3]
    assert claims.next() is None
    assert looks == []
    assert claims.put_off == [0, 1, 2]
    clock.now += claims.poll_seconds
    assert claims.next() == [2]
    assert claims.next() is None
    assert looks == [0, 2]
    free.add(0)
    clock.now += claims.poll_seconds
    assert claims.next() == [0, 1]
    assert not claims


def test_many_processes_look_less_often() -> None:
    claims = Claims([[n] for n in range(255)], lambda run: False)
    assert claims.poll_seconds == 1.0
    while batch := claims.next():
        claims.postpone(batch)
    assert claims.poll_seconds == pytest.approx(25.5)
