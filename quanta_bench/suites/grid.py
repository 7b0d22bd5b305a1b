"""A table as a grid: a YAML file names rows, columns, seeds and profiles; here they become jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from quanta_bench.errors import UsageError, did_you_mean
from quanta_bench.method import Method, Row
from quanta_bench.plugins import METHODS
from quanta_bench.spec import (
    Denominator,
    EvaluationSpec,
    ModelSpec,
    Seeds,
    TrainingSpec,
    build,
    meta_reference,
)
from quanta_bench.suites.choice import NO_CHOICE, Choice
from quanta_bench.suites.loading import pick_profile
from quanta_bench.suites.overrides import GIVEN, Overrides
from quanta_bench.suites.schema import Profile, RowSpec, Settings, Size, Suite

SEED_LIMIT = 2**32
"""Seeds are below it, as NumPy's and torch's generators take them."""

COMMAND_LINE = "the command line"
"""Where seeds come from that the user gave."""


@dataclass(frozen=True)
class GridRow:
    """A row ready to run, or with the reason why it cannot.

    Attributes:
        spec: the row as the suite has it, defaults of the method filled in.
        model: the model it runs on.
        jobs: training and evaluation specs, seed by seed: one per seed, or one per seed and task
            where each task is trained separately.
        seeds: the seeds, in the jobs' order.
        origin: where each setting comes from.
        denominator: of the trainable share.
        missing: why the row cannot run, or empty.
        reference: the row of whose trained parameters the share is taken, if it is taken so.
        absent: tasks that the source cannot fill, each with the reason; no job has them.
        note: what of the row is not as the suite has it, and why; or empty.
        written: the row's label in the suite, which other settings may have changed in `spec`.
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
    note: str = ""
    written: str = ""

    @property
    def parts(self) -> int:
        """Number of jobs that make up a seed."""
        return len(self.jobs) // len(self.seeds)


def grid(suite: Suite, profile_name: str, choice: Choice = NO_CHOICE) -> list[GridRow]:
    """The rows of a table with the jobs of each. `check_tasks` says whether those can run.

    Raises:
        UsageError: an unknown profile, size, method or setting.
    """
    profile = chosen_profile(suite, profile_name, choice)
    suite = suite.as_in(profile)
    size = _size(suite, profile, choice.size)
    seeds = _seeds(choice.seeds or size.seeds or profile.seeds)
    selected, written, missing = _select(suite, profile, profile_name, choice)
    overrides = Overrides.of(
        choice.settings or {}, list(dict.fromkeys(row.method for row in selected))
    )
    set_of_training = dict(overrides.training)
    if choice.source:
        for given in (overrides.training, overrides.evaluation):
            given.setdefault("source", choice.source)
    rows = []
    for row, named in zip(selected, written, strict=True):
        model = _model(profile, row, choice)
        label = row.label
        try:
            row, note = _on_model(row, model, profile, choice, overrides, named)
        except UsageError as error:
            if row.method in overrides.methods:
                raise
            # No size of this method fits the user's model; the other rows are still worth having.
            rows.append(_missing_row(row, model, str(error), profile, seeds))
            continue
        common = {"model": model, "method": row.method, "settings": row.settings}
        # One score of the base is enough, unless each seed has its own test items.
        several = METHODS.get(row.method).trains or "sample" in profile.vary
        own = seeds if several else seeds[:1]
        jobs = []
        for seed in own:
            streams = Seeds(**dict.fromkeys(profile.vary, seed))
            for part in _parts(suite, profile):
                training = {
                    "seeds": streams,
                    "tasks": part.trained,
                    **common,
                    **profile.training,
                    **part.settings.training,
                    **size.training,
                    **row.training,
                    **overrides.training,
                }
                scored = {
                    "tasks": part.scored,
                    # If seeds vary the sample, each draws its own test items too.
                    **({"sample": seed} if "sample" in profile.vary else {}),
                    **profile.evaluation,
                    **part.settings.evaluation,
                    **size.evaluation,
                    **part.untouched,
                    **(size.untouched if part.untouched else {}),
                    **row.evaluation,
                    **overrides.evaluation,
                }
                if part.untouched:
                    scored["tasks"] = part.scored
                jobs.append((build(TrainingSpec, training), build(EvaluationSpec, scored)))
        origin = {**profile.origin, **row.origin}
        for name, value in set_of_training.items():
            # The row's own value keeps its origin, though the user named it too.
            if row.training.get(name) != value:
                origin[name] = GIVEN
        if choice.seeds:
            origin["seeds"] = COMMAND_LINE
        denominator = row.denominator or profile.denominator
        rows.append(
            GridRow(
                spec=row,
                model=model,
                jobs=tuple(jobs),
                seeds=own,
                origin=origin,
                denominator=denominator,
                reference=_reference(profile, profile_name, row),
                note=note,
                written=label,
            )
        )
    model = _model(profile, RowSpec(method=""), choice)
    rows += [
        _missing_row(RowSpec(method=name, label=name), model, reason, profile, seeds)
        for name, reason in missing.items()
    ]
    return rows


