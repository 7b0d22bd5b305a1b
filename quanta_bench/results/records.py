"""What a run leaves on disk: the schema of its records.

Version 2 added the provenance of a record: the code that computed it, its full settings, and
hashes of its specs, its files and its content. Records of version 1 load without them.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FiniteFloat

from quanta_bench.spec import EvaluationSpec, TrainingSpec

M = TypeVar("M", bound=BaseModel)


class Record(BaseModel):
    """Base of the stored records. Unknown fields are refused, so misspelt names are found."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), ser_json_inf_nan="strings")


SCHEMA_VERSION: Literal[2] = 2


class CodeVersion(Record):
    """The version of a plug-in, or of the suite.

    Attributes:
        version: as the plug-in declares it; the suite's is that of its package.
        source: sha256 of the source that it consists of, see
            :mod:`quanta_bench.results.provenance`.
    """

    version: int | str
    source: str


class Environment(Record):
    """Where and with what a run was computed; recorded, never hashed.

    Attributes:
        packages: version of each package that matters.
        python: version of Python.
        platform: operating system and processor.
        device: name of the device.
        threads: number of processor threads used.
        jobs: how many runs the command computed at once; their seconds depend on each other.
        devices: over how many devices, or processes of a CPU, the run was spread.
        strategy: how: ``ddp`` or ``fsdp``; empty for one device.
        git_commit: commit of the checkout, or empty.
        git_dirty: whether the checkout had uncommitted changes.
    """

    packages: dict[str, str]
    python: str
    platform: str
    device: str
    threads: int
    jobs: int = 1
    devices: int = 1
    strategy: str = ""
    git_commit: str = ""
    git_dirty: bool = False


