"""Planned runs and their identities: normalised specs, and the content of model and data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from quanta_bench.data.pools import Pools
from quanta_bench.errors import UsageError
from quanta_bench.method import Method
from quanta_bench.models.loading import ModelRef, model_fingerprint
from quanta_bench.plugins import build_method
from quanta_bench.results.integrity import DamagedError
from quanta_bench.results.records import Result, TrainingRecord
from quanta_bench.runs.places import bare_data, names_places, portable_data, without_places
from quanta_bench.spec import EvaluationSpec, Job, TrainingSpec, canonical, identity
from quanta_bench.suites.compatibility import check_protocols
from quanta_bench.suites.grid import GridRow


@dataclass(frozen=True)
class Identity:
    """The names of a run on disk, and the content they stand for.

    Attributes:
        training: name of the training, 12 hexadecimal digits.
        run: name of the run: method, training and evaluation.
        model: fingerprint of the base model.
        training_data: fingerprints of the training data by task and split.
        evaluation_data: fingerprints of the scored data by task.
    """

    training: str
    run: str
    model: str
    training_data: dict[str, Any]
    evaluation_data: dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """A checked job in the normal form that is hashed. Each job is planned once.

    Attributes:
        label: the row it belongs to.
        training: the training spec, with checked settings and without defaults.
        method: the method with its settings.
        evaluation: the evaluation spec.
    """

    label: str
    training: TrainingSpec
    method: Method[Any]
    evaluation: EvaluationSpec

    @classmethod
    def of(cls, job: Job, *, check: bool = True) -> PlannedRun:
        """Plan a job.

        Args:
            job: the job.
            check: check that protocol, task and loss are compatible, which reads the user's own
                files of data. What is only looked up among stored results works without these.

        Raises:
            UsageError: a setting is invalid, or protocol, task and loss are incompatible.
        """
        spec, method = normal_form(job.training)
        if check:
            check_protocols(spec, job.evaluation)
        return cls(job.label, spec, method, job.evaluation)

    def scoring(self, tasks: tuple[str, ...]) -> PlannedRun:
        """The same run with only these of its tasks scored."""
        return replace(self, evaluation=self.evaluation.model_copy(update={"tasks": tasks}))

    @property
    def job(self) -> Job:
        """The job in its normal form."""
        return Job(self.label, self.training, self.evaluation)

    @property
    def model(self) -> ModelRef:
        """The base model."""
        return model_reference(self.training)

    @cached_property
    def names_places(self) -> bool:
        """Whether model or data lie at a place of the user's own."""
        return names_places(self.training) or names_places(self.evaluation)

    @cached_property
    def training_key(self) -> str:
        """Equal for runs that share a training."""
        return canonical(self.training.model_dump(mode="json"))

    @cached_property
    def key(self) -> str:
        """Equal for jobs that are the same run."""
        return canonical([self.training_key, self.evaluation.model_dump(mode="json")])

    def identify(
        self,
        pools: Pools,
        fastest: str = "bfloat16",
        fingerprint: Callable[[ModelRef], str] = model_fingerprint,
        *,
        by_place: bool = False,
    ) -> Identity:
        """The run's names. Reads data and hashes the model, but computes nothing.

        Args:
            pools: where items come from.
            fastest: the dtype that ``precision="auto"`` stands for. It enters the names, so that
                a run never has the results of another precision; bfloat16 enters as nothing.
            fingerprint: gives the content hash of a base model.
            by_place: name the run as earlier versions did, by the places of local models and data
                too.

        Raises:
            SourceError: the model or the data cannot be read.
        """
        spec, scoring = self.training, self.evaluation
        model = fingerprint(self.model)
        training_data = {
            f"{task}/{split}": pools.get(task, spec.source, split).identity
            for task in spec.tasks
            for split in ("train", "validation")
        }
        evaluation_data = {
            task: pools.get(task, scoring.source, scoring.split).identity for task in scoring.tasks
        }
        if scoring.forgetting:
            text = pools.get(scoring.forgetting, scoring.forgetting_source, "test")
            evaluation_data[scoring.forgetting] = text.identity
        content: dict[str, Any] = {"model": model, "data": training_data}
        scored_data: Any = evaluation_data
        if not by_place:
            content["data"] = portable_data(spec, training_data)
            scored_data = portable_data(scoring, evaluation_data)
            spec, scoring = without_places(spec), without_places(scoring)
        if spec.precision == "auto" and fastest != "bfloat16":
            content["precision"] = fastest
        trained = identity(spec, **content)
        scored = identity(scoring, data=scored_data)
        return Identity(
            trained,
            f"{self.method.name}-{trained}-{scored}",
            model,
            training_data,
            evaluation_data,
        )


