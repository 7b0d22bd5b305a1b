"""How a run and its model are named in other tools' files, and when it was written."""

from __future__ import annotations

import datetime
import re
from pathlib import PurePath

from quanta_bench.export.stored import StoredRun
from quanta_bench.results.records import Result

COLLECTION = "quanta-bench"
"""Under what name tools file the results of this suite."""


def model_name(result: Result) -> str:
    """A name for what a run trained: its base, its method, its training's identity."""
    record = result.training
    return portable(f"{_base(result)}-{record.spec.method}-{record.id}")


def run_name(result: Result) -> str:
    """A name for one scoring of what a run trained."""
    return portable(f"{_base(result)}-{result.run}")


def portable(text: str) -> str:
    """A text as one component of a path on any system, and of a name on the hub."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "unnamed"


def written(run: StoredRun) -> datetime.datetime:
    """When a run's record was written, in UTC, by the time of its file: the record has none."""
    path = run.store.run_folder(run.result.run) / "result.json"
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)


def _base(result: Result) -> str:
    model = result.training.spec.model
    name = model.source.partition(":")[2] if model.name == "." else model.name
    return PurePath(name).name
