"""Results on disk: one folder a run, written whole or not at all.

<root>/runs/<training>-<evaluation>/result.json       what was measured (see Result)
                                    predictions.jsonl one line an item
                                    adapter/          what was trained
<root>/trainings/<training>/        training.json and adapter/, shared by its evaluations
<root>/unfinished/<training>/       checkpoints of a run in progress; removed when it is done
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from quanta_bench.errors import BenchError
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.utils.folders import whole_folder

M = TypeVar("M", bound=BaseModel)


class Record(BaseModel):
    """Base of what is stored. Unknown fields are kept out, so that a reader can trust the names."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), ser_json_inf_nan="strings")


class Environment(Record):
    """Where and with what a run was computed; recorded, never hashed.

    Attributes:
        packages: version of each package that matters.
        python: version of Python.
        platform: operating system and processor.
        device: name of the device.
        threads: number of processor threads used.
        jobs: how many runs the command computed at once; their seconds depend on each other.
        git_commit: commit of the checkout, or empty.
        git_dirty: whether the checkout had uncommitted changes.
    """

    packages: dict[str, str]
    python: str
    platform: str
    device: str
    threads: int
    jobs: int = 1
    git_commit: str = ""
    git_dirty: bool = False


class TrainingRecord(Record):
    """A finished training.

    Attributes:
        schema_version: version of this layout.
        id: identity of the training spec with its model and data.
        spec: the spec.
        label: name of the row that asked for it first.
        model: description of the base model.
        model_fingerprint: content hash of the base model.
        data: per task, fingerprints and versions of what was read.
        base_parameters: number of parameters of the base model.
        trainable_parameters: number of parameters that trained.
        added_parameters: trainable parameters that are not the base's own.
        head_parameters: those of a classification head, which are among the trainable ones; 0
            where the model has none.
        precision: dtype of the base's weights, and of the arithmetic.
        steps: optimiser steps.
        tokens: real tokens trained on, padding not counted.
        cut_items: training items whose context was cut.
        train_items: number of training items.
        validation_items: number of validation items.
        seconds: wall time of training, validation included.
        peak_memory_bytes: largest resident size of the process (CPU) or allocation (GPU).
        losses: training loss of every computed batch.
        validations: step, metric and loss of every validation.
        best_step: step of the checkpoint that was kept.
        best_validation: its validation metric.
        resumed: whether the run went on from a checkpoint after it was stopped.
        environment: where it was computed.
    """

    schema_version: Literal[1] = 1
    id: str
    spec: TrainingSpec
    label: str = ""
    model: str
    model_fingerprint: str
    data: dict[str, Any]
    base_parameters: int
    trainable_parameters: int = 0
    added_parameters: int = 0
    head_parameters: int = 0
    precision: dict[str, str]
    steps: int = 0
    tokens: int = 0
    cut_items: int = 0
    train_items: int = 0
    validation_items: int = 0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    losses: list[float] = []
    validations: list[tuple[int, float, float]] = []
    best_step: int = 0
    best_validation: float | None = None
    resumed: bool = False
    environment: Environment


class TaskResult(Record):
    """One task's scores.

    Attributes:
        title: column heading.
        kind: kind of task.
        metric: the metric that tables show.
        metrics: every metric; accuracies are fractions.
        items: number of items scored.
        groups: number of groups of related items among them.
        standard_error: of the main metric over items, robust to groups of related items;
            ``None`` with fewer than two groups.
        chance: the main metric of uniform guessing, where defined.
        cut_items: items whose context was cut.
        seconds: wall time.
        data: fingerprints and versions of what was read.
    """

    title: str
    kind: str
    metric: str
    metrics: dict[str, float]
    items: int
    groups: int
    standard_error: float | None
    chance: float | None = None
    cut_items: int = 0
    seconds: float
    data: dict[str, Any]


