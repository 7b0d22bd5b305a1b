"""Loggers by name: the learning curves of trainings where a user watches them.

`--logger tensorboard` gives each training a logger of Lightning, tagged with its method, tasks and
seed. Its own files are in ``RESULTS/loggers/NAME``, unless the variables of its library say
otherwise. What is logged: at each optimiser step ``training/loss`` and
``training/learning_rate``, at each validation ``validation/metric`` and ``validation/loss``.

A logger is no part of a training's spec, so that a run has the same name with and without it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quanta_bench.errors import BenchError, UsageError, did_you_mean
from quanta_bench.references import short_names

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from quanta_bench.results.records import TrainingRecord

FOLDER = "loggers"
"""Folder of a results folder with what loggers write."""

PROJECT = "quanta-bench"
"""The project or experiment under which loggers file runs."""

PACKAGES = {
    "csv": "",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}
"""The loggers, and the package that each needs; of `mlflow`, `mlflow-skinny` is enough."""


def read_loggers(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once.

    Raises:
        UsageError: there is no such logger, or its package is not installed.
    """
    for name in names:
        if name not in PACKAGES:
            raise UsageError(f"There is no logger {name!r}. {did_you_mean(name, PACKAGES)}")
        package = PACKAGES[name]
        if package and importlib.util.find_spec(package) is None:
            raise UsageError(
                f"--logger {name} needs the package {package}, which is not installed: "
                f"pip install {package}, or pip install 'quanta-bench[loggers]' for all loggers."
            )
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class LoggedRun:
    """What loggers say of a training.

    Attributes:
        name: its name there.
        tags: by which users select it, with their values.
        labels: the tags for loggers whose tags are words.
        settings: its spec, nested settings with dots in their names.
    """

    name: str
    tags: Mapping[str, str]
    labels: Sequence[str]
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, record: TrainingRecord) -> LoggedRun:
        """Of the training that a record describes."""
        spec = record.spec
        seed, tasks = spec.seeds.init, [*short_names(spec.tasks).values()]
        return cls(
            name=f"{spec.method}-seed{seed}-{record.id}",
            tags={
                "method": spec.method,
                "task": ",".join(tasks),
                "seed": str(seed),
                "row": record.label,
                "model": record.model,
                "training": record.id,
            },
            labels=[spec.method, *tasks, f"seed {seed}"],
            settings=dict(_flat(spec.model_dump(mode="json"))),
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """Tags and settings; a tag has precedence over a setting of its name."""
        return {**self.settings, **self.tags}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, str | int | float):
            yield prefix + key, value
        else:
            yield prefix + key, str(value)


@contextmanager
def open_loggers(names: Sequence[str], results: Path, run: LoggedRun) -> Iterator[list[Logger]]:
    """A logger of Lightning for each name; all are closed at the end.

    Args:
        names: of `PACKAGES`.
        results: the results folder.
        run: what they are told of the training.

    Raises:
        BenchError: one cannot be started, as where its server does not answer.
    """
    with ExitStack() as stack:
        opened = []
        for name in names:
            try:
                logger = stack.enter_context(_OPENERS[name](results / FOLDER / name, run))
            except Exception as error:  # of any library
                reason = str(error).rstrip(".") or type(error).__name__
                raise BenchError(
                    f"The logger {name} could not be started: {reason}.{_ADVICE.get(name, '')}"
                ) from error
            opened.append(logger)
        yield opened


@contextmanager
def _csv(folder: Path, run: LoggedRun) -> Iterator[Logger]:
    """``NAME/version_0/metrics.csv``, and ``hparams.yaml`` beside it."""
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(folder, name=run.name)
    logger.log_hyperparams(run.parameters)
    yield logger


@contextmanager
def _tensorboard(folder: Path, run: LoggedRun) -> Iterator[Logger]:
    """``NAME/version_0`` with scalars; tags and settings in the tab of hyperparameters."""
    from lightning.pytorch.loggers import TensorBoardLogger
    from torch.utils.tensorboard.summary import hparams

    logger = TensorBoardLogger(str(folder), name=run.name, default_hp_metric=False)
    logger.log_hyperparams(run.parameters)
    known = {key: value for key, value in run.parameters.items() if value is not None}
    # Lightning's own way would log a value of each metric too, before there is one.
    for summary in hparams(known, {"validation/metric": 0.0, "validation/loss": 0.0}):  # type: ignore[no-untyped-call]
        logger.experiment.file_writer.add_summary(summary)
    yield logger


@contextmanager
def _wandb(folder: Path, run: LoggedRun) -> Iterator[Logger]:
    """A run of the project, online or as WANDB_MODE says."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    folder.mkdir(parents=True, exist_ok=True)
    # Lightning's own call asks for anonymous runs in a way that W&B has given up, and warns of.
    experiment = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=run.name,
        dir=folder,
        tags=[label[:WANDB_TAG] for label in run.labels],
        config=run.parameters,
        # Runs that are trained together are open at once.
        reinit="create_new",
        settings=wandb.Settings(console="off"),
    )
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    failed = 1
    try:
        yield WandbLogger(experiment=experiment)
        failed = 0
    finally:
        experiment.finish(exit_code=failed)


WANDB_TAG = 64
"""Characters of a tag that W&B takes."""


@contextmanager
def _mlflow(folder: Path, run: LoggedRun) -> Iterator[Logger]:
    """A run of the experiment, on the server that MLFLOW_TRACKING_URI names or in files."""
    from filelock import FileLock
    from lightning.pytorch.loggers import MLFlowLogger

    folder.mkdir(parents=True, exist_ok=True)
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        # Workers that start at once may not create one database together, but files they can share.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        address = (folder / "mlruns").absolute().as_uri()
    logger = MLFlowLogger(
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        run_name=run.name,
        tracking_uri=address,
        tags=dict(run.tags),
    )
    with FileLock(folder / "experiment.lock"):
        logger.log_hyperparams(run.parameters)
    yield logger


@contextmanager
def _trackio(folder: Path, run: LoggedRun) -> Iterator[Logger]:
    """A run of the project, in files or in the space that TRACKIO_SPACE_ID names."""
    os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))
    from quanta_bench.training.trackio_logger import TrackioLogger

    yield TrackioLogger(PROJECT, run.name, run.parameters)


Opener = Callable[[Path, LoggedRun], AbstractContextManager["Logger"]]

_OPENERS: dict[str, Opener] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}

_ADVICE = {
    "wandb": " WANDB_MODE=offline keeps runs on this machine.",
    "mlflow": " Without MLFLOW_TRACKING_URI, runs are kept on this machine.",
    "trackio": " Without TRACKIO_SPACE_ID and TRACKIO_SERVER_URL, runs are kept on this machine.",
}
"""What to do where a logger's server cannot be reached."""
