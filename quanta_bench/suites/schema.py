"""How a suite's YAML file lays a table out: rows, columns, averages, sizes, profiles."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from quanta_bench.errors import did_you_mean
from quanta_bench.spec import Denominator, Frozen

TRAINING_LOSS = "training_loss"
"""The metric of a column that shows the loss in training, which every trained task has."""

NAME = r"^[\w-]+$"
LONGEST_NAME = 100
"""Names that become parts of file names, and the characters of the longest."""


class RowSpec(Frozen):
    """One row of a profile. Whatever is not said comes from the method's own default row.

    Attributes:
        method: registered name of the method.
        label: the row's name.
        model: the model it runs on, by a name of :mod:`quanta_bench.models.meta` or of the source;
            empty for the profile's.
        revision: the model's revision on the hub; empty for its newest.
        settings: settings of the method.
        training: settings of its training.
        evaluation: settings of its evaluation.
        origin: where each of those comes from.
        printed: the trainable share as the paper prints it.
        ambiguity: why that share cannot be reproduced, where no reading of the paper gives it.
        quoted: whose figures the paper quotes in this row, if it did not run it itself.
        denominator: of the trainable share; empty for the profile's.
        relative_to: label of the profile's row, on the same model, of whose trained parameters
            the share is taken; empty for a share of the model's parameters.
        line: drawn in a figure as a line over its whole width, not as a point of a curve.
    """

    method: str
    label: str = Field("", max_length=300)
    model: str = ""
    revision: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)
    origin: dict[str, str] = Field(default_factory=dict)
    printed: str = ""
    ambiguity: str = ""
    quoted: str = ""
    denominator: Denominator | Literal[""] = ""
    relative_to: str = ""
    line: bool = False


def rows_of(rows: Any) -> Any:
    """Rows as a file has them, a bare name made a mapping."""
    if not isinstance(rows, (list, tuple)):
        return rows
    return [{"method": row} if isinstance(row, str) else row for row in rows]


class Size(Frozen):
    """How much data and how many seeds, and rows whose settings hold for that much data.

    Attributes:
        about: what this size can and cannot show.
        seeds: seeds of every row.
        training: training settings.
        evaluation: evaluation settings.
        untouched: evaluation settings of the profile's untouched tasks.
        rows: rows in order, in place of the profile's.
    """

    about: str = ""
    seeds: tuple[int, ...] = ()
    training: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)
    untouched: dict[str, Any] = Field(default_factory=dict)
    rows: tuple[RowSpec, ...] = ()

    @field_validator("rows", mode="before")
    @classmethod
    def _bare_names(cls, rows: Any) -> Any:
        return rows_of(rows)


class Settings(Frozen):
    """Settings of a single task, for suites that train each task separately."""

    training: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)


class ColumnSpec(Frozen):
    """A column: a task and one of its metrics.

    Attributes:
        task: the task, one of the suite's.
        metric: which of its metrics, or ``training_loss`` for the loss of the training that it was
            scored after, see :mod:`quanta_bench.report.training_loss`; empty for its main one.
        title: heading; empty for the task's own, and the metric's name where one is named.
        untouched: whether it shows what training on other tasks cost: it enters no average, and
            is compared with the base model.
    """

    task: str
    metric: str = ""
    title: str = ""
    untouched: bool = False

    @property
    def key(self) -> str:
        """The column's name in a table's data."""
        return f"{self.task}/{self.metric}" if self.metric else self.task

    @property
    def of_training(self) -> bool:
        """Whether it shows the loss in training, and no score."""
        return self.metric == TRAINING_LOSS


class AverageSpec(Frozen):
    """A mean over columns.

    Attributes:
        title: heading.
        columns: keys of the columns; empty for all.
    """

    title: str = Field(min_length=1)
    columns: tuple[str, ...] = ()


def columns_of(columns: Any) -> Any:
    """Columns as a file has them, a bare name made a mapping."""
    if not isinstance(columns, (list, tuple)):
        return columns
    return [{"task": column} if isinstance(column, str) else column for column in columns]


class Untouched(Frozen):
    """Tasks and texts that no row trains on, scored to show what training on others cost.

    Attributes:
        tasks: the tasks.
        evaluation: evaluation settings that override the profile's.
    """

    tasks: tuple[str, ...] = Field(min_length=1)
    evaluation: dict[str, Any] = Field(default_factory=dict)


class Profile(Frozen):
    """One setting in which a table can be run.

    Attributes:
        about: what this profile is, for the caption.
        model: the base model, where rows name none.
        model_source: where models come from.
        gpu: the GPU that its plans are for, a name in :mod:`quanta_bench.costs.gpus`.
        seeds: seeds of every row.
        vary: which random streams a row's seed sets; with ``sample`` each seed draws its own test
            items too.
        trained: ``together``, one model on a mixture of the tasks, or ``apart``, one model per
            task.
        denominator: of the trainable share.
        training: training settings of every row.
        evaluation: evaluation settings of every row.
        by_task: settings that override those for one task; only with ``trained: apart``.
        untouched: tasks that are scored and not trained on; only with ``trained: together``.
        origin: where each of those settings comes from.
        size: the default size.
        sizes: sizes by name.
        rows: rows in order, of sizes without rows of their own; a bare name is a method's default
            row.
        tasks: the tasks, in place of the suite's.
        columns: the columns, in place of the suite's.
        averages: the averages, in place of the suite's.
        notes: printed under the table; they hold for the profile's own model, data and sizes, and
            are left out where the user overrides those.
    """

    about: str = ""
    model: str = "smollm2-135m"
    model_source: str = "embedded"
    gpu: str = ""
    seeds: tuple[int, ...] = (0,)
    vary: tuple[Literal["init", "order", "sample"], ...] = Field(("init", "order"), min_length=1)
    trained: Literal["together", "apart"] = "together"
    denominator: Denominator = "base"
    training: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)
    by_task: dict[str, Settings] = Field(default_factory=dict)
    untouched: Untouched | None = None
    origin: dict[str, str] = Field(default_factory=dict)
    size: str = ""
    sizes: dict[str, Size] = Field(default_factory=dict)
    rows: tuple[RowSpec, ...] = ()
    tasks: tuple[str, ...] = ()
    columns: tuple[ColumnSpec, ...] = ()
    averages: tuple[AverageSpec, ...] = ()
    notes: tuple[str, ...] = ()

    @field_validator("columns", mode="before")
    @classmethod
    def _bare_tasks(cls, columns: Any) -> Any:
        return columns_of(columns)

    @field_validator("rows", mode="before")
    @classmethod
    def _bare_names(cls, rows: Any) -> Any:
        return rows_of(rows)

    @model_validator(mode="after")
    def _settings_by_task(self) -> Profile:
        if self.by_task and self.trained == "together":
            raise ValueError(
                "by_task needs 'trained: apart': a mixture has no settings for a single task"
            )
        if self.untouched and self.trained == "apart":
            raise ValueError("untouched needs 'trained: together': one model to score")
        return self

    def at(self, size: str) -> Profile:
        """The profile with the rows of one of its sizes; empty for its default size."""
        chosen = self.sizes.get(size or self.size)
        return self.model_copy(update={"rows": chosen.rows}) if chosen and chosen.rows else self


class Suite(Frozen):
    """A table, or the runs of a figure.

    Attributes:
        name: short name, of letters, digits, ``_`` and ``-``; files are named after it.
        title: caption.
        tasks: the tasks.
        columns: the columns, a task by its name or a mapping; by default one a task.
        average: heading of the one average, over all columns; empty for none.
        averages: averages over some of the columns, in place of that one.
        published: the paper's own table, by its name in ``results/paper``.
        figure: how it is drawn, if it is a figure.
        profiles: settings in which it can be run.
    """

    name: str = Field(pattern=NAME, max_length=LONGEST_NAME)
    title: str = ""
    tasks: tuple[str, ...] = Field(min_length=1)
    columns: tuple[ColumnSpec, ...] = ()
    average: str = "Avg."
    averages: tuple[AverageSpec, ...] = ()
    published: str = Field("", pattern=r"^[\w-]*$")
    figure: Drawing | None = None
    profiles: dict[Annotated[str, Field(pattern=NAME, max_length=LONGEST_NAME)], Profile]

    @field_validator("columns", mode="before")
    @classmethod
    def _bare_tasks(cls, columns: Any) -> Any:
        return columns_of(columns)

    @model_validator(mode="after")
    def _known_columns(self) -> Suite:
        _check_columns(self, ())
        for profile in self.profiles.values():
            _check_columns(self.as_in(profile), profile.by_task)
        return self

    @model_validator(mode="after")
    def _known_profiles(self) -> Suite:
        figure = self.figure
        named = {*figure.modules, *figure.pairs} if figure else set()
        for name in sorted(named - set(self.profiles)):
            raise ValueError(
                f"the figure names a profile {name!r}. {did_you_mean(name, self.profiles)}"
            )
        return self

    def as_in(self, profile: Profile) -> Suite:
        """The suite with a profile's own tasks, columns and averages in place of its own."""
        own = {"tasks": profile.tasks, "columns": profile.columns, "averages": profile.averages}
        suite = self.model_copy(update={name: value for name, value in own.items() if value})
        if profile.untouched is None:
            return suite
        further = [ColumnSpec(task=task, untouched=True) for task in profile.untouched.tasks]
        columns = dict.fromkeys([*suite.shown_columns, *further])
        return suite.model_copy(update={"columns": tuple(columns)})

    @property
    def kind(self) -> Literal["table", "figure"]:
        """What it is, as the command line calls it."""
        return "table" if self.figure is None else "figure"

    @property
    def shown_columns(self) -> tuple[ColumnSpec, ...]:
        """The columns in order."""
        return self.columns or tuple(ColumnSpec(task=task) for task in self.tasks)

    @property
    def shown_averages(self) -> tuple[AverageSpec, ...]:
        """The averages in order, each with the keys of its columns."""
        keys = tuple(column.key for column in self.shown_columns if not column.untouched)
        averages = self.averages
        if not averages and self.average and len(keys) > 1:
            averages = (AverageSpec(title=self.average),)
        return tuple(
            average if average.columns else average.model_copy(update={"columns": keys})
            for average in averages
        )


