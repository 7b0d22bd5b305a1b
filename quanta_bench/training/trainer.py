"""One training run, from a base model to its best checkpoint."""

from __future__ import annotations

import shutil
import signal
import struct
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from quanta_bench.errors import UsageError
from quanta_bench.method import Method
from quanta_bench.spec import TrainingSpec
from quanta_bench.training.curves import LearningCurves
from quanta_bench.training.datamodule import BenchData
from quanta_bench.training.module import SELECTION, FineTuning, Validation
from quanta_bench.training.single_process import alone
from quanta_bench.training.strategies import Replicas
from quanta_bench.training.together import Turn
from quanta_bench.utils.device import synchronize
from quanta_bench.utils.energy import EnergyMeter
from quanta_bench.utils.folders import whole_file

LOGS = "logs"
"""Folder of Lightning's own log, a version for each process that a run took."""


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training run returns; the model itself then holds its best weights.

    Attributes:
        tokens: real tokens trained on.
        losses: loss of every optimiser step.
        validations: every validation.
        best: the validation of the selected checkpoint.
        seconds: wall time, validation included, over all the processes that the run took; of a run
            trained with others, its share of their time.
        first_step_seconds: the part up to the end of a process's first step, which pays for what
            is built, compiled or probed once.
        steady_seconds: the part of all further steps, without validations and checkpoints.
        steady_tokens: real tokens of these further steps.
        elapsed: wall time, that of the others included.
        micro_batch_tokens: budget of a micro-batch at the end.
        halvings: how often memory ran out, and the budget was halved.
        joules: energy used in that time; ``None`` where it was not measured.
        resumed: whether the run resumed from a checkpoint.
    """

    tokens: int
    losses: list[float]
    validations: list[Validation]
    best: Validation
    seconds: float
    first_step_seconds: float
    steady_seconds: float
    steady_tokens: int
    elapsed: float
    micro_batch_tokens: int
    halvings: int
    joules: float | None
    resumed: bool

    @property
    def measured(self) -> dict[str, Any]:
        """What was measured, by its names in a training's record."""
        steady = self.steady_tokens / self.steady_seconds if self.steady_tokens else None
        return {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "first_step_seconds": self.first_step_seconds,
            "steady_tokens_per_second": steady,
            "joules": self.joules,
            "micro_batch_tokens": self.micro_batch_tokens,
            "losses": self.losses,
            "validations": [tuple(validation) for validation in self.validations],
            "best_step": self.best.step,
            "best_validation": self.best.metric,
            "resumed": self.resumed,
        }


class _StreamingCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint straight to its file; Lightning would build it in memory first, twice.

    With full fine-tuning that is 1.6 GB a copy. The file is renamed into place when complete.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        with whole_file(Path(path)) as stream:
            torch.save(checkpoint, stream)


class _MovableCheckpoint(ModelCheckpoint):
    """Remembers its checkpoints where their folder has moved.

    Lightning would forget the best score, so that the next validation, however bad, replaced it.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = Path(self.dirpath or "")

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: here(state_dict[name]) for name in paths}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(
            {**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath}
        )


class _Progress(pl.Callback):
    """Tells the reporter of every optimiser step."""

    def __init__(self, advance: Callable[[int, int], None]) -> None:
        self._advance = advance

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        self._advance(trainer.global_step, module.steps)


METER_SECONDS = 60.0
"""How often the energy counter is read; a processor's wraps around within 11 minutes at 100 W."""


