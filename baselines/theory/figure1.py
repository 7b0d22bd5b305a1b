"""Figure 1 of the QuanTA paper, measured: error left after learning a planted update of rank k.

The paper's figure is an illustration. Here the update that a task needs has a known rank, and
methods of nearly equal size learn it.
"""

from __future__ import annotations

from quanta_bench.experiment import Conditions, Experiment, Outcome


class PlantedRank(Experiment):
    """Two tasks, six methods, ranks from 1 to full."""

    name = "figure1"
    title = "What methods of nearly equal size leave of an update of known rank"

    def run(self, conditions: Conditions) -> Outcome:
        """Tune, train and test; see `baselines.theory.contest`.

        Raises:
            UsageError: a seed is among those of tuning.
        """
        # Listing the experiments must not import torch and peft.
        from baselines.theory.contest import contest

        return contest(conditions)
