"""One run: made from the options of the command line, computed and shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from quanta_bench.errors import UsageError
from quanta_bench.method import Row
from quanta_bench.plugins import METHODS, find_protocol, find_task
from quanta_bench.references import short_names
from quanta_bench.results.provenance import stale
from quanta_bench.results.records import Result, TrainingRecord
from quanta_bench.results.store import Store
from quanta_bench.runs.claims import compute_or_wait
from quanta_bench.runs.devices import ONE, Devices
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.progress import Screen
from quanta_bench.runs.spreading import runner_for
from quanta_bench.runs.sweep import Fresh, check_overlap, print_notices
from quanta_bench.spec import EvaluationSpec, Job, ModelSpec, TrainingSpec, build, meta_reference
from quanta_bench.suites.fitting import fitted, with_targets
from quanta_bench.suites.overrides import Overrides
from quanta_bench.suites.schema import RowSpec
from quanta_bench.utils.fitted_table import FittedTable

PROFILE = "embedded"
"""The profile whose default row provides settings that the user does not give."""


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
        tell: called with a note if settings of the method are replaced to fit the model.

    Raises:
        UsageError: an unknown method, task, setting, model or source, or a combination that does
            not work.
    """
    if not tasks:
        raise UsageError("Name at least one task with --task.")
    default = METHODS.get(method).rows.get(PROFILE, Row(method))
    named = {key if "." in key else f"{method}.{key}": value for key, value in settings.items()}
    overrides = Overrides.of(named, [method])
    protocol = overrides.training.get("protocol") or _common_protocol(tasks)
    losses = [find_protocol(protocol).losses(find_task(task)) for task in tasks]
    loss = next(loss for loss in losses[0] if all(loss in others for others in losses))
    base = ModelSpec.from_reference(model)
    own = overrides.methods.get(method)
    row = RowSpec(method=method, label=method, settings={} if own else dict(default.config))
    if own:
        # The user's settings replace those of the row: others take the method's defaults.
        result = with_targets(overrides.applied_to(row), meta_reference(base), kept=own)
    else:
        result = fitted(row, meta_reference(base), meta_reference(ModelSpec()))
    row = result.row
    if result.note:
        tell(result.note)
    # Without a suite, items are limited so that a laptop finishes in minutes.
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
        method,
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
    PlannedRun.of(made)  # refuses combinations that do not work
    return made


def compute(
    job: Job,
    store: Store,
    console: Console,
    *,
    fresh: Fresh = "",
    allow_overlap: bool = False,
    devices: Devices = ONE,
    loggers: Sequence[str] = (),
) -> Result:
    """Compute the run, spread over the devices, or find it.

    Raises:
        UsageError: too many test items are in the training data, unless ``allow_overlap``; or there
            are fewer devices.
    """
    with Screen(console, [1.0]) as screen:
        line = screen.begin(job.label)
        runner = runner_for(devices, store, line, loggers=loggers)
        planned = PlannedRun.of(job)
        stored = runner.find(planned)
        again = fresh == "all" or (fresh == "stale" and runner.is_stale(planned, stored))
        if stored is None or again:
            if not allow_overlap:
                check_overlap(runner, planned)
            store.check_writable()
            store.remove_litter()
            stored = compute_or_wait(planned, runner, screen.tell, fresh=again)
        line.finish()
    print_notices(store, console)
    return stored


def on_screen(result: Result, results: Path) -> RenderableType:
    """Scores and cost of a run."""
    table = FittedTable(f"{result.training.spec.method} on {result.training.model}")
    for heading in ("Task", "Metric", "Value", "Standard error", "Chance", "Items"):
        label = heading in ("Task", "Metric")
        table.add_column(heading, right=not label, label=label)
    short = short_names(result.tasks)
    for name, task in result.tasks.items():
        shown = task.metrics[task.metric]
        chance = "–" if task.chance is None else f"{task.chance:.3f}"
        table.add_row(
            short[name],
            task.metric,
            f"{shown:.3f}",
            "–" if task.standard_error is None else f"{task.standard_error:.3f}",
            chance,
            str(task.items),
        )
    training = result.training
    how = result.protocol
    scoring = find_protocol(how["put"]).scoring(result.evaluation.normaliser)
    lines = [f"Protocol {how['put']}; {scoring}."]
    if "chat_template" in how:
        lines.append(f"Prompts in the model's chat template: {how['chat_template']}.")
    if how["loss"]:
        lines.append(f"Trained under {how['trained_as']} with the loss {how['loss']!r}.")
    if training.steps:
        share = 100 * training.trainable_parameters / training.base_parameters
        lines.append(
            f"Trained {training.trainable_parameters:,} parameters ({share:.3g}% of the base) "
            f"for {training.steps} steps in {training.seconds:.0f} s, "
            f"{result.tokens_per_second:.0f} tokens/s{_steady(training)}; best validation "
            f"{training.best_validation:.3f} at step {training.best_step}."
        )
    changes = stale(result)
    if changes:
        lines.append(f"Stale: {', '.join(changes)}; --fresh stale computes it again.")
    stored = Text(f"Stored in {results / 'runs' / result.run}", overflow="ignore")
    return Group(table, "", *map(Text, lines), stored)


def _steady(training: TrainingRecord) -> str:
    """What the first step took and how fast the others were, where that was recorded."""
    if training.first_step_seconds is None or training.steady_tokens_per_second is None:
        return ""
    return (
        f" with validations ({training.first_step_seconds:.1f} s to the end of the first step, "
        f"{training.steady_tokens_per_second:.0f} tokens/s in those after it)"
    )


def _common_protocol(tasks: Sequence[str]) -> str:
    """The first protocol that every task knows."""
    known = [find_task(task).protocols for task in tasks]
    for protocol in known[0]:
        if all(protocol in names for names in known):
            return protocol
    raise UsageError(f"The tasks {', '.join(tasks)} have no protocol in common.")