class _Meters(pl.Callback):
    """Time and energy of the whole run, carried through checkpoints.

    Args:
        device: where the run computes; waited for after a process's first step and before each
            validation, and nowhere else.
        energy: a meter of the device.
        clock: the run's time so far in seconds; trained with others, its share of the wall time.
    """

    def __init__(
        self, device: torch.device, energy: EnergyMeter | None, clock: Callable[[], float]
    ) -> None:
        self._device = device
        self._energy = energy
        self._clock = clock
        self._seconds_before = 0.0
        self._joules_before: float | None = 0.0
        self.first_step_seconds = 0.0
        self.steady_seconds = 0.0
        self.steady_tokens = 0
        self._stepped = False
        self._read = time.monotonic()
        self._since: tuple[float, int] | None = None
        synchronize(device)
        self._elapsed_before = 0.0
        self._start = clock()
        self._begin = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._seconds_before + self._clock() - self._start

    @property
    def elapsed(self) -> float:
        return self._elapsed_before + time.perf_counter() - self._begin

    @property
    def joules(self) -> float | None:
        if self._energy is None or self._joules_before is None:
            return None
        return self._joules_before + self._energy.joules

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        if self._stepped and self._since is None:
            self._since = self._clock(), module.tokens

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        if not self._stepped:
            synchronize(self._device)
            self._stepped = True
            self.first_step_seconds += self._clock() - self._start
        if self._energy is not None and time.monotonic() - self._read >= METER_SECONDS:
            self._read = time.monotonic()
            self._energy.update()

    def on_validation_start(self, trainer: pl.Trainer, module: Any) -> None:
        if self._since is not None:
            synchronize(self._device)
            start, tokens = self._since
            self.steady_seconds += self._clock() - start
            self.steady_tokens += module.tokens - tokens
            self._since = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "elapsed": self.elapsed,
            "joules": self.joules,
            "first_step_seconds": self.first_step_seconds,
            "steady_seconds": self.steady_seconds,
            "steady_tokens": self.steady_tokens,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds_before = state_dict["seconds"]
        self._elapsed_before = state_dict.get("elapsed", self._seconds_before)
        self._joules_before = state_dict.get("joules")
        self.first_step_seconds = state_dict.get("first_step_seconds", 0.0)
        self.steady_seconds = state_dict.get("steady_seconds", 0.0)
        self.steady_tokens = state_dict.get("steady_tokens", 0)


