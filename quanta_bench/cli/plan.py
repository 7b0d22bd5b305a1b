"""Render a plan for the screen: its rows, their settings, and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from quanta_bench.costs.gpu_hours import Cost
from quanta_bench.costs.plan import TASKS, Plan, PlanRow, Setting
from quanta_bench.references import short_names
from quanta_bench.spec import EvaluationSpec
from quanta_bench.utils.fitted_table import FittedTable


def on_screen(plan: Plan) -> RenderableType:
    """The plan as Rich draws it: the rows, then each distinct set of hyper-parameters."""
    parts: list[RenderableType] = [_rows(plan)]
    groups: dict[str, list[PlanRow]] = {}
    for row in plan.rows:
        # What never trains has no settings of training to tell.
        if not row.missing and row.trainable != 0:
            groups.setdefault(str((row.settings, row.training)), []).append(row)
    by_names = {
        ", ".join(f"{row.label} ({row.model})" for row in members): [
            *members[0].settings,
            *members[0].training,
        ]
        for members in groups.values()
    }
    shared = _shared([*by_names.values()])
    blocks = {"All trained rows": shared} | {
        names: [setting for setting in own if setting not in shared]
        for names, own in by_names.items()
    }
    for title, settings in blocks.items():
        if settings:
            parts += [Text(), _settings(title, settings)]
    parts.append(Text(f"\nScored on {_tasks(plan.tasks)}: {_scored(plan.evaluation)}."))
    parts += [Text(f"· {note}") for note in [*_row_notes(plan), *plan.notes]]
    return Group(*parts)


def _shared(groups: Sequence[Sequence[Setting]]) -> list[Setting]:
    """What several groups of rows have in common; nothing of a single group."""
    if len(groups) < 2:
        return []
    return [setting for setting in groups[0] if all(setting in own for own in groups)]


def _rows(plan: Plan) -> FittedTable:
    """Parameters, seeds and costs; no column that is empty for every row."""
    lines = [
        {
            "Model": row.model,
            "Row": row.label,
            "Trained": "–" if row.trainable is None else f"{row.trainable:,}",
            "%": "–" if row.percent is None else f"{row.percent:.4g}",
            "Printed": row.printed,
            "Verdict": row.missing or row.verdict,
            "Seeds": " ".join(map(str, row.seeds)),
            **(_cost(row.cost) if plan.gpu else {}),
            "Figures in the paper": (
                f"quoted from {row.quoted}" if row.quoted else "its own" if row.printed else ""
            ),
        }
        for row in plan.rows
    ]
    # Each line has all the headings.
    headings = lines[0] if lines else {}
    used = [heading for heading in headings if any(line[heading] for line in lines)]
    table = FittedTable(f"{plan.title}: plan of the profile {plan.profile!r}")
    for heading in used:
        table.add_column(
            heading,
            right=heading in ("Trained", "%", "GPU-hours a seed", "GPU memory"),
            label=heading in ("Model", "Row"),
            prose=heading in ("Verdict", "Seeds", "Items at once", "Figures in the paper"),
        )
    for line in lines:
        table.add_row(*(line[heading] or "–" for heading in used))
    return table


def _settings(title: str, settings: Sequence[Setting]) -> FittedTable:
    table = FittedTable(title)
    for heading in ("Setting", "Value", "Origin"):
        table.add_column(heading, label=heading == "Setting", prose=heading != "Setting")
    for setting in settings:
        table.add_row(setting.name, _value(setting), setting.origin)
    return table


def _value(setting: Setting) -> str:
    value = setting.value
    if setting.name == "tasks":
        return _tasks(value)
    if isinstance(value, (list, tuple)) and value:
        return ", ".join(map(str, value))
    return str(value)


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


def _cost(cost: Cost | None) -> dict[str, str]:
    if cost is None:
        return {"GPU-hours a seed": "", "GPU memory": "", "Items at once": ""}
    most = f"{cost.memory_bytes / 1e9:,.0f} GB"
    if cost.gpus > 1:
        most += f", {cost.gpus} GPUs"
    at_once = f"{cost.items} of {cost.batch_items}" if cost.items else "–"
    if cost.recomputed:
        at_once += ", recomputed"
    hours = _hours(cost.gpu_hours)
    return {"GPU-hours a seed": hours, "GPU memory": most, "Items at once": at_once}


def _hours(hours: float) -> str:
    """An estimate has two digits."""
    if hours < 0.01:
        return "< 0.01"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"
