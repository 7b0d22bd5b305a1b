"""One run: made from the options of the command line, computed and shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from quanta_bench.errors import UsageError
from quanta_bench.method import Row
from quanta_bench.plugins import METHODS, find_task
from quanta_bench.results.records import Result
from quanta_bench.results.store import Store
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import Screen
from quanta_bench.runs.runner import Runner
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec, build, model_words
from quanta_bench.suites.fitting import fitted
from quanta_bench.suites.overrides import Overrides
from quanta_bench.suites.schema import RowSpec

PROFILE = "embedded"
"""The profile whose default row fills in what the user leaves out."""


def job(
    method: str,
    tasks: Sequence[str],
    settings: Mapping[str, Any],
    seed: int,
    model: str,
    source: str,
    tell: Callable[[str], None] = lambda note: None,
) -> Job:
    """The run that the options ask for, checked.

    Args:
        method: registered name of the method.
        tasks: tasks to train on and to score.
        settings: the method's settings by plain name or as ``METHOD.name``, the specs' as
            ``training.name`` and ``evaluation.name``.
        seed: of start and order.
        model: ``NAME`` (embedded), ``hub:NAME@REVISION`` or ``local:DIR``.
        source: where data comes from.
        tell: called with a note where settings of the method are chosen anew to fit the model.

    Raises:
        UsageError: an unknown method, task, setting, model or source, or what does not go together.
    """
    default = METHODS.get(method).rows.get(PROFILE, Row(method))
    named = {key if "." in key else f"{method}.{key}": value for key, value in settings.items()}
    overrides = Overrides.of(named, [method])
    protocol = overrides.training.get("protocol") or _protocol(tasks)
    choosing = protocol != "generate" and all(find_task(task).chooses for task in tasks)
    loss = "labels" if protocol == "head" else "candidates" if choosing else "answer"
    base = ModelSpec.from_words(model)
    own = overrides.methods.get(method)
    row = RowSpec(method=method, label=method, settings={} if own else dict(default.config))
    if own:
        # The user's settings stand alone: what they leave out has the method's default.
        row = overrides.applied_to(row)
    else:
        result = fitted(row, model_words(base), model_words(ModelSpec()))
        row = result.row
        if result.note:
            tell(result.note)
    # A bare task list is trained in pieces that a laptop finishes over a cup of coffee.
    training = {
        "train_items": 200,
        "validation_items": 50,
        "loss": loss,
        **default.training,
        **overrides.training,
    }
    evaluation = {"items": 200, **overrides.evaluation}
    common = {"tasks": tuple(tasks), "source": source, "protocol": protocol}
    made = Job(
        f"{method}, seed {seed}",
        build(
            TrainingSpec,
            {
                "model": base,
                "method": method,
                "settings": row.settings,
                "seeds": {"init": seed, "order": seed},
                **common,
                **training,
            },
        ),
        build(EvaluationSpec, {**common, **evaluation}),
    )
    PlannedRun.of(made)  # refuses what does not go together
    return made


def compute(job: Job, store: Store, console: Console, *, fresh: bool = False) -> Result:
    """Compute the run, or find it."""
    with Screen(console, [1.0]) as screen:
        line = screen.begin(job.label)
        result = Runner(store, line).run(job, fresh=fresh)
        line.finish()
    return result


def on_screen(result: Result, results: Path) -> RenderableType:
    """Scores of a run and what it took."""
    grid = Table(title=f"{result.training.spec.method} on {result.training.model}")
    for heading in ("Task", "Metric", "Value", "Standard error", "Chance", "Items"):
        grid.add_column(heading, justify="left" if heading in ("Task", "Metric") else "right")
    for name, task in result.tasks.items():
        shown = task.metrics[task.metric]
        chance = "–" if task.chance is None else f"{task.chance:.3f}"
        grid.add_row(
            name,
            task.metric,
            f"{shown:.3f}",
            "–" if task.standard_error is None else f"{task.standard_error:.3f}",
            chance,
            str(task.items),
        )
    training = result.training
    how = result.protocol
    judged = {
        "generate": "answers generated and parsed",
        "head": "answered by a classification head",
    }.get(how["put"], f"candidates compared by {how['normaliser']}")
    lines = [f"Put as {how['put']}; {judged}."]
    if how["loss"]:
        lines.append(f"Trained as {how['trained_as']} with the loss {how['loss']!r}.")
    if training.steps:
        share = 100 * training.trainable_parameters / training.base_parameters
        lines.append(
            f"Trained {training.trainable_parameters:,} parameters ({share:.3g}% of the base) "
            f"for {training.steps} steps in {training.seconds:.0f} s, "
            f"{result.tokens_per_second:.0f} tokens/s; best validation "
            f"{training.best_validation:.3f} at step {training.best_step}."
        )
    lines.append(f"Stored in {results / 'runs' / result.run}")
    return Group(grid, *lines)


def _protocol(tasks: Sequence[str]) -> str:
    """The first protocol that every task knows."""
    if not tasks:
        raise UsageError("Name at least one task with --task.")
    known = [find_task(task).protocols for task in tasks]
    for protocol in known[0]:
        if all(protocol in names for names in known):
            return protocol
    raise UsageError(f"The tasks {', '.join(tasks)} have no protocol in common.")
