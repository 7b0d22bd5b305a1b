"""A table as a grid: a YAML file names rows, columns, seeds and profiles; here they become jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quanta_bench.errors import UsageError, did_you_mean
from quanta_bench.method import Method, Row
from quanta_bench.plugins import METHODS
from quanta_bench.spec import Denominator, EvaluationSpec, ModelSpec, Seeds, TrainingSpec, build
from quanta_bench.suites.choice import NO_CHOICE, Choice
from quanta_bench.suites.loading import pick_profile
from quanta_bench.suites.schema import Profile, RowSpec, Settings, Size, Suite


@dataclass(frozen=True)
class GridRow:
    """A row ready to run, or with the reason why it cannot.

    Attributes:
        spec: the row as the suite has it, defaults of the method filled in.
        model: the model it runs on.
        jobs: training and evaluation specs, seed by seed: one a seed, or one a seed and task where
            each task is trained apart.
        seeds: the seeds, in the jobs' order.
        origin: where each setting comes from.
        denominator: of the trainable share.
        missing: why the row cannot run in this version, or empty.
        reference: the row of whose trained parameters the share is taken, if it is taken so.
        absent: tasks that the source cannot fill, each with the reason; no job has them.
    """

    spec: RowSpec
    model: ModelSpec
    jobs: tuple[tuple[TrainingSpec, EvaluationSpec], ...]
    seeds: tuple[int, ...]
    origin: Mapping[str, str]
    denominator: Denominator
    missing: str = ""
    reference: RowSpec | None = None
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> int:
        """Number of jobs that make up a seed."""
        return len(self.jobs) // len(self.seeds)


def grid(suite: Suite, profile_name: str, choice: Choice = NO_CHOICE) -> list[GridRow]:
    """The rows of a table with the jobs of each. `check_tasks` says whether those can run.

    Raises:
        UsageError: an unknown profile, size, method or setting.
    """
    profile = pick_profile(suite, profile_name)
    suite = suite.as_in(profile)
    size = _size(suite, profile, choice.size)
    seeds = choice.seeds or size.seeds or profile.seeds
    if len(set(seeds)) != len(seeds) or min(seeds, default=-1) < 0:
        raise UsageError(f"Seeds are distinct and not negative, at least one; these are {seeds}.")
    training_over, evaluation_over = _overrides(choice)
    rows = []
    for row in _select(profile, profile_name, choice):
        missing = ""
        if row.method in METHODS:
            row = _filled(row, METHODS.get(row.method), profile_name)
        else:
            missing = f"the method {row.method!r} is not available in this version"
        model = _model(profile, row, choice)
        common = {"model": model, "method": row.method, "settings": row.settings}
        own = seeds if missing or METHODS.get(row.method).trains else seeds[:1]
        jobs = []
        for seed in own:
            streams = Seeds(**dict.fromkeys(profile.vary, seed))
            for tasks, of_task in _parts(suite, profile):
                training = {
                    "seeds": streams,
                    "tasks": tasks,
                    **common,
                    **profile.training,
                    **of_task.training,
                    **size.training,
                    **row.training,
                    **training_over,
                }
                scored = {
                    "tasks": tasks,
                    # The test items are drawn anew too where a seed varies the sample.
                    **({"sample": seed} if "sample" in profile.vary else {}),
                    **profile.evaluation,
                    **of_task.evaluation,
                    **size.evaluation,
                    **row.evaluation,
                    **evaluation_over,
                }
                jobs.append((build(TrainingSpec, training), build(EvaluationSpec, scored)))
        origin = {**profile.origin, **row.origin}
        denominator = row.denominator or profile.denominator
        rows.append(
            GridRow(
                spec=row,
                model=model,
                jobs=tuple(jobs),
                seeds=own,
                origin=origin,
                denominator=denominator,
                missing=missing,
                reference=_reference(profile, profile_name, row),
            )
        )
    return rows


def _parts(suite: Suite, profile: Profile) -> list[tuple[tuple[str, ...], Settings]]:
    """The tasks of each of a seed's runs, with the settings that these have of their own."""
    if profile.trained == "together":
        return [(suite.tasks, Settings())]
    return [((task,), profile.by_task.get(task, Settings())) for task in suite.tasks]


