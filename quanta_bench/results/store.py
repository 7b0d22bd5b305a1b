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
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from quanta_bench.errors import BenchError, RunInProgressError
from quanta_bench.results.records import M, Result, TrainingRecord
from quanta_bench.utils.folders import check_writable, storage_errors, whole_folder

ADVICE = (
    "Make room there, or name another folder with --results; the same command then goes on "
    "where it stopped."
)


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
                    lines.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
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

    def check_writable(self) -> None:
        """Raise an error if nothing can be stored.

        Raises:
            StorageError: the folder is read-only, or its disk is full.
        """
        check_writable(self.root, ADVICE)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Report in one message that the store cannot be written, whatever finds out first.

        Raises:
            StorageError: the disk is full or read-only.
        """
        with storage_errors(self.root, ADVICE):
            yield

    @contextmanager
    def computing(self, training: str, *, wait: bool = False) -> Iterator[None]:
        """Hold a training for this process while its block runs.

        Args:
            training: its name.
            wait: wait while another process is computing it.

        Raises:
            RunInProgressError: another process is computing it, and ``wait`` is false.
        """
        path = self.unfinished_folder(training).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise RunInProgressError(
                f"Another process is computing {training} in {self.root}. Wait for it, or name "
                "another folder with --results."
            ) from None
        try:
            yield
            path.unlink(missing_ok=True)
        finally:
            lock.release()

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
