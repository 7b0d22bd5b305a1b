"""The runs of a sweep: a row's trainings at other rates, scored on validation items.

The items are those that selected the checkpoint: the training's own tasks, source, sample and
number of them. Test items of a scored task are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quanta_bench.data.pools import Pools
from quanta_bench.errors import MissingDataError, UsageError
from quanta_bench.plugins import METHODS, find_protocol, find_task, is_registered
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import GridRow
from quanta_bench.suites.request import Request
from quanta_bench.suites.schema import ColumnSpec, RowSpec, Suite
from quanta_bench.tuning.rates import short

TEXT = "running_text"
"""What is read for the bound on perplexity where a suite's evaluation names no text."""
BASE = "none"
"""The method that leaves the base model as it is."""


@dataclass(frozen=True)
class Tunable:
    """A row to be tuned.

    Attributes:
        row: the row, its evaluations on validation items.
        present: its learning rate in the suite.
        declared: the learning rates that its method's class declares for a search.
    """

    row: GridRow
    present: float
    declared: tuple[float, ...]

    def at(self, rate: float) -> GridRow:
        """The row at another learning rate, labelled by it."""
        jobs = [
            (training.model_copy(update={"learning_rate": rate}), evaluation)
            for training, evaluation in self.row.jobs
        ]
        label = f"{self.row.spec.label}, {short(rate)}"
        spec = self.row.spec.model_copy(update={"label": label})
        return replace(self.row, spec=spec, jobs=tuple(jobs))

    @property
    def base(self) -> GridRow:
        """The base model on the same validation items and the same text."""
        jobs = [
            (training.model_copy(update={"method": BASE, "settings": {}}), evaluation)
            for training, evaluation in self.row.jobs
        ]
        spec = RowSpec(method=BASE, label=f"Base of {self.row.spec.label}")
        return replace(self.row, spec=spec, jobs=tuple(jobs))

    @property
    def has_text(self) -> bool:
        """Whether runs measure the perplexity of running text."""
        return all(evaluation.forgetting for _, evaluation in self.row.jobs)


@dataclass(frozen=True)
class Plan:
    """What of a request can be tuned.

    Attributes:
        rows: the rows.
        skipped: why other rows are not tuned, by label.
        columns: what the validation score is the mean of.
        notes: sentences.
    """

    rows: list[Tunable]
    skipped: dict[str, str]
    columns: tuple[ColumnSpec, ...]
    notes: list[str]

    @property
    def lower_is_better(self) -> bool:
        """Whether the columns are perplexities."""
        return _is_perplexity(self.columns[0])

    def without_text(self, why: str) -> Plan:
        """The same without the runs' reading of text."""
        rows = [replace(tunable, row=_without_text(tunable.row)) for tunable in self.rows]
        return replace(self, rows=rows, notes=[*self.notes, f"No bound on perplexity: {why}"])


def plan(request: Request, choice: Choice) -> Plan:
    """Choose the rows that train, on validation items.

    Args:
        request: the request.
        choice: the user's choice that it was made of.

    Raises:
        UsageError: no row trains, the suite's text is one of its tasks, or its columns are scores
            and perplexities, which have no mean.
    """
    rows, skipped = [], {}
    for row in request.grid:
        why = _not_tuned(row)
        if why:
            skipped[row.spec.label] = why
            continue
        rates = {training.learning_rate for training, _ in row.jobs}
        if len(rates) > 1:
            skipped[row.spec.label] = "its tasks have learning rates of their own"
            continue
        declared = METHODS.get(row.spec.method).search.get("learning_rate", ())
        tunable = _on_validation(_without_untouched(row, request.suite), choice)
        rows.append(Tunable(tunable, rates.pop(), tuple(declared)))
    if not rows:
        reasons = "; ".join(f"{label}: {why}" for label, why in skipped.items())
        raise UsageError(f"{request.suite.name} has nothing to tune. {reasons or 'No rows'}.")
    columns, notes = _columns(request.suite, rows)
    if len({_is_perplexity(column) for column in columns}) > 1:
        raise UsageError(
            f"{request.suite.name} has scores and perplexities in its columns, and their mean says "
            "nothing; tune a suite with one kind."
        )
    texts = {evaluation.forgetting for row in rows for _, evaluation in row.row.jobs}
    for text in sorted(texts & {column.task for column in columns}):
        raise UsageError(
            f"{text} is scored by {request.suite.name} and read for the bound on perplexity, for "
            "which there are test items alone: name another text with "
            '--set evaluation.forgetting=NAME, or none with --set evaluation.forgetting="".'
        )
    made = Plan(rows, skipped, columns, notes)
    if texts == {""}:
        made = made.without_text("no running text is read.")
    return made


