"""Render a plan for the screen: its rows, their settings, and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from quanta_bench.costs.gpu_hours import Cost
from quanta_bench.costs.plan import TASKS, Plan, PlanRow
from quanta_bench.references import short_names
from quanta_bench.spec import EvaluationSpec
from quanta_bench.utils.fitted_table import FittedTable


def on_screen(plan: Plan) -> RenderableType:
    """The plan as Rich draws it: the rows, then each distinct set of hyper-parameters."""
    rows = FittedTable(f"{plan.title}: plan of the profile {plan.profile!r}")
    numbers = ("Trained", "%", *(("GPU-hours a seed", "GPU memory") if plan.gpu else ()))
    computed = ("Items at once",) if plan.gpu else ()
    headings = ("Model", "Row", *numbers[:2], "Printed", "Verdict", "Seeds", *numbers[2:])
    for heading in (*headings, *computed, "Figures in the paper"):
        rows.add_column(
            heading,
            right=heading in numbers,
            label=heading in ("Model", "Row"),
            prose=heading in ("Verdict", "Seeds", "Items at once", "Figures in the paper"),
        )
    groups: dict[str, list[PlanRow]] = {}
    for row in plan.rows:
        rows.add_row(
            row.model,
            row.label,
            "–" if row.trainable is None else f"{row.trainable:,}",
            "–" if row.percent is None else f"{row.percent:.4g}",
            row.printed or "–",
            row.missing or row.verdict,
            " ".join(map(str, row.seeds)),
            *(_cost(row.cost) if plan.gpu else ()),
            f"quoted from {row.quoted}" if row.quoted else "its own" if row.printed else "",
        )
        if not row.missing:
            key = str((row.settings, row.training))
            groups.setdefault(key, []).append(row)
    parts: list[RenderableType] = [rows]
    for members in groups.values():
        first = members[0]
        names = ", ".join(f"{row.label} ({row.model})" for row in members)
        settings = FittedTable(names)
        for heading in ("Setting", "Value", "Origin"):
            settings.add_column(heading, label=heading == "Setting", prose=heading != "Setting")
        for setting in [*first.settings, *first.training]:
            value = _tasks(setting.value) if setting.name == "tasks" else str(setting.value)
            settings.add_row(setting.name, value, setting.origin)
        parts += [Text(), settings]
    parts.append(Text(f"\nScored on {_tasks(plan.tasks)}: {_scored(plan.evaluation)}."))
    parts += [Text(f"· {note}") for note in [*_row_notes(plan), *plan.notes]]
    return Group(*parts)


def _scored(evaluation: Mapping[str, Any]) -> str:
    """The evaluation in words: items, split and protocol, then what is not at its default."""
    if not evaluation:
        return "nothing"  # no row can run
    defaults = {name: field.default for name, field in EvaluationSpec.model_fields.items()}
    parts = [
        f"{_by_task(evaluation['items'], none='all')} items a task",
        f"split {_by_task(evaluation['split'])}",
        f"protocol {_by_task(evaluation['protocol'])}",
    ]
    told = ("tasks", "items", "split", "protocol")
    parts += [
        f"{name.replace('_', ' ')} {_by_task(value)}"
        for name, value in evaluation.items()
        if name not in told and value != defaults[name]
    ]
    return "; ".join(parts)


def _tasks(references: Sequence[str]) -> str:
    return TASKS.join(short_names(references).values())


def _by_task(value: Any, none: str = "none") -> str:
    """A setting; one that differs among tasks is a mapping, and says whose each value is."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{_by_task(of, none)} ({_tasks(task.split(TASKS))})" for task, of in value.items()
        )
    return none if value is None else str(value)


def _row_notes(plan: Plan) -> list[str]:
    rows_by_note: dict[str, list[str]] = {}
    for row in plan.rows:
        name = f"{row.label} ({row.model})"
        if row.ambiguity:
            rows_by_note.setdefault(f"known-ambiguous: {row.ambiguity}", []).append(name)
        if row.not_counted:
            rows_by_note.setdefault(f"parameters not counted: {row.not_counted}", []).append(name)
        if row.not_estimated:
            rows_by_note.setdefault(f"no estimate: {row.not_estimated}", []).append(name)
        if row.cost is not None and row.cost.gpus > 1:
            note = (
                f"needs the memory of {row.cost.gpus} GPUs of {plan.gpu} at least, an item at a "
                "time with activations recomputed; --strategy fsdp with so many --devices spreads "
                "its frozen weights"
            )
            rows_by_note.setdefault(note, []).append(name)
    notes = [f"{', '.join(names)}: {note}" for note, names in rows_by_note.items()]
    if plan.gpu_hours is not None:
        notes.append(f"All seeds of all rows with an estimate: {_hours(plan.gpu_hours)} GPU-hours.")
    return notes


def _cost(cost: Cost | None) -> tuple[str, str, str]:
    if cost is None:
        return "–", "–", "–"
    most = f"{cost.memory_bytes / 1e9:,.0f} GB"
    if cost.gpus > 1:
        most += f", {cost.gpus} GPUs"
    at_once = f"{cost.items} of {cost.batch_items}" if cost.items else "–"
    if cost.recomputed:
        at_once += ", recomputed"
    return _hours(cost.gpu_hours), most, at_once


def _hours(hours: float) -> str:
    """An estimate has two digits."""
    if hours < 0.01:
        return "< 0.01"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"
