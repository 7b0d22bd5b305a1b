"""The search: growth at the edges, refused rates, ties, and what Optuna's study holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from quanta_bench.report.rate_study import Trial
from quanta_bench.tuning.search import RateSearch, best

FIRST = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def peak(where: float) -> Callable[[float], Trial]:
    """A score that falls on both sides of a rate."""
    return lambda rate: Trial(rate=rate, score=80 - abs(math.log10(rate / where)), loss=1.0)


def run(search: RateSearch, measure: Callable[[float], Trial]) -> list[list[float]]:
    """The rates of each round."""
    rounds = []
    while rates := search.ask():
        rounds.append(rates)
        for rate in rates:
            search.tell(measure(rate))
    return rounds


def searched(measure: Callable[[float], Trial], most: int = 9, **over: Any) -> RateSearch:
    search = RateSearch(FIRST, most, **{"lower_is_better": False, **over})
    run(search, measure)
    return search


def chosen(search: RateSearch) -> float | None:
    return None if search.best is None else search.best.rate


def test_a_peak_inside_needs_one_round() -> None:
    search = RateSearch(FIRST, 9, lower_is_better=False)
    assert run(search, peak(3e-4)) == [list(FIRST)]
    assert chosen(search) == 3e-4
    assert not search.at_edge


@pytest.mark.parametrize(
    ("where", "rounds"), [(3e-2, [[3e-2], [1e-1]]), (1e-2, [[3e-2]]), (1e-4, [[3e-5]])]
)
def test_the_range_grows_beyond_the_edge_that_is_best(
    where: float, rounds: list[list[float]]
) -> None:
    search = RateSearch(FIRST, 9, lower_is_better=False)
    assert run(search, peak(where))[1:] == rounds
    assert chosen(search) == where
    assert not search.at_edge


def test_growth_stops_at_the_bound_and_says_so() -> None:
    search = searched(peak(1e3), most=7)
    assert len(search.trials) == 7
    assert search.at_edge
    assert chosen(search) == 1e-1


def test_a_refused_neighbour_ends_the_growth() -> None:
    def measure(rate: float) -> Trial:
        found = peak(1.0)(rate)
        return found.model_copy(update={"state": "refused"}) if rate > 3e-2 else found

    search = searched(measure)
    assert chosen(search) == 3e-2
    assert max(trial.rate for trial in search.trials) == 1e-1
    assert not search.at_edge
    # The refused neighbour is better.
    assert search.sensitivity().above == pytest.approx(-math.log10(1e-1 / 3e-2))
    assert search.sensitivity().below == pytest.approx(math.log10(3e-2 / 1e-2))


def test_smaller_rates_are_tried_while_all_diverge() -> None:
    def measure(rate: float) -> Trial:
        return peak(1e-5)(rate) if rate < 5e-5 else Trial(rate=rate, state="diverged", why="NaN")

    search = searched(measure)
    assert chosen(search) == 1e-5
    assert [trial.rate for trial in search.trials][:3] == [3e-6, 1e-5, 3e-5]


def test_a_failure_ends_the_growth() -> None:
    def measure(rate: float) -> Trial:
        return Trial(rate=rate, state="failed") if rate == 1e-4 else peak(1.0)(rate)

    assert len(searched(measure).trials) == 5


def test_lower_perplexity_is_better() -> None:
    def measure(rate: float) -> Trial:
        return Trial(rate=rate, score=20 + abs(math.log10(rate / 1e-3)), loss=1.0)

    search = searched(measure, lower_is_better=True)
    assert chosen(search) == 1e-3
    assert search.sensitivity().above == pytest.approx(math.log10(3))
    assert search.study.best_params == {"learning_rate": 1e-3}


def test_ties_go_to_the_smaller_loss_and_then_to_the_smaller_rate() -> None:
    def trial(rate: float, score: float, loss: float) -> Trial:
        return Trial(rate=rate, score=score, loss=loss)

    equal = [trial(1.0, 50, 0.5), trial(0.1, 50, 0.7), trial(0.3, 100 * 0.1 + 40 + 1e-14, 0.5)]
    winner = best(equal, lower_is_better=False)
    assert winner is not None
    assert winner.rate == 0.3
    # The loss alone never decides.
    assert best([*equal, trial(2.0, 49, 0.1)], lower_is_better=False) == winner


def test_optunas_study_holds_every_trial() -> None:
    def measure(rate: float) -> Trial:
        if rate == 1e-4:
            return Trial(rate=rate, state="diverged", why="the loss is nan")
        found = peak(1e-3)(rate)
        return found.model_copy(update={"state": "refused"}) if rate == 1e-2 else found

    study = searched(measure).study
    states = {trial.params["learning_rate"]: trial.state for trial in study.trials}
    assert states[1e-4] is optuna.trial.TrialState.FAIL
    assert states[1e-2] is optuna.trial.TrialState.PRUNED
    assert study.best_params == {"learning_rate": 1e-3}
    assert study.trials[0].user_attrs["why"] == "the loss is nan"


def test_asking_twice_without_telling_is_an_error() -> None:
    search = RateSearch(FIRST, 9, lower_is_better=False)
    search.ask()
    with pytest.raises(ValueError, match="told"):
        search.ask()