def _check_columns(suite: Suite, by_task: Collection[str]) -> None:
    keys = [column.key for column in suite.shown_columns]
    named = {key for average in suite.averages for key in average.columns}
    for unknown, what, known in (
        (_trained(suite.columns) - set(suite.tasks), "tasks", suite.tasks),
        (set(by_task) - set(suite.tasks), "tasks", suite.tasks),
        (named - set(keys), "columns", keys),
    ):
        if unknown:
            raise ValueError(f"{sorted(unknown)} are not among the {what} {list(known)}")
    both = {column.task for column in suite.columns if column.untouched} & set(suite.tasks)
    if both:
        raise ValueError(f"{sorted(both)} are trained on, so they are not untouched")
    if len(set(keys)) < len(keys):
        raise ValueError(f"a column appears twice in {keys}")


def _trained(columns: Iterable[ColumnSpec]) -> set[str]:
    return {column.task for column in columns if not column.untouched}


Modules = tuple[str, ...]

Pairs = tuple[tuple[str, str], ...]


class Drawing(Frozen):
    """The part of a suite that makes it a figure.

    Attributes:
        kind: ``parameters`` draws the first task's metric against trainable parameters, a curve a
            method; ``similarity`` compares the subspaces of pairs of updates.
        modules: of a similarity, the modules whose updates are compared, by profile; full names,
            such as ``model.layers.15.self_attn.q_proj``.
        pairs: of a similarity, the two rows of each comparison, by profile and then by label. The
            vectors of the first run downwards in the picture.
        vectors: of a similarity, how many vectors of an update are compared at most.
    """

    kind: Literal["parameters", "similarity"]
    modules: dict[str, Modules] = Field(default_factory=dict)
    pairs: dict[str, Pairs] = Field(default_factory=dict)
    vectors: int = Field(128, ge=1)
