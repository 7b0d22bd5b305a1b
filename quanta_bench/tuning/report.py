"""A study on the screen and in files: a line a trial, the chosen one marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType

from quanta_bench.report import sections as shown
from quanta_bench.report.overwriting import free_name
from quanta_bench.report.rate_study import RowStudy, Study, Trial
from quanta_bench.report.screen_notes import CAVEATS, SCORES, TRAINING
from quanta_bench.report.sections import Column, Section
from quanta_bench.runs.cells import Cells
from quanta_bench.tuning.rates import short
from quanta_bench.tuning.trials import Plan, Tunable
from quanta_bench.utils.escaping import csv_text

HEADER = (
    "label",
    "method",
    "model",
    "learning_rate",
    "state",
    "chosen",
    "score",
    "standard_error",
    "validation_loss",
    "perplexity",
    "perplexity_ratio",
    "steps",
    "runs",
    "why",
)


@dataclass(frozen=True)
class Line:
    """A trial with its row; the row's first line carries the label."""

    row: RowStudy
    trial: Trial
    first: bool

    @property
    def chosen(self) -> bool:
        """Whether the row's rate is this one."""
        return self.trial.rate == self.row.chosen


def lines(study: Study) -> list[Line]:
    """The trials of all rows."""
    return [
        Line(row, trial, not number)
        for row in study.rows
        for number, trial in enumerate(row.trials)
    ]


def section(study: Study) -> Section[Line]:
    """The trials as a grid."""
    several = len({row.model for row in study.rows}) > 1

    def label(line: Line) -> str:
        return line.row.label if line.first else ""

    columns = [Column[Line]("Method", label, right=False, label=True)]
    if several:
        columns.append(
            Column("Model", lambda line: line.row.model if line.first else "", right=False)
        )
    columns += [
        Column("Rate", lambda line: short(line.trial.rate)),
        Column("Score", lambda line: _score(line.trial)),
        Column("Loss", lambda line: _number(line.trial.loss, 3)),
    ]
    if study.bound is not None:
        columns.append(Column("Perplexity / base's", lambda line: _ratio(line.trial.ratio)))
    columns.append(Column("", _verdict, right=False))
    return Section(study.title, columns, lines(study))


def _score(trial: Trial) -> str:
    error = "" if trial.standard_error is None else f" ± {trial.standard_error:.1f}"
    return "–" if trial.score is None else f"{trial.score:.1f}{error}"


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"


def _ratio(value: float | None) -> str:
    """A ratio of perplexities, which has no upper bound in a spoiled model."""
    return f"{value:.1e}" if value is not None and value >= 1000 else _number(value, 2)


def _verdict(line: Line) -> str:
    return "chosen" if line.chosen else "" if line.trial.admissible else line.trial.state


def notes(study: Study) -> dict[str, list[str]]:
    """What the study is, by heading."""
    better = "lower" if study.lower_is_better else "higher"
    count = len(study.seeds)
    scores = [
        f"Score: {study.score}, on the validation items that selected the checkpoint, ± its "
        f"standard error over {'items' if count == 1 else 'seeds and items'}; {better} is better.",
        "The best score is chosen, of equal ones the smaller validation loss, then the smaller "
        "rate.",
    ]
    if study.bound is not None:
        scores.append(
            f"A rate is refused if running text is more than {study.bound:g} times as perplexing "
            "as to the base model. That text is no task's, so no test item of a column is read."
        )
    seeds = ", ".join(map(str, study.seeds))
    training = [
        f"{len(row.trials)} rates of {row.label}, {'a run' if count == 1 else f'{count} seeds'} "
        f"each ({'seed' if count == 1 else 'seeds'} {seeds}){_steps(row)}."
        for row in study.rows
    ]
    training += [_sensitivity(row) for row in study.rows if row.chosen is not None]
    training += [f"{label}: not tuned, {why}." for label, why in study.skipped.items()]
    training.append(f"Study {study.fingerprint}.")
    caveats = [note for row in study.rows for note in _caveats(row, study)]
    both = [*caveats, *study.notes]
    return {SCORES: scores, TRAINING: training} | ({CAVEATS: both} if both else {})


def _steps(row: RowStudy) -> str:
    steps = sorted({trial.steps for trial in row.trials if trial.steps})
    return f", {' or '.join(f'{count:,}' for count in steps)} steps a seed" if steps else ""