class Result(Record):
    """A finished run: one training, one evaluation of it.

    Attributes:
        schema_version: version of this layout.
        status: always ``"complete"``; a run that failed leaves no result.
        run: name of the run's folder.
        training: the training.
        evaluation: the evaluation spec.
        protocol: how items were put, trained on and scored.
        tasks: scores by task.
        forgetting: perplexity of running text after the run, by task.
        evaluation_precision: dtype of the base's weights, and of the arithmetic, while scoring.
        evaluation_seconds: wall time of scoring.
        tokens_per_second: real tokens trained on per second, validation included.
        evaluation_environment: where it was scored.
    """

    schema_version: Literal[1] = 1
    status: Literal["complete"] = "complete"
    run: str
    training: TrainingRecord
    evaluation: EvaluationSpec
    protocol: dict[str, str]
    tasks: dict[str, TaskResult]
    forgetting: dict[str, float] = {}
    evaluation_precision: dict[str, str] = {}
    evaluation_seconds: float
    tokens_per_second: float = 0.0
    evaluation_environment: Environment


class Store:
    """The results folder of one profile.

    Args:
        root: the folder; made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def run_folder(self, run: str) -> Path:
        """Where a run lies, whether or not it is there."""
        return self.root / "runs" / run

    def training_folder(self, training: str) -> Path:
        """Where a finished training lies, whether or not it is there."""
        return self.root / "trainings" / training

    def unfinished_folder(self, training: str) -> Path:
        """Where a training in progress keeps its checkpoints."""
        return self.root / "unfinished" / training

    def result(self, run: str) -> Result | None:
        """A finished run, or ``None``.

        Raises:
            BenchError: the file is there but cannot be read as a result.
        """
        return _read(self.run_folder(run) / "result.json", Result)

    def training(self, training: str) -> TrainingRecord | None:
        """A finished training, or ``None``."""
        return _read(self.training_folder(training) / "training.json", TrainingRecord)

    def results(self) -> Iterator[Result]:
        """All finished runs, by name."""
        for path in sorted((self.root / "runs").glob("*/result.json")):
            result = self.result(path.parent.name)
            if result is not None:
                yield result

    @contextmanager
    def write_training(self, record: TrainingRecord) -> Iterator[Path]:
        """A folder to put the adapter in; becomes the training when the block ends well."""
        with whole_folder(self.training_folder(record.id)) as folder:
            yield folder
            _write(folder / "training.json", record)

    def write_run(self, result: Result, predictions: Iterable[Mapping[str, Any]]) -> Path:
        """Store a finished run. Its adapter is linked from the training, not copied."""
        with whole_folder(self.run_folder(result.run)) as folder:
            with (folder / "predictions.jsonl").open("w", encoding="utf-8") as lines:
                for line in predictions:
                    lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            adapter = self.training_folder(result.training.id) / "adapter"
            if adapter.is_dir():
                shutil.copytree(adapter, folder / "adapter", copy_function=_link)
            _write(folder / "result.json", result)
        return self.run_folder(result.run)

    def predictions(self, run: str) -> list[dict[str, Any]]:
        """The judged items of a finished run."""
        # Not splitlines: it also splits at separators that stand unescaped inside JSON strings.
        with (self.run_folder(run) / "predictions.jsonl").open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def forget(self, training: str) -> None:
        """Remove a training and its checkpoints, so that it is computed again.

        Runs that scored it keep their own link to what it was.
        """
        for folder in (self.training_folder(training), self.unfinished_folder(training)):
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def computing(self, training: str) -> Iterator[None]:
        """Hold a training for this process while its block runs.

        Raises:
            BenchError: another process is computing it.
        """
        path = self.unfinished_folder(training).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, timeout=0):
                yield
                path.unlink(missing_ok=True)
        except Timeout:
            raise BenchError(
                f"Another process is computing {training} in {self.root}. Wait for it, or name "
                "another folder with --results."
            ) from None

    def bytes_used(self) -> int:
        """Disk space of everything below the root, each linked file once."""
        seen: dict[tuple[int, int], int] = {}
        for path in self.root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                stat = path.stat()
                seen[stat.st_dev, stat.st_ino] = stat.st_size
        return sum(seen.values())


def _read(path: Path, kind: type[M]) -> M | None:
    if not path.exists():
        return None
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BenchError(
            f"{path} cannot be read as a {kind.__name__} of this version "
            f"({error.error_count()} problems, first: {error.errors()[0]['msg']}). "
            "Move its folder away to compute it again."
        ) from None


def _write(path: Path, record: BaseModel) -> None:
    path.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Some file systems have no hard links.
        shutil.copy2(source, target)