class TrainingRecord(Record):
    """A finished training.

    Attributes:
        schema_version: version of this layout.
        id: identity of the training spec with its model and data.
        spec: the spec.
        label: name of the row that asked for it first.
        model: description of the base model.
        model_fingerprint: content hash of the base model.
        data: per task, fingerprints and versions of what was read.
        base_parameters: number of parameters of the base model.
        trainable_parameters: number of parameters that trained.
        added_parameters: trainable parameters that are not the base's own.
        head_parameters: those of a classification head, which are among the trainable ones; 0
            where the model has none.
        precision: dtype of the base's weights, and of the arithmetic.
        steps: optimiser steps.
        tokens: real tokens trained on, padding not counted.
        cut_items: training items whose context was cut.
        train_items: number of training items.
        validation_items: number of validation items.
        seconds: wall time of training, validation included; the model is on its device before. Of a
            run that was trained together with others, its share by the tokens that it had in each
            pass.
        first_step_seconds: the part up to the end of the first step of each process, which pays for
            what is built, compiled or probed once; ``None`` in results of earlier versions.
        steady_tokens_per_second: real tokens a second of all further steps, without validations and
            checkpoints; ``None`` where there were none.
        together: how many runs were trained together, in common passes over one base; 1 for a run
            alone.
        elapsed_seconds: wall time of all of these together; ``None`` in results of earlier
            versions.
        micro_batch_tokens: most tokens that were computed together, padding counted; a longer item
            was computed alone.
        recomputed: whether activations were computed again in the backward pass.
        predicted_memory_bytes: the peak of a GPU's memory that was expected before the run;
            ``None`` on a CPU, and where it could not be predicted.
        joules: energy that the device used meanwhile; ``None`` where it does not tell, or where
            other runs were computed on it.
        peak_memory_bytes: largest resident size of a process that computed nothing else (CPU), or
            largest allocation (GPU); ``None`` where the process had computed other runs before or
            together with it, whose memory cannot be told apart, or where the run was resumed.
        losses: training loss of every optimiser step.
        validations: step, metric and loss of every validation.
        best_step: step of the checkpoint that was kept.
        best_validation: its validation metric.
        resumed: whether the run was resumed from a checkpoint.
        halvings: how many times micro-batches were halved because memory had run out.
        environment: where it was computed.
        settings: the method's settings in full, defaults included.
        code: versions of the method (``method:NAME``), of the tasks (``task:NAME``) and of the
            suite (``suite``) that computed it.
        spec_sha256: of the spec's canonical JSON, defaults included.
        adapter: sha256 of every file below ``adapter/``, by its relative path.
        adapter_bytes: size of these files; ``None`` where nothing trained, and in results of
            earlier versions.
        checksum: sha256 of this record's canonical JSON without this field.
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    id: str
    spec: TrainingSpec
    label: str = ""
    model: str
    model_fingerprint: str
    data: dict[str, Any]
    base_parameters: int
    trainable_parameters: int = 0
    added_parameters: int = 0
    head_parameters: int = 0
    precision: dict[str, str]
    steps: int = 0
    tokens: int = 0
    cut_items: int = 0
    train_items: int = 0
    validation_items: int = 0
    seconds: float = 0.0
    first_step_seconds: FiniteFloat | None = None
    steady_tokens_per_second: FiniteFloat | None = None
    together: int = 1
    elapsed_seconds: float | None = None
    micro_batch_tokens: int | None = None
    recomputed: bool = False
    predicted_memory_bytes: int | None = None
    joules: FiniteFloat | None = None
    peak_memory_bytes: int | None = None
    losses: list[float] = []
    validations: list[tuple[int, float, float]] = []
    best_step: int = 0
    best_validation: float | None = None
    resumed: bool = False
    halvings: int = 0
    environment: Environment
    settings: dict[str, Any] = {}
    code: dict[str, CodeVersion] = {}
    spec_sha256: str = ""
    adapter: dict[str, str] = {}
    adapter_bytes: int | None = None
    checksum: str = ""


class TaskResult(Record):
    """One task's scores.

    Attributes:
        title: column heading.
        kind: kind of task.
        metric: the metric that tables show.
        metrics: every metric; accuracies are fractions.
        items: number of items scored.
        groups: number of groups of related items among them.
        standard_error: of the main metric over items, robust to groups of related items;
            ``None`` with fewer than two groups.
        chance: the main metric of uniform guessing, where defined.
        cut_items: items whose context was cut.
        max_new_tokens: bound on answers, in tokens, where they were generated.
        long_answers: items whose right answer is longer than that.
        tied: items on which several candidates share the best score, so that each counts as the
            answer by an equal part.
        overlap: items whose text is in the training data; ``None`` where it was not looked for, as
            in results of earlier versions.
        seconds: wall time.
        data: fingerprints and versions of what was read.
    """

    title: str
    kind: str
    metric: str
    metrics: dict[str, FiniteFloat]
    items: int
    groups: int
    standard_error: FiniteFloat | None
    chance: FiniteFloat | None = None
    cut_items: int = 0
    max_new_tokens: int | None = None
    long_answers: int = 0
    tied: int = 0
    overlap: int | None = None
    seconds: float
    data: dict[str, Any]


class Result(Record):
    """A finished run: one training, one evaluation of it.

    Attributes:
        schema_version: version of this layout.
        status: always ``"complete"``; a run that failed leaves no result.
        run: name of the run's folder.
        training: the training.
        evaluation: the evaluation spec.
        protocol: how items were prompted, trained on and scored.
        tasks: scores by task.
        forgetting: perplexity of running text after the run, by task.
        evaluation_precision: dtype of the base's weights, and of the arithmetic, while scoring.
        evaluation_seconds: wall time of scoring.
        tokens_per_second: real tokens trained on per second, validation included.
        evaluation_environment: where it was scored.
        code: versions of the tasks (``task:NAME``) and of the suite (``suite``) that scored it;
            the training has its own.
        forgetting_data: fingerprints and versions of the running text, by task.
        spec_sha256: of the evaluation spec's canonical JSON, defaults included.
        predictions_sha256: of the text of the predictions, uncompressed.
        checksum: sha256 of this record's canonical JSON without this field.
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    status: Literal["complete"] = "complete"
    run: str
    training: TrainingRecord
    evaluation: EvaluationSpec
    protocol: dict[str, str]
    tasks: dict[str, TaskResult]
    forgetting: dict[str, FiniteFloat] = {}
    evaluation_precision: dict[str, str] = {}
    evaluation_seconds: float
    tokens_per_second: float = 0.0
    evaluation_environment: Environment
    code: dict[str, CodeVersion] = {}
    forgetting_data: dict[str, Any] = {}
    spec_sha256: str = ""
    predictions_sha256: str = ""
    checksum: str = ""
