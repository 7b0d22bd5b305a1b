"""The search of a row's learning rate by Optuna's ask and tell: a grid that grows at its edges."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from quanta_bench.report.rate_study import Sensitivity, Trial
from quanta_bench.tuning.rates import HIGHEST, LOWEST, shifted

NAME = "learning_rate"


class RateSearch:
    """Asks for the rates to try next until the best one has neighbours on both sides.

    The trials are those of an Optuna study (`study`), with what was found as their attributes. A
    rate that cannot be chosen is infeasible to it: pruned if it has a score, failed otherwise.

    Args:
        rates: the first rates, in ascending order.
        most: the largest number of rates.
        lower_is_better: whether a lower score is better.
    """

    def __init__(self, rates: Sequence[float], most: int, *, lower_is_better: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.lower_is_better = lower_is_better
        self.study = optuna.create_study(
            direction="minimize" if lower_is_better else "maximize",
            # All rates are enqueued; nothing is drawn.
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        self._most = most
        self._asked: dict[float, optuna.Trial] = {}
        self._told: dict[float, Trial] = {}
        for rate in rates:
            self.study.enqueue_trial({NAME: rate})

    @property
    def trials(self) -> list[Trial]:
        """What was found, by ascending rate."""
        return [self._told[rate] for rate in sorted(self._told)]

    @property
    def best(self) -> Trial | None:
        """The best admissible trial."""
        return best(self.trials, lower_is_better=self.lower_is_better)

    def ask(self) -> list[float]:
        """The rates to try next; none when the search is over.

        Raises:
            ValueError: the rates asked for before have not all been told.
        """
        if set(self._asked) != set(self._told):
            raise ValueError("rates are waiting to be told")
        if self._told and (rate := self._beyond_edge()) is not None:
            self.study.enqueue_trial({NAME: rate})
        waiting = len(self.study.get_trials(False, (optuna.trial.TrialState.WAITING,)))
        rates = []
        for _ in range(waiting):
            trial = self.study.ask()
            rate = trial.suggest_float(NAME, LOWEST, HIGHEST, log=True)
            self._asked[rate] = trial
            rates.append(rate)
        return rates

    def tell(self, found: Trial) -> None:
        """Tell what was found at a rate that was asked for."""
        trial = self._asked[found.rate]
        for key, value in found.model_dump(exclude={"rate", "score"}).items():
            trial.set_user_attr(key, value)
        if found.admissible:
            self.study.tell(trial, found.score)
        elif found.score is not None:
            trial.report(found.score, step=0)
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._told[found.rate] = found

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the smallest or the largest that was tried."""
        chosen = self.best
        return chosen is not None and chosen.rate in (min(self._told), max(self._told))

    def _beyond_edge(self) -> float | None:
        """The rate half a decade beyond the edge at which the best is; ``None`` to stop."""
        # Without a result there, more rates would be chosen from a gap.
        if len(self._told) >= self._most or any(t.state == "failed" for t in self.trials):
            return None
        chosen, smallest = self.best, min(self._told)
        if chosen is None or chosen.rate == smallest:
            # Where every rate spoils the model, a smaller one may not.
            beyond = shifted(smallest, -1)
        elif chosen.rate == max(self._told):
            beyond = shifted(chosen.rate, 1)
        else:
            return None
        return beyond if LOWEST <= beyond <= HIGHEST else None

    def sensitivity(self) -> Sensitivity:
        """How much worse the score is half a decade below and above the best rate."""
        chosen = self.best
        if chosen is None:
            return Sensitivity()
        trials = self.trials
        place = trials.index(chosen)
        below = trials[place - 1] if place else None
        above = trials[place + 1] if place + 1 < len(trials) else None
        return Sensitivity(below=self._drop(chosen, below), above=self._drop(chosen, above))

    def _drop(self, chosen: Trial, other: Trial | None) -> float | None:
        if other is None or other.score is None or chosen.score is None:
            return None
        drop = chosen.score - other.score
        return -drop if self.lower_is_better else drop


def best(trials: Sequence[Trial], *, lower_is_better: bool) -> Trial | None:
    """The admissible trial with the best score.

    Of equal scores the smaller validation loss decides, then the smaller rate.
    """

    def order(trial: Trial) -> tuple[float, float, float]:
        score = trial.score or 0.0
        loss = float("inf") if trial.loss is None else trial.loss
        # Means of the same numbers in another order may differ in the last bits.
        return round(score if lower_is_better else -score, 9), loss, trial.rate

    return min((trial for trial in trials if trial.admissible), key=order, default=None)
