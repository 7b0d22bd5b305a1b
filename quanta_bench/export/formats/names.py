"""How a run and its model are named in other tools' files, and when it was written."""

from __future__ import annotations

import datetime
from pathlib import PurePath

from quanta_bench.export.stored import StoredRun
from quanta_bench.results.records import Result
from quanta_bench.utils.portable import portable

COLLECTION = "quanta-bench"
"""Under what name tools file the results of this suite."""


def model_name(result: Result) -> str:
    """A name for what a run trained: its base, its method, its training's identity."""
    record = result.training
    return portable(f"{_base(result)}-{record.spec.method}-{record.id}")


def run_name(result: Result) -> str:
    """A name for one scoring of what a run trained."""
    return portable(f"{_base(result)}-{result.run}")


def written(run: StoredRun) -> datetime.datetime:
    """When a run's record was written, in UTC, by the time of its file: the record has none."""
    path = run.store.run_folder(run.result.run) / "result.json"
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)


def _base(result: Result) -> str:
    return PurePath(result.training.spec.model.title).name