def chosen_profile(suite: Suite, name: str, choice: Choice) -> Profile:
    """A suite's profile by name, with the rows of its size and the streams that seeds vary.

    Raises:
        UsageError: there is no such profile or stream.
    """
    profile = pick_profile(suite, name).at(choice.size)
    streams = list(Seeds.model_fields)
    unknown = [stream for stream in choice.vary if stream not in streams]
    if unknown:
        raise UsageError(f"A seed cannot vary {unknown[0]!r}. {did_you_mean(unknown[0], streams)}")
    return profile.model_copy(update={"vary": choice.vary}) if choice.vary else profile


def _seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Seeds, checked.

    Raises:
        UsageError: there are none, one is out of range, or one is given twice.
    """
    in_range = all(0 <= seed < SEED_LIMIT for seed in seeds)
    if not seeds or len(set(seeds)) != len(seeds) or not in_range:
        raise UsageError(
            f"Seeds must be distinct integers from 0 to {SEED_LIMIT - 1}, at least one, not "
            f"{', '.join(map(str, seeds)) or 'none'}."
        )
    return seeds


def _on_model(
    row: RowSpec,
    model: ModelSpec,
    profile: Profile,
    choice: Choice,
    overrides: Overrides,
    named: Collection[str],
) -> tuple[RowSpec, str]:
    """A row with the user's settings, and with settings that fit the user's model.

    Args:
        named: settings that the suite itself writes in the row; on the suite's own model these are
            never replaced.
    """
    from quanta_bench.suites.fitting import check_fits, fitted, with_targets

    own_settings = overrides.methods.get(row.method, {})
    row = overrides.applied_to(row)
    reference = meta_reference(model)
    if choice.model:
        original = meta_reference(_model(profile, row, NO_CHOICE))
        result = fitted(row, reference, original, kept=own_settings)
        return result.row, result.note
    if not (named or own_settings) and model != ModelSpec():
        # The method's own row, which was written for the embedded model.
        result = fitted(row, reference, meta_reference(ModelSpec()))
        return result.row, result.note
    note = ""
    if model != ModelSpec():
        result = with_targets(row, reference, kept={*named, *own_settings})
        row, note = result.row, result.note
    if own_settings:
        check_fits(row, reference)
    return row, note


def _missing_row(
    row: RowSpec, model: ModelSpec, reason: str, profile: Profile, seeds: tuple[int, ...]
) -> GridRow:
    """A row that stays empty, with the reason."""
    return GridRow(
        spec=row,
        model=model,
        jobs=(),
        seeds=seeds,
        origin={},
        denominator=profile.denominator,
        written=row.label,
        missing=reason.removeprefix(f"{row.label}: ").rstrip("."),
    )


@dataclass(frozen=True)
class _Part:
    """One of a seed's runs: the tasks it trains on and scores, and settings of its own."""

    trained: tuple[str, ...]
    scored: tuple[str, ...]
    settings: Settings = field(default_factory=Settings)
    untouched: Mapping[str, Any] = field(default_factory=dict)


