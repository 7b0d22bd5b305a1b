"""What workers that share no memory know of the attempts of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from quanta_bench.errors import DivergedError, OutOfMemoryError, RunCrashedError, RunKilledError
from quanta_bench.launchers.ledger import MOST_LOSSES, Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "runs")


def lose(ledger: Ledger, run: str) -> None:
    """An attempt whose worker is killed: nothing of it is written after its beginning."""
    ledger._add(run, "began")


def test_an_attempt_begins_and_ends_however_it_does(ledger: Ledger) -> None:
    with ledger.attempt("a"):
        assert ledger.history("a").open == 1
    with pytest.raises(KeyboardInterrupt), ledger.attempt("a"):
        raise KeyboardInterrupt
    lose(ledger, "b")
    assert (ledger.history("a").open, ledger.history("b").open) == (0, 1)
    assert ledger.history("b").lost == 0  # as far as anybody can tell
    with ledger.attempt("b"):
        assert (ledger.history("b").open, ledger.history("b").lost) == (2, 1)
    assert (ledger.history("b").open, ledger.history("b").lost) == (1, 1)
    # It was lost once, but the attempt after that has ended.
    assert not ledger.history("b").going
    assert len(ledger.history("a").attempts) == 2
    assert ledger.runs() == {"a", "b"}
    assert ledger.history("c").entries == ()


def test_a_failing_run_is_given_up_after_its_second_failure(ledger: Ledger) -> None:
    ledger.fail("a", OutOfMemoryError("too large"))
    assert ledger.history("a").final is None
    (error,) = ledger.history("a").failures
    assert isinstance(error, OutOfMemoryError)
    assert str(error) == "too large"
    ledger.fail("a", RunCrashedError("again"))
    assert isinstance(ledger.history("a").final, RunCrashedError)


def test_what_would_fail_again_is_given_up_at_once(ledger: Ledger) -> None:
    ledger.fail("a", DivergedError("NaN"))
    assert isinstance(ledger.history("a").final, DivergedError)


def test_a_run_that_takes_its_workers_with_it_is_given_up_in_the_end(ledger: Ledger) -> None:
    for _ in range(MOST_LOSSES):
        lose(ledger, "a")
        assert ledger.history("a").final is None
    lose(ledger, "a")
    final = ledger.history("a").final
    assert isinstance(final, RunKilledError)
    assert "workers were lost" in str(final)


def test_a_line_that_was_cut_short_costs_no_other(ledger: Ledger) -> None:
    lose(ledger, "a")
    path = ledger.folder / "a.jsonl"
    path.write_bytes(path.read_bytes()[:-8])
    assert ledger.history("a").entries == ()
    lose(ledger, "a")
    assert ledger.history("a").open == 1


def test_an_unknown_kind_of_error_is_an_error_all_the_same(ledger: Ledger) -> None:
    ledger.fail("a", ValueError("odd"))
    assert [str(error) for error in ledger.history("a").failures] == ["odd"]