def _sensitivity(row: RowStudy) -> str:
    """What the neighbours of the chosen rate lose."""
    sides = [
        f"{abs(drop):.1f} {'worse' if drop >= 0 else 'better, but refused,'} {where}"
        for drop, where in (
            (row.sensitivity.below, "at the next smaller rate"),
            (row.sensitivity.above, "at the next larger one"),
        )
        if drop is not None
    ]
    return f"{row.label}, {short(row.chosen or 0)}: {', '.join(sides) or 'no neighbour scored'}."


def _caveats(row: RowStudy, study: Study) -> list[str]:
    found = []
    named = [
        f"{short(trial.rate)} ({trial.why.rstrip('.')})"
        for trial in row.trials
        if trial.state in ("refused", "diverged")
    ]
    if named:
        found.append(f"{row.label}, refused: {'; '.join(named)}.")
    failed = [short(trial.rate) for trial in row.trials if trial.state == "failed"]
    if failed:
        found.append(f"{row.label} has no rate chosen, because runs failed at {', '.join(failed)}.")
    elif row.chosen is None:
        found.append(f"{row.label} has no rate chosen, because all are refused.")
    elif row.at_edge:
        found.append(
            f"{row.label}: the best rate is at the edge of what was tried; the search stopped at "
            f"{study.most} rates (--max-rates)."
        )
    return found


def as_csv(study: Study) -> str:
    """One line a trial; cells without a value are empty."""
    rows = [
        (
            line.row.label,
            line.row.method,
            line.row.model,
            line.trial.rate,
            line.trial.state,
            line.chosen,
            line.trial.score,
            line.trial.standard_error,
            line.trial.loss,
            line.trial.perplexity,
            line.trial.ratio,
            line.trial.steps,
            " ".join(line.trial.runs),
            line.trial.why,
        )
        for line in lines(study)
    ]
    return csv_text(HEADER, rows)


def as_json(study: Study) -> str:
    """The study as data."""
    return study.model_dump_json(indent=1) + "\n"


def as_markdown(study: Study) -> str:
    """GitHub Markdown: the trials, the notes, the command."""
    made = {"Made by": [study.command]} if study.command else {}
    return shown.as_markdown(study.title, [section(study)], notes(study) | made)


def on_screen(study: Study) -> RenderableType:
    """The trials and the notes, for the terminal."""
    return shown.on_screen([section(study)], notes(study), f"{study.name}.md")


def write(study: Study, folder: Path) -> tuple[str, list[Path]]:
    """Write a study in every format.

    Returns:
        The stem of the files, see :func:`quanta_bench.report.overwriting.free_name`, and the files.
    """
    csv = as_csv(study)
    name = free_name(folder, study.name, csv)
    texts = {"md": as_markdown(study), "csv": csv, "json": as_json(study)}
    return name, shown.write(folder, name, texts)


def planned(plan: Plan, first: Sequence[Sequence[float]], most: int) -> RenderableType:
    """What a study would try, for the terminal.

    Args:
        plan: the rows.
        first: the first rates of each.
        most: the largest number of rates of a row.
    """
    columns: list[Column[tuple[Tunable, Sequence[float]]]] = [
        Column("Method", lambda row: row[0].row.spec.label, right=False, label=True),
        Column("First rates", lambda row: " ".join(map(short, row[1])), right=False, prose=True),
        Column("Runs", lambda row: f"{len(row[1]) * len(row[0].row.jobs):,}"),
        Column("At most", lambda row: f"{max(most, len(row[1])) * len(row[0].row.jobs):,}"),
    ]
    rows = list(zip(plan.rows, first, strict=True))
    grid = Section("Learning rates to try on validation items", columns, rows)
    skipped = [f"{label}: {why}." for label, why in plan.skipped.items()]
    return shown.on_screen([grid], {"Not tuned": skipped} if skipped else {})


def progress(cells: Sequence[Cells], scored: Mapping[int, float]) -> RenderableType:
    """A round of trials as it stands.

    Args:
        cells: its rows.
        scored: validation scores, by the row's place.
    """
    rows = list(enumerate(cells))
    columns: list[Column[tuple[int, Cells]]] = [
        Column("Trial", lambda row: row[1].row.spec.label, right=False, label=True),
        Column("Seeds", lambda row: f"{len(row[1].complete)}/{len(row[1].row.seeds)}"),
        Column("Score", lambda row: _number(scored.get(row[0]), 1)),
    ]
    return shown.on_screen([Section("Trials of this round", columns, rows)], {})
