"""The order in which one of several processes tries runs, and what it leaves to the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from clocks import Clock

from quanta_bench.errors import RunInProgressError
from quanta_bench.runs import claims as module
from quanta_bench.runs.claims import Claims, compute_or_wait


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


class HeldOnce:
    """A runner whose run another process holds at first, and perhaps trains again meanwhile."""

    def __init__(self, trained_again: bool) -> None:
        self.outdated: dict[str, str] = {}
        self.asked: list[bool] = []
        self._training = "before"
        self._trained_again = trained_again

    def compute(self, planned: Any, *, fresh: bool, halvings: int) -> str:
        self.asked.append(fresh)
        if len(self.asked) == 1:
            raise RunInProgressError("Another process is computing it.")
        return "computed"

    def is_free(self, planned: Any) -> bool:
        self._training = "after" if self._trained_again else "before"
        return True

    def find(self, planned: Any) -> Any:
        return SimpleNamespace(run="lora-1", checksum="old")

    def identify(self, planned: Any) -> None:
        return None

    def stored_training(self, planned: Any, names: Any) -> Any:
        return SimpleNamespace(checksum=self._training)


@pytest.mark.parametrize("trained_again", [True, False])
def test_what_is_to_be_computed_again_is_done_once_by_either_process(trained_again: bool) -> None:
    runner: Any = HeldOnce(trained_again)
    planned: Any = None
    assert compute_or_wait(planned, runner, lambda text: None, fresh=True) == "computed"
    # The other's training will do; the result that was there before will not in any case.
    assert runner.asked == [True, not trained_again]
    assert runner.outdated == {"lora-1": "old"}


def test_a_run_that_is_not_to_be_computed_again_takes_what_is_stored() -> None:
    runner: Any = HeldOnce(trained_again=False)
    planned: Any = None
    compute_or_wait(planned, runner, lambda text: None)
    assert runner.asked == [False, False]
    assert runner.outdated == {}
