"""The curves of a training: loss and learning rate of every step, for loggers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger


class LearningCurves(pl.Callback):
    """Logs each optimiser step under its index, from 0, as Lightning logs a validation after it.

    A loss is logged when the module has read it, a step later, so that no device is waited for.

    Args:
        loggers: where to.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = loggers
        self._logged = 0
        self._rates: dict[int, float] = {}

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Leave out what an earlier process has logged."""
        self._logged = len(module.losses)

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        """Keep the rate of the step that begins."""
        self._rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        """Log the step before."""
        self._log(module.losses)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Log the last step before the validation."""
        self._log(module.losses)

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        """Log the loss at which a training ended."""
        self._log(module.losses)

    def _log(self, losses: Sequence[float]) -> None:
        for step in range(self._logged, len(losses)):
            values = {"training/loss": losses[step]}
            if step in self._rates:
                values["training/learning_rate"] = self._rates.pop(step)
            for logger in self._loggers:
                logger.log_metrics(values, step=step)
        self._logged = len(losses)
