"""The LightningModule that hosts any method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import nn

from quanta_bench.data.batch import Batch
from quanta_bench.errors import BenchError
from quanta_bench.method import Method
from quanta_bench.spec import TrainingSpec
from quanta_bench.training.objectives import (
    Judgement,
    accumulate_gradients,
    mean_of_means,
    objective_of,
)

SELECTION = "validation/selection"
"""The logged value by which the best checkpoint is chosen; more is better."""


class Validation(NamedTuple):
    """One validation: after how many optimiser steps, the metric, the loss."""

    step: int
    metric: float
    loss: float


class FineTuning(pl.LightningModule):
    """Trains whatever a method declares trainable in an adapted model.

    Args:
        model: the adapted model.
        method: the method that adapted it.
        spec: the training spec.
        steps: optimiser steps of the whole run, for the schedule.
        judge: the validation metric of the model as it stands, in place of what the validation
            batches say; their loss still breaks ties.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method[Any],
        spec: TrainingSpec,
        steps: int,
        judge: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.spec = spec
        self.steps = steps
        self.judge = judge
        self.tokens = 0
        self.losses: list[float] = []
        self.validations: list[Validation] = []
        self.objective = objective_of(spec)
        self._judged: list[Judgement] = []
        # A batch is computed in as many micro-batches as its length asks for.
        self.automatic_optimization = False
        # A checkpoint holds what is trained; the frozen rest comes from the base model.
        self.strict_loading = False

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that train, as the method declares them."""
        return self.method.trainable(self.model)

    def training_step(self, batch: Sequence[Batch], batch_idx: int) -> None:
        """The gradient of one batch, given as micro-batches, and with it a step if one is due."""
        loss = accumulate_gradients(
            self.objective,
            self.model,
            batch,
            scale=1 / self.spec.accumulate,
            backward=self.manual_backward,
        )
        self.tokens += sum(one.tokens for one in batch)
        self.losses.append(float(loss))
        if not math.isfinite(self.losses[-1]):
            raise BenchError(
                f"The loss is {self.losses[-1]} after {self.global_step} steps. "
                f"Try a learning rate below {self.spec.learning_rate:g}."
            )
        if (batch_idx + 1) % self.spec.accumulate == 0 or self.trainer.is_last_batch:
            self._step()

    def _step(self) -> None:
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        if self.spec.clip_norm:
            self.clip_gradients(optimizer, self.spec.clip_norm, "norm")
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Judge a batch."""
        self._judged += self.objective.judge(self.model, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metric, the objective's own or the judge's, ties broken by the loss."""
        metric = self.judge() if self.judge is not None else self.objective.metric(self._judged)
        loss = mean_of_means([(item.task, item.loss) for item in self._judged])
        self._judged.clear()
        self.validations.append(Validation(self.global_step, metric, loss))
        self.log("validation/metric", metric)
        self.log("validation/loss", loss)
        # On a small validation set several checkpoints often get the same number right. The
        # smaller loss then decides. Its weight is too small to outweigh one item of thousands,
        # and large enough for float32, in which Lightning keeps what is logged.
        self.log(SELECTION, metric - 1e-4 * loss / (1 + loss))

    def configure_optimizers(self) -> Any:
        """AdamW on the declared parameters, with the spec's schedule by step."""
        spec = self.spec
        optimizer = torch.optim.AdamW(
            self.trainable().values(), lr=spec.learning_rate, weight_decay=spec.weight_decay
        )
        warm = round(spec.warmup * self.steps)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / (warm + 1)
            if spec.schedule == "constant":
                return 1.0
            return max(0.0, (self.steps - step) / max(1, self.steps - warm))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """What is trained, under the names that :meth:`load_state_dict` takes."""
        return {f"model.{name}": value.detach() for name, value in self.trainable().items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the run's own tally, so that a resumed run reports the whole of it."""
        checkpoint["tally"] = {
            "tokens": self.tokens,
            "losses": self.losses,
            "validations": [tuple(validation) for validation in self.validations],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the tally up again."""
        tally = checkpoint["tally"]
        self.tokens = tally["tokens"]
        self.losses = list(tally["losses"])
        self.validations = [Validation(*values) for values in tally["validations"]]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Give each stretch random numbers of its own, so that a resumed one has the same."""
        if batch_idx == 0:
            torch.manual_seed(self.spec.seeds.init + 2**32 * self.current_epoch)
