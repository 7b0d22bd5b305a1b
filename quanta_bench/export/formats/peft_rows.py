"""Read results of `peft`'s method comparison, and show them beside our own runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from quanta_bench.errors import UsageError
from quanta_bench.export.formats.method_comparison import method_comparison
from quanta_bench.export.stored import StoredRun
from quanta_bench.references import short_names
from quanta_bench.utils.fitted_table import FittedTable
from quanta_bench.utils.json_text import parse_json
from quanta_bench.utils.settings import problems

SCORE = "test accuracy"


@dataclass(frozen=True)
class Row:
    """An experiment of the method comparison, theirs or ours in their terms.

    Attributes:
        experiment: its name.
        by: whose it is.
        kind: `peft`'s type of the adapter, or ``full-finetuning``.
        model: the base model.
        data: the data sets.
        accuracy: on the test items, a fraction.
        loss: mean training loss of the last steps, nats.
        trained: number of parameters trained.
        total: number of all parameters.
        file_bytes: size of what was saved; ``None`` where it is not known.
        memory_bytes: peak memory of the accelerator; ``None`` where it is not known.
        seconds: of training.
        tokens: trained on.
        forgetting: by how much running text is predicted worse than by the base, nats a token.
        created: when, as ISO 8601.
    """

    experiment: str
    by: Literal["peft", "quanta-bench"]
    kind: str
    model: str
    data: str
    accuracy: float
    loss: float
    trained: int
    total: int
    file_bytes: int | None
    memory_bytes: int | None
    seconds: float
    tokens: int | None
    forgetting: float | None
    created: str


class _Part(BaseModel):
    """What is read of a file; it may hold more."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class _PeftConfig(_Part):
    peft_type: str


class _TrainConfig(_Part):
    model_id: str


class _RunInfo(_Part):
    created_at: str
    experiment_name: str
    train_config: _TrainConfig
    peft_config: _PeftConfig | None


class _TrainInfo(_Part):
    status: str
    accelerator_memory_max: int
    train_time: FiniteFloat
    file_size: int
    num_trainable_params: int
    num_total_params: int
    metrics: list[dict[str, Any]]


class _MetaInfo(_Part):
    dataset_info: dict[str, Any] = {}


class _File(_Part):
    run_info: _RunInfo
    train_info: _TrainInfo
    meta_info: _MetaInfo


class _Last(_Part):
    accuracy: FiniteFloat = Field(alias=SCORE)
    loss: FiniteFloat = Field(alias="train loss")
    tokens: int | None = Field(None, alias="train total tokens")
    forgetting: FiniteFloat | None = None


@dataclass(frozen=True)
class Read:
    """The rows of a folder, and how many of its files have none.

    Attributes:
        rows: one an experiment, model and type: the latest, as `peft` shows them.
        skipped: files of trainings that did not succeed, or without an accuracy on test items.
    """

    rows: list[Row]
    skipped: int


def read(folder: Path) -> Read:
    """Read a folder of results, such as ``method_comparison/MetaMathQA/results`` of `peft`.

    Raises:
        UsageError: there is no such folder, it has no such result, or a file is none.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. --beside takes a folder of peft's results.")
    paths = sorted(folder.glob("*.json"))
    rows, skipped = [], 0
    for path in paths:
        row = _parse(path)
        if row is None:
            skipped += 1
        else:
            rows.append(row)
    if not rows:
        raise UsageError(
            f"{folder} has no finished result with a test accuracy among its {len(paths)} files "
            "*.json. --beside takes a folder such as method_comparison/MetaMathQA/results of peft."
        )
    latest: dict[tuple[str, str, str], Row] = {}
    for row in sorted(rows, key=lambda row: row.created):
        latest[row.experiment, row.model, row.kind] = row
    return Read(list(latest.values()), skipped)


def ours(runs: Iterable[StoredRun]) -> list[Row]:
    """Runs as rows: their records, read back."""
    records = [record for run in runs for record in method_comparison(run)]
    return [row for record in records if (row := _row(_File(**record), "quanta-bench"))]


def _parse(path: Path) -> Row | None:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise UsageError(f"{path} is no result of peft's method comparison: no JSON object.")
        return _row(_File.model_validate(content), "peft")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no JSON: {error}.") from error
    except ValidationError as error:
        raise UsageError(
            f"{path} is no result of peft's method comparison: {problems(error)}."
        ) from error


def _row(file: _File, by: Literal["peft", "quanta-bench"]) -> Row | None:
    run, train = file.run_info, file.train_info
    if train.status != "success" or not train.metrics or SCORE not in train.metrics[-1]:
        return None
    last = _Last.model_validate(train.metrics[-1])
    return Row(
        experiment=run.experiment_name,
        by=by,
        kind=run.peft_config.peft_type if run.peft_config else "full-finetuning",
        model=run.train_config.model_id,
        data=", ".join(short_names(file.meta_info.dataset_info).values()),
        accuracy=last.accuracy,
        loss=last.loss,
        trained=train.num_trainable_params,
        total=train.num_total_params,
        file_bytes=train.file_size or None,
        memory_bytes=train.accelerator_memory_max or None,
        seconds=train.train_time,
        tokens=last.tokens,
        forgetting=last.forgetting,
        created=run.created_at,
    )


def on_screen(rows: Sequence[Row]) -> FittedTable:
    """The rows by base model and data, the most accurate first."""
    table = FittedTable("peft's method comparison and runs of this suite")
    table.add_column("Experiment", label=True)
    for heading in ("Model", "Data", "By", "Type"):
        table.add_column(heading)
    for heading in (
        "Test accuracy", "Forgetting, nats", "Train loss", "Trained", "% of all", "File, MiB",
        "GPU, GiB", "Train, s", "Tokens",
    ):  # fmt: skip
        table.add_column(heading, right=True)
    for row in sorted(rows, key=lambda row: (row.model, row.data, -row.accuracy)):
        table.add_row(
            row.experiment,
            row.model,
            row.data,
            row.by,
            row.kind,
            f"{row.accuracy:.3f}",
            _number(row.forgetting, ".3f"),
            f"{row.loss:.3f}",
            f"{row.trained:,}",
            f"{100 * row.trained / row.total:.3g}" if row.total else "–",
            _number(row.file_bytes, ",.1f", 2**20),
            _number(row.memory_bytes, ".1f", 2**30),
            f"{row.seconds:,.0f}",
            _number(row.tokens, ","),
        )
    return table


def _number(value: float | None, form: str, unit: int = 1) -> str:
    if value is None:
        return "–"
    return format(value if unit == 1 else value / unit, form)
