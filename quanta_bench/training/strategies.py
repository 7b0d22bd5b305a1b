"""Lightning's strategies for a run over several devices."""

from __future__ import annotations

from lightning.pytorch.strategies import DDPStrategy


class Replicas(DDPStrategy):
    """Data parallelism: each process has the whole model and computes its share of each batch.

    The process group is the run's own, joined before. Gradients are added up once a step
    (:meth:`quanta_bench.training.module.FineTuning.training_step`), so there is no wrapper that
    does so in each backward pass, nor its second copy of all gradients.
    """

    def configure_ddp(self) -> None:
        """Leave the module as it is; the processes start from the same weights."""
