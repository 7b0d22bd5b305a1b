"""Plan a table without running it: each row's size and settings, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from quanta_bench.costs.gpu_hours import Cost, Costs, assumptions
from quanta_bench.costs.gpus import DEFAULT_GPU, find_gpu
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.method import Row
from quanta_bench.models.meta import Counts
from quanta_bench.plugins import METHODS, build_method
from quanta_bench.spec import EvaluationSpec, TrainingSpec, meta_reference
from quanta_bench.suites.grid import GridRow
from quanta_bench.suites.loading import absent_tasks
from quanta_bench.suites.request import Request

DEFAULT = "the suite's default"
METHOD_DEFAULT = "the method's default"
TASKS = ", "
"""Between tasks that a value is for."""


class Setting(BaseModel):
    """One hyper-parameter and where it comes from."""

    name: str
    value: Any
    origin: str


class PlanRow(BaseModel):
    """One row of a plan.

    Attributes:
        label: the row's name.
        method: registered name of the method.
        model: the model.
        settings: the method's settings, defaults included.
        training: training hyper-parameters.
        trainable: trainable parameters, counted without weights; ``None`` if unknown.
        percent: their share in percent.
        percent_of: the denominator, as text.
        printed: the share as printed in the paper.
        verdict: whether the two agree at the printed precision: ``agrees``, ``differs`` or
            ``known-ambiguous``; empty if nothing is printed.
        ambiguity: why a known-ambiguous share cannot be reproduced.
        not_counted: why there is no count.
        quoted: the publication whose figures the paper quotes in this row.
        seeds: the seeds.
        missing: why the row cannot run.
        cost: estimated cost of one seed; ``None`` without an estimate.
        not_estimated: why a requested estimate is missing.
    """

    label: str
    method: str
    model: str
    settings: list[Setting] = []
    training: list[Setting] = []
    trainable: int | None = None
    percent: float | None = None
    percent_of: str = ""
    printed: str = ""
    verdict: str = ""
    ambiguity: str = ""
    not_counted: str = ""
    quoted: str = ""
    seeds: list[int] = []
    missing: str = ""
    cost: Cost | None = None
    not_estimated: str = ""


class Plan(BaseModel):
    """The plan of a table.

    Attributes:
        name: the table's short name.
        title: its caption.
        profile: the profile.
        tasks: the tasks scored.
        evaluation: the evaluation settings.
        rows: the rows.
        notes: notes for the reader.
        gpu: the GPU that costs are estimated for; empty without estimates.
        gpu_hours: the sum over all seeds of all rows with an estimate.
    """

    name: str
    title: str
    profile: str
    tasks: list[str]
    evaluation: dict[str, Any]
    rows: list[PlanRow]
    notes: list[str]
    gpu: str = ""
    gpu_hours: float | None = None


def make_plan(request: Request, gpu: str = "") -> Plan:
    """Plan a request: count parameters on the meta device, load no weights and no data.

    Args:
        request: the request.
        gpu: the GPU that costs are estimated for, a name in :mod:`quanta_bench.costs.gpus`. If
            empty, profiles with embedded models get no estimates, and others use their own GPU or
            the default one.

    Raises:
        UsageError: the GPU is unknown.
    """
    suite, profile, grid = request.suite, request.profile, request.grid
    notes = [profile.about] if profile.about else []
    name = request.size or profile.size
    if name in profile.sizes and profile.sizes[name].about:
        notes.append(f"Size {name!r}. {profile.sizes[name].about}")
    runs = sum(len(row.jobs) for row in grid if not row.missing)
    notes.append(f"{runs} runs.")
    if absent := absent_tasks(suite):
        notes.append(f"Nothing can run: these tasks are not registered: {', '.join(absent)}.")
    counts = Counts()
    first = next((row for row in grid if not row.missing), None)
    evaluation = _merge_specs([job[1] for job in _first_seed(first)]) if first else {}
    rows = [_row(row, request.profile_name, counts) for row in grid]
    if gpu or any(row.model.source != "embedded" for row in grid):
        gpu = gpu or profile.gpu or DEFAULT_GPU
        costs = Costs(find_gpu(gpu), counts)
        for shown, row in zip(rows, grid, strict=True):
            _estimate(shown, row, costs)
        if any(row.cost is not None for row in rows):
            notes += assumptions(costs.gpu, grid)
    estimated = [row for row in rows if row.cost is not None]
    return Plan(
        name=suite.name,
        title=suite.title,
        profile=request.profile_name,
        tasks=list(suite.tasks),
        evaluation=evaluation,
        rows=rows,
        notes=[*notes, *profile.notes],
        gpu=gpu,
        gpu_hours=_all_hours(estimated) if estimated else None,
    )


def agrees(percent: float, printed: str) -> bool:
    """Whether a percentage equals a printed one, such as ``"0.041%"``, at the printed precision."""
    digits = printed.rstrip("%")
    decimals = len(digits.partition(".")[2])
    return f"{percent:.{decimals}f}" == digits


@dataclass(frozen=True)
class Share:
    """A row's trainable parameters and whether their share matches the printed one.

    Attributes:
        trainable: trained parameters; ``None`` if they were not counted.
        percent: their share in percent.
        percent_of: the denominator, as text.
        verdict: ``agrees``, ``known-ambiguous``, ``differs``, ``missing method`` or ``not
            counted``; empty if nothing is printed.
        reason: why a known-ambiguous share cannot be reproduced, or why there is no count.
    """

    trainable: int | None = None
    percent: float | None = None
    percent_of: str = ""
    verdict: str = ""
    reason: str = ""


def share(row: GridRow, counts: Counts) -> Share:
    """Count a row and compare its share with the printed one, without weights."""
    if row.missing:
        return Share(verdict="missing method", reason=row.missing)
    try:
        count = counts.get(meta_reference(row.model), row.spec.method, row.spec.settings)
        fraction, of = count.share(row.denominator), str(row.denominator)
        if row.reference is not None:
            other = counts.get(
                meta_reference(row.model), row.reference.method, row.reference.settings
            )
            fraction, of = count.trainable / other.trainable, row.reference.label
    except BenchError as error:
        # The user's own model has no shipped configuration; its plan is shown anyway.
        return Share(verdict="not counted", reason=str(error))
    percent, printed, reason = 100 * fraction, row.spec.printed, ""
    if not printed:
        verdict = ""
    elif agrees(percent, printed):
        verdict = "agrees"
    elif row.spec.ambiguity:
        verdict, reason = "known-ambiguous", row.spec.ambiguity
    else:
        verdict = "differs"
    return Share(count.trainable, percent, of, verdict, reason)


def _row(row: GridRow, profile: str, counts: Counts) -> PlanRow:
    shown = PlanRow(
        label=row.spec.label or row.spec.method,
        method=row.spec.method,
        model=row.model.title,
        printed=row.spec.printed,
        quoted=row.spec.quoted,
        seeds=list(row.seeds),
        missing=row.missing,
    )
    if row.missing:
        return shown
    training = _merge_specs([job[0] for job in _first_seed(row)])
    shown.settings = _settings(row, profile)
    skipped = {"model", "method", "settings", "seeds", "precision", "source"}
    shown.training = [
        Setting(name=name, value=value, origin=row.origin.get(name, DEFAULT))
        for name, value in training.items()
        if name not in skipped
    ]
    shown.training.append(
        Setting(name="seeds", value=list(row.seeds), origin=row.origin.get("seeds", DEFAULT))
    )
    counted = share(row, counts)
    shown.trainable, shown.percent = counted.trainable, counted.percent
    shown.percent_of = counted.percent_of
    if counted.verdict == "not counted":
        shown.not_counted = counted.reason
    else:
        shown.verdict, shown.ambiguity = counted.verdict, counted.reason
    return shown


def _estimate(shown: PlanRow, row: GridRow, costs: Costs) -> None:
    """Fill in a row's cost, or why it is unknown."""
    if row.missing:
        return
    try:
        shown.cost = costs.row(row)
    except BenchError as error:
        shown.not_estimated = str(error)