@dataclass(frozen=True)
class PlannedRow:
    """A row of a grid with its planned runs; none where the row cannot run in this version.

    Attributes:
        row: the row.
        runs: its runs, each with its seed.
    """

    row: GridRow
    runs: tuple[tuple[int, PlannedRun], ...]

    @classmethod
    def of(cls, row: GridRow, *, check: bool = True) -> PlannedRow:
        """Plan a row.

        Args:
            row: the row.
            check: see `PlannedRun.of`.

        Raises:
            UsageError: see `PlannedRun.of`.
        """
        if row.missing:
            return cls(row, ())
        runs = (
            (
                row.seeds[number // row.parts],
                PlannedRun.of(Job(row.spec.label, *specs), check=check),
            )
            for number, specs in enumerate(row.jobs)
        )
        return cls(row, tuple(runs))

    def name(self, seed: int, run: PlannedRun) -> str:
        """The name of one of its runs, as shown to the user."""
        name = run.label + (f", seed {seed}" if len(self.row.seeds) > 1 else "")
        return name + (f", {', '.join(run.evaluation.tasks)}" if self.row.parts > 1 else "")


def normal_form(spec: TrainingSpec) -> tuple[TrainingSpec, Method[Any]]:
    """The spec in the normal form that is hashed (checked, without defaults), and its method.

    For a method that trains nothing, only what its result depends on is kept, so that every seed
    and training setting gives the same run and the base is evaluated once.
    """
    method = build_method(spec.method, spec.settings)
    if spec.quantization != "none" and method.base_precision == "float32":
        raise UsageError(
            f"The method {spec.method!r} trains weights of the base itself, which "
            f"training.quantization={spec.quantization} keeps in 4 bits: leave it out, or leave "
            "the method out with --methods."
        )
    settings = method.config.model_dump(mode="json", exclude_defaults=True)
    if not method.trains:
        bare = TrainingSpec(
            model=spec.model,
            method=spec.method,
            settings=settings,
            precision=spec.precision,
            quantization=spec.quantization,
        )
        return bare, method
    return spec.model_copy(update={"settings": settings}), method


def model_reference(spec: TrainingSpec) -> ModelRef:
    """The base model that a spec names."""
    return ModelRef(spec.model.name, spec.model.source, spec.model.revision)


def check_identity(
    folder: Path,
    planned: PlannedRun,
    names: Identity,
    record: TrainingRecord,
    result: Result | None = None,
) -> None:
    """Check that stored records match the specs and content in their name.

    Raises:
        DamagedError: they do not match.
    """
    same = (
        record.id == names.training
        and without_places(record.spec) == without_places(planned.training)
        and record.model_fingerprint == names.model
        and _bare(record.spec, record.data) == _bare(record.spec, names.training_data)
    )
    if same and result is not None:
        content = {task: scored.data for task, scored in result.tasks.items()}
        content |= result.forgetting_data
        # Records of version 1 do not name the running text.
        same = without_places(result.evaluation) == without_places(planned.evaluation) and _bare(
            result.evaluation, content
        ) <= _bare(result.evaluation, names.evaluation_data)
    if not same:
        raise DamagedError(folder, "spec", "its spec or its data are not those of its name")


def _bare(spec: TrainingSpec | EvaluationSpec, data: Mapping[str, Any]) -> set[str]:
    """Fingerprints with the bare names of what they are of, wherever that lies."""
    return set(map(canonical, bare_data(spec, data)))