def train(
    model: nn.Module,
    method: Method[Any],
    spec: TrainingSpec,
    data: BenchData,
    folder: Path,
    *,
    device: torch.device,
    precision: str,
    advance: Callable[[int, int], None],
    judge: Callable[[], float] | None = None,
    energy: EnergyMeter | None = None,
    turn: Turn[TrainingOutcome] | None = None,
    loggers: Sequence[Logger] = (),
) -> TrainingOutcome:
    """Train an adapted model and leave it with the weights of its best validation.

    In a group of processes, that of ``data``, each makes the same call and gets the same result,
    apart from its own timings and memory.

    Args:
        model: the adapted model; changed in place.
        method: the method that adapted it.
        spec: the training spec.
        data: its batches.
        folder: where checkpoints and metrics are kept; an interrupted run resumes from here.
        device: where to train.
        precision: Lightning's precision.
        advance: called with (steps done, all steps).
        judge: see :class:`quanta_bench.training.module.FineTuning`.
        energy: a meter of the device.
        turn: the run's place among others that are trained together with it, by which its passes
            are computed.
        loggers: receive the learning curves, beside the log in ``folder``.

    Raises:
        DivergedError: a loss, a validation or a weight is NaN or infinite.
        KeyboardInterrupt: the user stopped the run; its last checkpoint stays in ``folder``.
    """
    # Lightning keeps each module's mode as it finds it, and a loaded model is in evaluation mode:
    # without this, dropout would never act.
    model.train()
    # Before the clock: how fast a model is copied says nothing of how fast it trains.
    model.to(device)
    group = data.group
    # A method may compute its start in ways that differ in their last digits among devices.
    group.copy_from_leader([*method.trainable(model).values()])
    module = FineTuning(model, method, spec, data.steps, data, judge, turn)
    best = _MovableCheckpoint(
        folder,
        "best",
        monitor=SELECTION,
        mode="max",
        save_weights_only=True,
        enable_version_counter=False,
    )
    last = _MovableCheckpoint(folder, "last", enable_version_counter=False)
    meters = _Meters(device, energy, turn.clock if turn else time.perf_counter)
    resume = folder / "last.ckpt"
    resumed = group.agree(resume.exists)
    handler = signal.getsignal(signal.SIGINT)
    with nullcontext(turn.environment) if turn else alone(group) as environment:
        pl.seed_everything(spec.seeds.init, verbose=False)
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=group.size,
            strategy=Replicas() if group.size > 1 else "auto",
            use_distributed_sampler=False,  # the batches of `data` are shares already
            precision=precision,  # type: ignore[arg-type]
            max_epochs=len(data.intervals),
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            callbacks=[best, last, meters, _Progress(advance), LearningCurves(loggers)],
            logger=[CSVLogger(folder, name=LOGS), *loggers],
            plugins=[_StreamingCheckpoints(), environment],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(
                module,
                datamodule=data,
                ckpt_path=resume if resumed else None,
                weights_only=True,
            )
        except SystemExit:
            # Lightning turns Ctrl-C into an exit and leaves the signal ignored.
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
        finally:
            if turn is None:  # signals are the main thread's
                signal.signal(signal.SIGINT, handler)
    path = group.agree(lambda: best.best_model_path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    restore(module, checkpoint["state_dict"])
    model.eval()
    joules = group.gather(meters.joules)
    return TrainingOutcome(
        module.tokens,
        module.losses,
        module.validations,
        Validation(*checkpoint["tally"]["validations"][-1]),
        meters.seconds,
        meters.first_step_seconds,
        meters.steady_seconds,
        meters.steady_tokens,
        meters.elapsed,
        min(group.gather(data.tokens)),
        group.largest(data.halvings),
        None if joules[0] is None else sum(used or 0.0 for used in joules),
        resumed,
    )


def recompute_activations(model: Any) -> None:
    """Let a model of ``transformers`` compute its activations again in the backward pass.

    Raises:
        UsageError: the model cannot.
    """
    enable = getattr(model, "activation_checkpointing_enable", None)
    try:
        (enable or model.gradient_checkpointing_enable)()  # the name in older transformers
    except ValueError as error:
        raise UsageError(
            f"{type(model).__name__} cannot recompute activations. Set "
            "training.gradient_checkpointing=false; where memory is short, set a smaller "
            "training.max_length or take a smaller model."
        ) from error


def restore(module: FineTuning, state: dict[str, torch.Tensor]) -> None:
    """Copy a checkpoint's weights into the trained parameters.

    Raises:
        RuntimeError: the checkpoint holds other parameters, or weights that are not finite.
    """
    parameters = module.trainable()
    names = {f"model.{name}" for name in parameters}
    if names != set(state):
        raise RuntimeError(f"checkpoint and model differ in {sorted(names ^ set(state))[:3]}")
    for name, value in state.items():
        if not value.isfinite().all():
            raise RuntimeError(f"the checkpoint's {name} is not finite")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[f"model.{name}"])


def check_checkpoint(path: Path) -> None:
    """Check that a checkpoint is whole, by the checksums that its archive holds.

    Raises:
        ValueError: it is not.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, struct.error) as error:
        raise ValueError(f"{path.name}: {error}") from None
    if damaged is not None:
        raise ValueError(f"{path.name}: {damaged} was changed")


def check_checkpoints(folder: Path) -> None:
    """Check that an interrupted run's checkpoints are whole, and that its best one is there.

    Raises:
        ValueError: one is damaged, or there is none of the best validation.
    """
    for path in folder.glob("*.ckpt"):
        check_checkpoint(path)
    # The best one is written first.
    if (folder / "last.ckpt").exists() and not (folder / "best.ckpt").exists():
        raise ValueError("best.ckpt is missing")


def clear(folder: Path) -> None:
    """Remove a finished run's checkpoints and optimiser states."""
    shutil.rmtree(folder, ignore_errors=True)
