"""A logger of Lightning over trackio, whose own library has none."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import AbstractContextManager, redirect_stdout
from typing import Any

import trackio
from lightning.pytorch.loggers import Logger

from quanta_bench.utils.verbosity import is_verbose


class TrackioLogger(Logger):
    """Logs to a new run of a project.

    Args:
        project: the project.
        name: the run's name.
        parameters: its configuration.
    """

    def __init__(self, project: str, name: str, parameters: Mapping[str, Any]) -> None:
        super().__init__()
        with _aside():
            self._run: Any = trackio.init(
                project=project,
                name=name,
                config=dict(parameters),
                embed=False,
                # Load of the machine, which is shared by all runs.
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self._run.name)

    @property
    def version(self) -> str:
        """There is one of each name."""
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values at a step."""
        self._run.log(dict(metrics), step=step)

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: the configuration was given at the start."""

    def finalize(self, status: str) -> None:
        """Wait until all is written."""
        with _aside():
            # Of this thread's run; by itself it would be finished again at the end, and say so.
            trackio.finish()


def _aside() -> AbstractContextManager[Any]:
    """A block whose prints are no result: they go to standard error with ``--verbose`` alone."""
    return redirect_stdout(sys.stderr if is_verbose() else io.StringIO())
