"""The LightningModule that hosts any method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from quanta_bench.data.batch import Batch
from quanta_bench.errors import BenchError, DivergedError, UsageError
from quanta_bench.evaluation.decisions import NonFiniteError
from quanta_bench.method import Method
from quanta_bench.models.held_products import still
from quanta_bench.models.sharding import in_step, is_sharded
from quanta_bench.spec import TrainingSpec
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.objectives import (
    Judgement,
    accumulate_gradients,
    mean_of_means,
    objective_of,
    shares,
)
from quanta_bench.training.together import Turn
from quanta_bench.utils.out_of_memory import in_halves, release_memory
from quanta_bench.utils.readback import Readback

SELECTION = "validation/selection"
"""The logged value by which the best checkpoint is chosen; more is better."""


def eight_bit_adamw(
    weights: Sequence[nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW with moments of 8 bits, by bitsandbytes.

    Args:
        weights: what is trained.
        lr: learning rate.
        weight_decay: decoupled weight decay.

    Raises:
        UsageError: bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError:
        raise UsageError(
            "training.optimizer=adamw-8bit needs the package bitsandbytes, which is not installed: "
            "pip install 'quanta-bench[gpu]', or set training.optimizer=adamw."
        ) from None
    optimizer: Any = AdamW8bit
    return optimizer(weights, lr=lr, weight_decay=weight_decay)  # type: ignore[no-any-return]


class Validation(NamedTuple):
    """One validation: after how many optimiser steps, the metric, the loss."""

    step: int
    metric: float
    loss: float


class FineTuning(pl.LightningModule):
    """Trains what a method declares trainable in an adapted model.

    Args:
        model: the adapted model.
        method: the method that adapted it.
        spec: the training spec.
        steps: optimiser steps of the whole run, for the schedule.
        data: the run's batches, which are cut smaller where memory does not suffice.
        judge: computes the validation metric of the model as it stands, in place of the
            objective's; the loss on the validation batches still breaks ties.
        turn: computes the passes of runs that are trained together; ``None`` for a run alone.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method[Any],
        spec: TrainingSpec,
        steps: int,
        data: BenchData,
        judge: Callable[[], float] | None = None,
        turn: Turn[Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.spec = spec
        self.steps = steps
        self.data = data
        self.judge = judge
        self.turn = turn
        self.tokens = 0
        self.losses: list[float] = []
        self._unread: tuple[int, Readback] | None = None
        self.validations: list[Validation] = []
        self.objective = objective_of(spec)
        self._judged: list[Judgement] = []
        self._validation = ExitStack()
        self._passes = ExitStack()
        # A step's batch is computed in as many micro-batches as its length asks for.
        self.automatic_optimization = False
        # A checkpoint holds what is trained; the frozen rest comes from the base model.
        self.strict_loading = False

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that train, as the method declares them."""
        return self.method.trainable(self.model)

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> None:
        """One optimiser step on a batch given as micro-batches.

        Its loss is read once the next step is queued, so that a GPU always has work. Where memory
        runs out, the step is computed again in smaller micro-batches, and so are all further ones.

        Raises:
            DivergedError: the loss of the step before is NaN or infinite.
            BenchError: memory does not suffice for a single item.
        """
        group = self.data.group
        own = [sum(map(self.objective.units, batch)), sum(part.tokens for part in batch)]
        units, tokens = group.totals(own)
        loss = self.turn.gradients(batch) if self.turn else self._gradients_alone(batch, units)
        if group.size > 1:
            self._add_up(loss)
        self.tokens += tokens
        unread = self.global_step + 1, Readback(loss)
        self._step()
        self._read_loss()
        self._unread = unread

    def _gradients_alone(self, batch: Sequence[Any], units: int) -> Tensor:
        """Add up the batch's gradients, in smaller micro-batches where memory runs out.

        Args:
            batch: what this process computes of it.
            units: of all of it.
        """
        if is_sharded(self.model):
            return self._gradients_in_step(batch, units)
        if not batch:
            return torch.zeros((), dtype=torch.float64, device=self.device)
        loss = self._gradients(batch, units)
        while loss is None:
            release_memory()
            loss = self._gradients(batch, units)
        return loss

    def _gradients_in_step(self, batch: Sequence[Any], units: int) -> Tensor:
        """The same in as many micro-batches as the process that has most.

        A spare one does not count. Where memory runs out, the run fails, to be tried again in
        smaller micro-batches by all processes: none can break a pass off alone.
        """
        missing = self.data.group.largest(len(batch)) - len(batch)
        parts = [*batch, *[self.data.spare().to(self.device)] * missing]
        weights = [*shares(self.objective, batch, units), *[0.0] * missing]
        return accumulate_gradients(
            self.objective, self.model, parts, backward=self.manual_backward, weights=weights
        )

    def _add_up(self, loss: Tensor) -> None:
        """Add up the gradients and the loss over the processes of the group.

        Once a step, and not in each backward pass as ``DistributedDataParallel`` does: processes
        have different numbers of micro-batches, and each may halve its own.
        """
        weights = [*self.trainable().values()]
        has = self.data.group.totals([value.grad is not None for value in weights])
        for value, count in zip(weights, has, strict=True):
            if count and value.grad is None:
                value.grad = torch.zeros_like(value)
        gradients = [value.grad for value in weights if value.grad is not None]
        self.data.group.add_up([*gradients, loss])

    def _gradients(self, batch: Sequence[Any], units: int) -> Tensor | None:
        """Add up the batch's gradients; ``None`` if it has to be cut smaller."""
        parts = self.data.within_budget(batch)
        try:
            return accumulate_gradients(
                self.objective,
                self.model,
                parts,
                backward=self.manual_backward,
                weights=shares(self.objective, parts, units),
            )
        except torch.OutOfMemoryError as error:
            self.zero_grad()
            if self.data.halve(parts):
                return None
            longest = max(part.input_ids.numel() for part in parts)
            again = "" if self.data.recomputed else " training.gradient_checkpointing=true,"
            raise BenchError(
                f"Memory does not suffice to train {self.method.name} on a single item of "
                f"{longest} tokens ({str(error).split('. ')[0]}). Set{again} a smaller "
                f"training.max_length (now {self.spec.max_length}) or take a smaller model."
            ) from None

    def _read_loss(self) -> None:
        """Record the loss that is not read yet.

        Raises:
            DivergedError: it is NaN or infinite.
        """
        if self._unread is None:
            return
        step, loss = self._unread
        self._unread = None
        self.losses.append(loss.tolist())
        if not math.isfinite(self.losses[-1]):
            raise self._diverged(f"the loss is {self.losses[-1]}", step)

    def _diverged(self, what: str, step: int) -> DivergedError:
        return DivergedError(
            f"Training {self.method.name} diverged at step {step} of {self.steps}: {what}. The "
            f"learning rate is {self.spec.learning_rate:g}: lower training.learning_rate"
            + (
                "."
                if self.spec.precision == "float32"
                else ", or compute in float32 (training.precision=float32)."
            )
        )

    def _step(self) -> None:
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        if self.spec.clip_norm:
            weights = [value for group in optimizer.param_groups for value in group["params"]]
            # Lightning's own clipping refuses fused optimisers, which might scale gradients.
            nn.utils.clip_grad_norm_(weights, self.spec.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()

    def on_validation_start(self) -> None:
        """Check the weights: after the last step no loss will show what it made of them.

        Raises:
            DivergedError: the last loss or a trained weight is NaN or infinite.
        """
        self._read_loss()
        weights = self.trainable()
        finite = torch.stack([value.isfinite().all() for value in weights.values()]).tolist()
        for name, sound in zip(weights, finite, strict=True):
            if not sound:
                raise self._diverged(f"{name} has weights that are not finite", self.global_step)
        if not self.turn:
            # What a method derives from its weights is one run's; a pass in common has many.
            self._validation.enter_context(still(self.method, self.model))
        self._passes.enter_context(in_step(self.model, self.data.group))

    def on_validation_end(self) -> None:
        """Let the method drop what it derived from the weights."""
        self._validation.close()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Judge a batch.

        Raises:
            DivergedError: an output of the model is NaN or infinite.
        """
        if not batch:
            return  # other processes have all items
        device = batch.input_ids.device

        def judge(items: Sequence[Any]) -> list[Judgement]:
            # As a rule all of the batch, which is on the device already.
            whole = len(items) == len(batch.items)
            part = batch if whole else self.data.collate(items).to(device)
            return self.objective.judge(self.model, part)

        with self._finite_outputs():
            self._judged += self.turn.judge(batch) if self.turn else in_halves(judge, batch.items)

    @contextmanager
    def _finite_outputs(self) -> Iterator[None]:
        try:
            yield
        except NonFiniteError as error:
            raise self._diverged(f"in validation, {error}", self.global_step) from None

    def on_validation_epoch_end(self) -> None:
        """Log the metric, the objective's own or the judge's, ties broken by the loss.

        Raises:
            DivergedError: the metric or the loss is NaN or infinite.
        """
        self._passes.close()
        # Every process of a group judges by all items, so that all keep the same checkpoint.
        self._judged = self.data.group.collect(self._judged)
        with self._finite_outputs():
            metric = self._metric()
        loss = mean_of_means([(item.task, item.loss) for item in self._judged])
        if not (math.isfinite(metric) and math.isfinite(loss)):
            what = f"the validation metric is {metric} and the validation loss {loss}"
            raise self._diverged(what, self.global_step)
        self._judged.clear()
        self.validations.append(Validation(self.global_step, metric, loss))
        self.log("validation/metric", metric)
        self.log("validation/loss", loss)
        # On a small validation set several checkpoints often get the same number right. The
        # smaller loss then decides. Its weight is too small to outweigh one item of thousands,
        # and large enough for float32, in which Lightning keeps what is logged.
        self.log(SELECTION, metric - 1e-4 * loss / (1 + loss))

    def _metric(self) -> float:
        if not self.judge:
            return self.objective.metric(self._judged)
        with still(self.method, self.model):
            return self.judge()

    def cpu(self) -> Self:
        """Stay on the device: Lightning would move the model off it after training.

        It is scored next, and other runs may share its base.
        """
        return self

    def configure_optimizers(self) -> Any:
        """AdamW on the declared parameters, with the spec's schedule by step.

        Raises:
            UsageError: the spec asks for moments of 8 bits, and bitsandbytes is not installed.
        """
        spec = self.spec
        weights = list(self.trainable().values())
        rate, decay = spec.learning_rate, spec.weight_decay
        if spec.optimizer == "adamw-8bit":
            optimizer = eight_bit_adamw(weights, lr=rate, weight_decay=decay)
        else:
            # On a GPU a step takes one kernel for many tensors; adapters have hundreds of them.
            on_gpu = all(value.is_cuda for value in weights)
            optimizer = torch.optim.AdamW(
                weights, lr=rate, weight_decay=decay, fused=on_gpu or None
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
        """Store what the run has counted so far, so that a resumed run reports all of it."""
        self._read_loss()
        checkpoint["tally"] = {
            "tokens": self.tokens,
            "losses": self.losses,
            "validations": [tuple(validation) for validation in self.validations],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counts from a checkpoint."""
        tally = checkpoint["tally"]
        self.tokens = tally["tokens"]
        self.losses = list(tally["losses"])
        self.validations = [Validation(*values) for values in tally["validations"]]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Reseed at the start of each interval, so that a resumed run draws the same numbers.

        Each process of a group draws its own, as its items are other ones.
        """
        if batch_idx == 0:
            seed = self.spec.seeds.init + 2**32 * self.current_epoch
            torch.manual_seed(seed + (self.data.group.rank << 56))