def _all_hours(rows: Sequence[PlanRow]) -> float:
    return sum(len(row.seeds) * row.cost.gpu_hours for row in rows if row.cost is not None)


def _first_seed(row: GridRow) -> Sequence[tuple[TrainingSpec, EvaluationSpec]]:
    return row.jobs[: row.parts]


def _merge_specs(specs: Sequence[TrainingSpec | EvaluationSpec]) -> dict[str, Any]:
    """The settings of a seed's runs; settings that differ are given by task."""
    dumped = [spec.model_dump(mode="json") for spec in specs]
    merged: dict[str, Any] = {}
    for name, value in dumped[0].items():
        same = all(spec[name] == value for spec in dumped)
        by_task = {TASKS.join(spec["tasks"]): spec[name] for spec in dumped}
        merged[name] = value if same else {task: of for task, of in by_task.items() if of != ""}
    return merged


def _settings(row: GridRow, profile: str) -> list[Setting]:
    """The method's whole configuration, each field with its origin.

    A row's origins include those of its method's default row; these are dropped where the row has
    a different value.
    """
    method = METHODS.get(row.spec.method)
    values = build_method(row.spec.method, row.spec.settings).config.model_dump(mode="json")
    default = method.rows.get(profile, Row(label=""))
    usual = _values(row.spec.method, default.config)
    plain = _values(row.spec.method, {})
    settings = []
    for name, value in values.items():
        origin = row.origin.get(name, "")
        if value != usual.get(name) and origin == default.origin.get(name):
            origin = ""
        if not origin:
            is_set = name in row.spec.settings
            own = DEFAULT if is_set and value != plain.get(name) else METHOD_DEFAULT
            origin = row.origin.get("settings", own) if is_set else own
        settings.append(Setting(name=name, value=value, origin=origin))
    return settings


def _values(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        config: BaseModel = build_method(method, settings).config
    except UsageError:  # a method may have settings without a default
        return {}
    return config.model_dump(mode="json")