def _not_tuned(row: GridRow) -> str:
    """Why a row has no learning rate to tune; empty if it has one."""
    if row.missing:
        return row.missing
    return "" if METHODS.get(row.spec.method).trains else "does not train"


def _without_untouched(row: GridRow, suite: Suite) -> GridRow:
    """A row without its runs on tasks that nothing trains on, which choose no rate."""
    untouched = {column.task for column in suite.shown_columns if column.untouched}
    jobs = [job for job in row.jobs if not untouched.issuperset(job[1].tasks)]
    return replace(row, jobs=tuple(jobs))


def _on_validation(row: GridRow, choice: Choice) -> GridRow:
    """A row whose evaluations score the validation items of its trainings."""
    given = "evaluation.forgetting" in (choice.settings or {})
    jobs = [(training, validation(training, scored, given)) for training, scored in row.jobs]
    return replace(row, jobs=tuple(jobs))


def validation(
    training: TrainingSpec, evaluation: EvaluationSpec, text_given: bool = False
) -> EvaluationSpec:
    """The evaluation on the items that select a training's checkpoint.

    Args:
        training: the training.
        evaluation: how the suite scores it on test items.
        text_given: whether the user named the text for the perplexity, if only by an empty name.
    """
    text = {
        "forgetting": evaluation.forgetting,
        "forgetting_source": evaluation.forgetting_source,
    }
    if not find_protocol(evaluation.protocol).prompts:
        text["forgetting"] = ""
    elif not evaluation.forgetting and not text_given and is_registered(TEXT):
        text = {"forgetting": TEXT, "forgetting_source": training.source}
    return evaluation.model_copy(
        update={
            "split": "validation",
            "tasks": training.tasks,
            "source": training.source,
            "items": training.validation_items,
            "sample": training.seeds.sample,
            **text,
        }
    )


def _without_text(row: GridRow) -> GridRow:
    jobs = [
        (training, evaluation.model_copy(update={"forgetting": ""}))
        for training, evaluation in row.jobs
    ]
    return replace(row, jobs=tuple(jobs))


def _columns(suite: Suite, rows: Sequence[Tunable]) -> tuple[tuple[ColumnSpec, ...], list[str]]:
    """The columns of the validation score, and a note if they are not the table's own.

    Those that the table's averages show, or all; of these the ones that have validation items,
    because the rows train on them. If that is none, the trained tasks by their main metrics.
    """
    trained = dict.fromkeys(
        task for tunable in rows for _, evaluation in tunable.row.jobs for task in evaluation.tasks
    )
    averaged = [key for average in suite.shown_averages for key in average.columns]
    # A loss in training says nothing of items that were not trained on.
    own = [c for c in suite.shown_columns if not (c.untouched or c.of_training)]
    shown = [column for column in own if not averaged or column.key in averaged]
    kept = tuple(column for column in shown if column.task in trained)
    if len(kept) == len(shown):
        return kept, []
    if kept:
        left = ", ".join(column.key for column in shown if column not in kept)
        return kept, [f"Not in the score, because nothing is trained on them: {left}."]
    names = ", ".join(trained)
    note = f"The score is that of what is trained on, {names}, not of the table's columns."
    return tuple(ColumnSpec(task=task) for task in trained), [note]


def _is_perplexity(column: ColumnSpec) -> bool:
    return find_task(column.task).kind == "perplexity"


def missing_text(tunables: Sequence[Tunable], pools: Pools) -> str:
    """Why the text for the bound cannot be read, if its source has none; empty if it has."""
    for tunable in tunables:
        for _, evaluation in tunable.row.jobs:
            if evaluation.forgetting:
                try:
                    pools.get(evaluation.forgetting, evaluation.forgetting_source, "test")
                except MissingDataError as error:
                    return str(error)
    return ""
