"""Training in the processes of a run alone, whatever launched them.

Lightning reacts to environment variables: those of SLURM and torchrun make it one rank of many,
which neither logs nor saves, and ``PL_TRAINER_...`` overrides arguments of its Trainer. A run must
depend on its spec alone, on a cluster as on a laptop. A run over several devices has processes of
its own (:mod:`quanta_bench.runs.spreading`), which know their ranks from the suite.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities import rank_zero
from lightning.pytorch.utilities.seed import isolate_rng

from quanta_bench.utils.process_group import ALONE, Group
from quanta_bench.utils.verbosity import is_verbose

RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "SLURM_PROCID",
    "JSM_NAMESPACE_RANK",
)
"""Variables by which launchers tell a process its rank, as Lightning reads them."""


class OwnProcesses(LightningEnvironment):
    """The cluster of a run. Given to a Trainer, it keeps it from looking for another one.

    Args:
        group: the run's processes, all on this machine.
    """

    def __init__(self, group: Group = ALONE) -> None:
        super().__init__()
        self._group = group
        self._global_rank, self._world_size = group.rank, group.size

    @property
    def creates_processes_externally(self) -> bool:
        """Whether they are all there already: Lightning starts none."""
        return self._group.size > 1

    def local_rank(self) -> int:
        """This process's number."""
        return self._group.rank

    def node_rank(self) -> int:
        """The first."""
        return 0

    def teardown(self) -> None:
        """Leave the variables as they are."""


@contextmanager
def single_process(group: Group = ALONE) -> Iterator[OwnProcesses]:
    """Let Lightning know of this process, or its group, alone; afterwards all is as before."""
    hidden = {
        name: value
        for name, value in os.environ.items()
        if name in RANK_VARIABLES or name.startswith("PL_")
    }
    # The decorator keeps the rank as an attribute of its own.
    only: Any = rank_zero.rank_zero_only
    rank = only.rank
    for name in hidden:
        del os.environ[name]
    only.rank = group.rank
    try:
        yield OwnProcesses(group)
    finally:
        only.rank = rank
        os.environ.update(hidden)


@contextmanager
def alone(group: Group = ALONE) -> Iterator[OwnProcesses]:
    """A block in which Lightning trains: in the run's processes, quietly, random state kept."""
    with isolate_rng(), quiet(), single_process(group) as environment:
        yield environment


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's messages that a user of this suite cannot act on, unless all are wanted."""
    if is_verbose():
        yield
        return
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch 2.13 in a way that has been renamed.
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            # Batches are tokenised beforehand: more loader processes would not be faster.
            warnings.filterwarnings("ignore", r".*does not have many workers")
            # All processes of a group log what all of them computed.
            warnings.filterwarnings("ignore", r".*sync_dist=True")
            # Where SLURM is installed, Lightning wants every process to be started by it.
            warnings.filterwarnings("ignore", r"The `srun` command is available")
            # A resumed run finds its own checkpoints and metrics.
            warnings.filterwarnings("ignore", r".*exists and is not empty")
            warnings.filterwarnings("ignore", r"Experiment logs directory .* exists")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