def _reference(profile: Profile, profile_name: str, row: RowSpec) -> RowSpec | None:
    """The row that a row's share is relative to, whether or not the user selected it."""
    if not row.relative_to:
        return None
    model = row.model or profile.model
    there = {
        other.label: other for other in profile.rows if (other.model or profile.model) == model
    }
    if row.relative_to not in there:
        raise UsageError(
            f"The row {row.label!r} is relative to a row {row.relative_to!r} on {model}, which the "
            f"profile does not have. {did_you_mean(row.relative_to, there)}"
        )
    found = there[row.relative_to]
    if found.method not in METHODS:
        return found
    return _filled(found, METHODS.get(found.method), profile_name)


def _size(suite: Suite, profile: Profile, name: str) -> Size:
    name = name or profile.size
    if not name:
        return Size()
    if name not in profile.sizes:
        raise UsageError(f"{suite.name} has no size {name!r}. {did_you_mean(name, profile.sizes)}")
    return profile.sizes[name]


def _select(profile: Profile, profile_name: str, choice: Choice) -> list[RowSpec]:
    known = {row.method for row in profile.rows} | set(METHODS.names())
    for name in choice.methods:
        if name.lstrip("+") not in known:
            raise UsageError(
                f"There is no method called {name.lstrip('+')!r}. "
                f"{did_you_mean(name.lstrip('+'), known)}"
            )
    kept = [name for name in choice.methods if not name.startswith("+")]
    added = [name[1:] for name in choice.methods if name.startswith("+")]
    named = {row.model or profile.model for row in profile.rows}
    for name in choice.models:
        if name not in named:
            raise UsageError(f"No row runs on a model {name!r}. {did_you_mean(name, named)}")
    rows = [
        row
        for row in profile.rows
        if (not kept or row.method in kept)
        and (not choice.models or (row.model or profile.model) in choice.models)
    ]
    present = {row.method for row in rows}
    for name in [*kept, *added]:
        if name not in present:
            if profile_name not in METHODS.get(name).rows:
                raise UsageError(
                    f"The method {name!r} has no default row in the profile {profile_name!r}; "
                    "give it one in a suite of your own."
                )
            rows.append(RowSpec(method=name))
            present.add(name)
    if choice.all_rows:
        for name in METHODS.names():
            if name not in present and profile_name in METHODS.get(name).rows:
                rows.append(RowSpec(method=name))
    return rows


def _filled(row: RowSpec, method: type[Method[Any]], profile: str) -> RowSpec:
    default = method.rows.get(profile, Row(label=method.title))
    # A row with settings of its own is another point of the method: only what belongs to the
    # method's training carries over from its default row.
    settings = row.settings or dict(default.config)
    return row.model_copy(
        update={
            "label": row.label or default.label,
            "settings": settings,
            "training": {**default.training, **row.training},
            "origin": {**default.origin, **row.origin},
        }
    )


def _model(profile: Profile, row: RowSpec, choice: Choice) -> ModelSpec:
    if ":" in choice.model:
        return ModelSpec.from_reference(choice.model)
    name = choice.model or row.model or profile.model
    revision = row.revision or "main"
    source = profile.model_source
    if source == "hub":
        from quanta_bench.models.meta import hub_name

        name = hub_name(name)
    return ModelSpec(name=name, source=source, revision=revision)


def _overrides(choice: Choice) -> tuple[dict[str, Any], dict[str, Any]]:
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    if choice.source:
        training["source"] = evaluation["source"] = choice.source
    for key, value in (choice.settings or {}).items():
        part, dot, name = key.partition(".")
        if not dot or part not in ("training", "evaluation"):
            raise UsageError(
                f"{key!r} does not say what it sets; write training.{key} or evaluation.{key}."
            )
        (training if part == "training" else evaluation)[name] = value
    return training, evaluation
