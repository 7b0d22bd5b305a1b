"""Training in one process, whatever launched it.

Lightning reacts to environment variables: those of SLURM and torchrun make it one rank of many,
which neither logs nor saves, and ``PL_TRAINER_...`` overrides arguments of its Trainer. A run must
depend on its spec alone, on a cluster as on a laptop.
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


class SingleProcess(LightningEnvironment):
    """A cluster of one process. Given to a Trainer, it keeps it from looking for another one."""

    @property
    def creates_processes_externally(self) -> bool:
        """Nothing else takes part."""
        return False

    def local_rank(self) -> int:
        """The first."""
        return 0

    def node_rank(self) -> int:
        """The first."""
        return 0

    def teardown(self) -> None:
        """Leave the variables as they are."""


@contextmanager
def single_process() -> Iterator[SingleProcess]:
    """Be the only process as far as Lightning can tell; afterwards everything is as before."""
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
    only.rank = 0
    try:
        yield SingleProcess()
    finally:
        only.rank = rank
        os.environ.update(hidden)


@contextmanager
def alone() -> Iterator[SingleProcess]:
    """A block in which Lightning trains: in one process, quietly, the random state kept."""
    with isolate_rng(), quiet(), single_process() as environment:
        yield environment


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's messages that a user of this suite cannot act on."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch 2.13 in a way that has been renamed.
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            # On a node of a SLURM cluster, whose srun starts workers, not runs.
            warnings.filterwarnings("ignore", r"The `srun` command is available")
            # Batches are tokenised beforehand: more loader processes would not be faster.
            warnings.filterwarnings("ignore", r".*does not have many workers")
            # Where SLURM is installed, Lightning wants every process to be started by it.
            warnings.filterwarnings("ignore", r"The `srun` command is available")
            # A resumed run finds its own checkpoints and metrics.
            warnings.filterwarnings("ignore", r".*exists and is not empty")
            warnings.filterwarnings("ignore", r"Experiment logs directory .* exists")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
