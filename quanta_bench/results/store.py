"""Results on disk: one folder a run, written whole or not at all, checked when read.

<root>/runs/<method>-<training>-<evaluation>/result.json       what was measured (see Result)
                                             predictions.jsonl one line an item; also read as .gz
                                             adapter/          what was trained
<root>/trainings/<training>/        training.json and adapter/, shared by its evaluations
<root>/unfinished/<training>/       checkpoints of a run in progress; removed when it is done
<root>/leases/<training>.json       which process computes it
<root>/failures/<run>.json          why attempts to compute a run failed
<root>/set-aside/<name>-<reason>/   what was not as written; never deleted, and computed again
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from quanta_bench.errors import BenchError
from quanta_bench.results import predictions
from quanta_bench.results.failures import Failures
from quanta_bench.results.integrity import (
    DamagedError,
    NewerSchemaError,
    check_adapter,
    folder_digests,
    read_record,
    sealed,
)
from quanta_bench.results.leases import Leases
from quanta_bench.results.litter import remove_litter
from quanta_bench.results.predictions import ItemScores
from quanta_bench.results.records import Result, TrainingRecord
from quanta_bench.utils.folders import check_writable, storage_errors, whole_folder

ADVICE = (
    "Free space there, or name another folder with --results; then rerun the command to resume."
)

T = TypeVar("T")
Stamp = tuple[int, ...]
"""By what a changed file is noticed: inode, size and time of change, in nanoseconds."""


class Store:
    """The results folder of one profile.

    Records and item scores are read once and kept; a file that has changed is read again.

    Args:
        root: the folder; made when first written to.

    Attributes:
        leases: which process computes which training.
        failures: why attempts to compute runs failed.
        notices: what was found damaged, was set aside or cannot be read, a sentence each; for the
            user.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.leases = Leases(root / "leases")
        self.failures = Failures(root / "failures")
        self.notices: list[str] = []
        self._results: _Cache[Result] = _Cache()
        self._trainings: _Cache[TrainingRecord] = _Cache()
        self._scores: _Cache[dict[str, ItemScores]] = _Cache()

    def run_folder(self, run: str) -> Path:
        """Where a run lies, whether or not it exists."""
        return self.root / "runs" / run

    def training_folder(self, training: str) -> Path:
        """Where a finished training lies, whether or not it exists."""
        return self.root / "trainings" / training

    def unfinished_folder(self, training: str) -> Path:
        """Where a training in progress keeps its checkpoints."""
        return self.root / "unfinished" / training

    def result(self, run: str) -> Result | None:
        """A finished run, or ``None``.

        Its record and its predictions are checked against their hashes; a record of version 1 has
        none, so of it only the form is checked.

        Raises:
            DamagedError: the record or the predictions are not what was written.
            NewerSchemaError: a later version of the suite wrote it.
        """
        folder = self.run_folder(run)
        stamp = _stamp(folder / "result.json") + _stamp(*_prediction_files(folder))
        if not (folder / "result.json").exists():
            return None
        known = self._results.get(run, stamp)
        if known is None:
            known = read_record(folder / "result.json", Result)
            if known.run != run:
                raise DamagedError(folder, "name", f"it is the run {known.run}")
            text = predictions.content(folder)
            if text is not None:
                predictions.check(text, folder, known)
                if not known.predictions_sha256:
                    # Without a hash, whether all of it can be read is what can be checked.
                    scores = predictions.item_scores(text, folder, known)
                    self._scores.put(run, stamp, scores)
            self._results.put(run, stamp, known)
        return known

    def training(self, training: str) -> TrainingRecord | None:
        """A finished training, or ``None``. Its adapter is checked by :meth:`adapter`.

        Raises:
            DamagedError, NewerSchemaError: as :meth:`result`.
        """
        path = self.training_folder(training) / "training.json"
        if not path.exists():
            return None
        stamp = _stamp(path)
        known = self._trainings.get(training, stamp)
        if known is None:
            known = read_record(path, TrainingRecord)
            if known.id != training:
                raise DamagedError(path.parent, "name", f"it is the training {known.id}")
            self._trainings.put(training, stamp, known)
        return known

    def adapter(self, record: TrainingRecord, run: str = "") -> Path:
        """The folder of a training's adapter, its files checked against the record.

        Args:
            record: the training.
            run: take the adapter stored next to this run.

        Raises:
            DamagedError: a file is missing, was changed or does not belong there.
        """
        home = self.run_folder(run) if run else self.training_folder(record.id)
        check_adapter(home / "adapter", record)
        return home / "adapter"

    def runs(self) -> list[str]:
        """The names of all finished runs, unread."""
        return sorted(path.parent.name for path in (self.root / "runs").glob("*/result.json"))

    def listed(self) -> set[str]:
        """The names of all folders of runs, by a single listing, which a network file system takes
        better than a look into each; a folder is whole unless it was damaged later.
        """
        try:
            names = (path.name for path in (self.root / "runs").iterdir())
            return {name for name in names if not name.startswith(".")}
        except FileNotFoundError:
            return set()

    def results(self) -> Iterator[Result]:
        """All finished runs, by name; one that cannot be read is left out, with a notice."""
        for run in self.runs():
            try:
                result = self.result(run)
            except (DamagedError, NewerSchemaError) as error:
                self.notice(f"Not read: {error}")
                continue
            if result is not None:
                yield result

    @contextmanager
    def write_training(self, record: TrainingRecord) -> Iterator[Path]:
        """A folder to put the adapter in; becomes the training when the block ends well.

        What is stored, with hashes of the adapter's files, is then read by :meth:`training`.

        Raises:
            RunInProgressError: another process has taken the training over.
        """
        with whole_folder(self.training_folder(record.id)) as folder:
            yield folder
            self.leases.confirm(record.id)
            files = folder_digests(folder / "adapter")
            size = sum((folder / "adapter" / name).stat().st_size for name in files) or None
            record = record.model_copy(update={"adapter": files, "adapter_bytes": size})
            _write(folder / "training.json", sealed(record))

    def write_run(self, result: Result, lines: Iterable[Mapping[str, Any]]) -> Result:
        """Store a finished run. Its adapter is linked from the training, not copied.

        Args:
            result: the result; hashes are filled in.
            lines: its judged items.

        Returns:
            The result as stored.

        Raises:
            BenchError: a score is not a finite number; nothing is stored.
            RunInProgressError: another process has taken the training over.
        """
        self.leases.confirm(result.training.id)
        with whole_folder(self.run_folder(result.run)) as folder:
            digest = predictions.write(folder, lines)
            adapter = self.training_folder(result.training.id) / "adapter"
            if adapter.is_dir():
                shutil.copytree(adapter, folder / "adapter", copy_function=_link)
            stored = sealed(result.model_copy(update={"predictions_sha256": digest}))
            # Last: where it exists, the run is whole.
            _write(folder / "result.json", stored)
        return stored

    def predictions(self, run: str) -> list[dict[str, Any]] | None:
        """The judged items of a finished run; ``None`` where they are not stored.

        Raises:
            DamagedError: they are not what was written.
        """
        folder = self.run_folder(run)
        text = predictions.content(folder)
        return None if text is None else list(predictions.parse(text, folder))

    def has_predictions(self, run: str) -> bool:
        """Whether a run's predictions are stored."""
        return any(path.exists() for path in _prediction_files(self.run_folder(run)))

    def item_scores(self, run: str) -> dict[str, ItemScores] | None:
        """The scores of a run's items by task, read once; ``None`` where they are not stored.

        Raises:
            DamagedError: they are not what was written.
        """
        folder = self.run_folder(run)
        stamp = _stamp(folder / "result.json") + _stamp(*_prediction_files(folder))
        known = self._scores.get(run, stamp)
        if known is None:
            result = self.result(run)
            known = self._scores.get(run, stamp)
            text = predictions.content(folder)
            if result is None or text is None:
                return None
            if known is None:
                known = predictions.item_scores(text, folder, result)
                self._scores.put(run, stamp, known)
        return known

    def set_aside(self, folder: Path, error: DamagedError) -> None:
        """Move a damaged folder out of the way, so that what it held is computed again.

        Args:
            folder: of a run, a training or an unfinished training of this store.
            error: why.

        Raises:
            BenchError: it cannot be moved.
        """
        kind = folder.parent.name
        name = folder.name if kind == "runs" else f"{kind.removesuffix('s')}-{folder.name}"
        start = target = self.root / "set-aside" / f"{name}-{error.reason}"
        number = 1
        while target.exists():
            number += 1
            target = start.with_name(f"{start.name}-{number}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
        except (FileNotFoundError, NotADirectoryError):
            return  # another process was faster
        except OSError as problem:
            raise BenchError(
                f"{error} It cannot be moved to {target.parent}: {problem.strerror}."
            ) from error
        self.notice(f"{error} Set aside as {target} and computed again.")

    def notice(self, text: str) -> None:
        """Note something for the user, once."""
        if text not in self.notices:
            self.notices.append(text)

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

    def remove_litter(self) -> None:
        """Remove what killed processes left, unless another process uses it.

        Raises:
            StorageError: the folder cannot be written.
        """
        with self.writing():
            remove_litter(self.root, self.leases)

    def bytes_used(self) -> int:
        """Disk space of everything below the root, each linked file once."""
        sizes: dict[tuple[int, int], int] = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                # Other processes remove files meanwhile.
                with suppress(FileNotFoundError):
                    found = Path(folder, name).lstat()
                    if stat.S_ISREG(found.st_mode):
                        sizes[found.st_dev, found.st_ino] = found.st_size
        return sum(sizes.values())


class _Cache(Generic[T]):
    """Values by name, each valid while its files keep their stamp."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[Stamp, T]] = {}

    def get(self, name: str, stamp: Stamp) -> T | None:
        known, value = self._values.get(name, (None, None))
        return value if known == stamp else None

    def put(self, name: str, stamp: Stamp, value: T) -> None:
        self._values[name] = stamp, value


def _stamp(*paths: Path) -> Stamp:
    numbers: list[int] = []
    for path in paths:
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            numbers.append(0)
        else:
            numbers += [stat.st_ino, stat.st_size, stat.st_mtime_ns]
    return tuple(numbers)


def _prediction_files(folder: Path) -> tuple[Path, Path]:
    return folder / predictions.FILE, folder / predictions.COMPRESSED


def _write(path: Path, record: BaseModel) -> None:
    path.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Some file systems have no hard links.
        shutil.copy2(source, target)