def _parts(suite: Suite, profile: Profile) -> list[_Part]:
    if profile.trained == "apart":
        by_task = profile.by_task
        return [_Part((task,), (task,), by_task.get(task, Settings())) for task in suite.tasks]
    own = _Part(suite.tasks, suite.tasks)
    if profile.untouched is None:
        return [own]
    settings = {"forgetting": "", **profile.untouched.evaluation}
    return [own, _Part(suite.tasks, profile.untouched.tasks, untouched=settings)]


def _reference(profile: Profile, profile_name: str, row: RowSpec) -> RowSpec | None:
    """The row that a row's share is relative to, whether or not the user selected it."""
    if not row.relative_to:
        return None
    model = row.model or profile.model
    rows = {other.label: other for other in profile.rows if (other.model or profile.model) == model}
    if row.relative_to not in rows:
        raise UsageError(
            f"The row {row.label!r} is relative to a row {row.relative_to!r} on {model}, which the "
            f"profile does not have. {did_you_mean(row.relative_to, rows)}"
        )
    reference = rows[row.relative_to]
    return _filled(reference, METHODS.get(reference.method), profile_name)


def _size(suite: Suite, profile: Profile, name: str) -> Size:
    name = name or profile.size
    if not name:
        return Size()
    if name not in profile.sizes:
        raise UsageError(f"{suite.name} has no size {name!r}. {did_you_mean(name, profile.sizes)}")
    return profile.sizes[name]


def _select(
    suite: Suite, profile: Profile, profile_name: str, choice: Choice
) -> tuple[list[RowSpec], list[frozenset[str]], dict[str, str]]:
    """The rows that are chosen, filled in, and the settings that the suite writes in each.

    The third is why other methods cannot have a row, by name.

    Raises:
        UsageError: an unknown method or model, or two rows with the same label and model.
        BenchError: a row's method cannot be used.
    """
    for name in dict.fromkeys(row.method for row in profile.rows):
        if name not in METHODS:
            raise UsageError(
                f"{suite.name} has a row for the method {name!r}, which is not registered. "
                f"{did_you_mean(name, METHODS.names())}"
            )
    for name in choice.methods:
        if name.lstrip("+") not in METHODS:
            raise UsageError(
                f"There is no method called {name.lstrip('+')!r}. "
                f"{did_you_mean(name.lstrip('+'), METHODS.names())}"
            )
    named = {row.model or profile.model for row in profile.rows}
    for name in choice.models:
        if name not in named:
            raise UsageError(f"No row runs on a model {name!r}. {did_you_mean(name, named)}")
    kept = [name for name in choice.methods if not name.startswith("+")]
    added = [name[1:] for name in choice.methods if name.startswith("+")]
    rows = [
        row
        for row in profile.rows
        if (not kept or row.method in kept)
        and (not choice.models or (row.model or profile.model) in choice.models)
    ]
    present = {row.method for row in rows}
    for name in dict.fromkeys([*kept, *added]):
        if name not in present:
            if profile_name not in METHODS.get(name).rows:
                raise UsageError(
                    f"The method {name!r} has no default row in the profile {profile_name!r}; "
                    "give it one in a suite of your own."
                )
            rows.append(RowSpec(method=name))
            present.add(name)
    unusable: dict[str, str] = {}
    if choice.all_rows:
        methods, unusable = METHODS.usable()
        rows += [
            RowSpec(method=name)
            for name, method in methods.items()
            if name not in present and profile_name in method.rows
        ]
    filled = [_filled(row, METHODS.get(row.method), profile_name) for row in rows]
    if not filled and not unusable:
        raise UsageError(f"{suite.name} has no rows in the profile {profile_name!r}.")
    # Spaces do not tell labels apart in a table.
    labels = [(" ".join(row.label.split()), row.model or profile.model) for row in filled]
    for pair in labels:
        if labels.count(pair) > 1:
            raise UsageError(
                f"{suite.name} has several rows called {pair[0]!r} on one model; give each its own "
                "label."
            )
    written = [frozenset(row.settings) for row in rows]
    return filled, written, {name: why for name, why in unusable.items() if name not in present}


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
