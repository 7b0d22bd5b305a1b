"""What a training run is and what an evaluation of it is: two specs, validated, frozen, hashed.

A spec's identity is a hash over its canonical JSON *without default values*, so a setting added
later, with a default, leaves every earlier identity as it was. What the spec only names, the
content of a model or of data, enters as a fingerprint. Training and evaluation have separate
identities, so that a new evaluation never trains again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from quanta_bench.errors import UsageError, did_you_mean
from quanta_bench.utils.settings import StrictModel, problems

DEFAULT_PROTOCOL = "choice-text"
"""Of the registered protocols (:mod:`quanta_bench.protocol`), the one where none is named."""

Loss = Literal["candidates", "answer", "answer+prompt", "labels"]
Normaliser = Literal["token_mean", "sum", "byte_mean"]
Optimizer = Literal["adamw", "adamw-8bit"]
Quantization = Literal["none", "nf4"]


class Frozen(StrictModel):
    """Base of all specs: immutable, and closed to unknown keys."""


class ModelSpec(Frozen):
    """A base model by name and source.

    Attributes:
        name: a name of the source: ``smollm2-135m``, a hub name, a sub-folder.
        source: ``embedded``, ``hub`` or ``local:DIR``.
        revision: a hub revision.
    """

    name: str = "smollm2-135m"
    source: str = "embedded"
    revision: str = "main"

    @property
    def title(self) -> str:
        """Its name for people: of a folder that is named whole, the folder's own."""
        if self.name != ".":
            return self.name
        folder = Path(self.source.partition(":")[2])
        return folder.name or folder.resolve().name or self.name

    @classmethod
    def from_reference(cls, reference: str) -> ModelSpec:
        """A model from ``NAME`` (embedded), ``hub:NAME``, ``hub:NAME@REVISION`` or ``local:DIR``.

        Raises:
            UsageError: the source before the colon is another one.
        """
        kind, colon, rest = reference.partition(":")
        if not colon:
            return cls(name=reference)
        if kind == "hub":
            name, _, revision = rest.partition("@")
            return cls(name=name, source="hub", revision=revision or "main")
        if kind == "local":
            return cls(name=".", source=reference)
        raise UsageError(
            f"A model is NAME, hub:NAME, hub:NAME@REVISION or local:DIR, not {reference!r}."
        )


class Seeds(Frozen):
    """Named random streams.

    Attributes:
        init: the method's start and dropout.
        order: the order of the training items.
        sample: which items are drawn from the training and validation pools.
    """

    init: int = Field(0, ge=0, lt=2**32)
    order: int = Field(0, ge=0, lt=2**32)
    sample: int = Field(0, ge=0, lt=2**32)


class TrainingSpec(Frozen):
    """Everything that a trained adapter depends on.

    Attributes:
        model: the base model.
        method: registered name of the method.
        settings: the method's settings that differ from its defaults.
        tasks: tasks whose training items are mixed.
        source: where their data comes from.
        train_items: training items drawn per task; ``None`` takes all.
        validation_items: validation items drawn per task; ``None`` takes all.
        protocol: registered name of the protocol: how items become prompts and answers are
            read.
        loss: what is minimised: over candidates, over text, or over the labels that a
            classification head gives (protocol ``head``), a class each or a number.
        learning_rate: peak learning rate of AdamW.
        batch_size: items per optimiser step.
        accumulate: number of parts a step's items are computed in, at least, to save memory; the
            gradient is that of the whole batch.
        epochs: passes over the training items.
        schedule: learning-rate schedule after the warm-up.
        warmup: fraction of the steps with a rising learning rate.
        weight_decay: AdamW's decoupled weight decay.
        clip_norm: bound on the gradient's global norm; 0 for none.
        validations: how often the validation metric is taken, evenly over the run.
        select: by what the checkpoint is chosen where answers are generated: ``likelihood`` of the
            right answers, or ``score``, the tasks' metrics of answers generated to the validation
            items, which takes as long as scoring these. Candidates are always judged by accuracy, a
            classification head by the task's metric.
        max_length: longest context plus answer, in tokens; longer contexts are cut.
        precision: ``auto`` lets a frozen base take the machine's fastest dtype.
        gradient_checkpointing: recompute activations in the backward pass even if memory suffices
            to keep them; on a GPU they are recomputed where it does not.
        chat_template: put prompts in the model's own chat template, and end answers as it does.
        optimizer: ``adamw`` with moments in float32, or ``adamw-8bit`` with moments in 8 bits
            (bitsandbytes), which full fine-tuning of 7 billion parameters needs on 80 GB.
        quantization: how a frozen base is kept: ``none``, or ``nf4`` for its linear layers in 4
            bits (bitsandbytes, as in QLoRA), so that 70 billion parameters take 40 GB.
        seeds: the random streams.
    """

    model: ModelSpec = ModelSpec()
    method: str
    settings: dict[str, Any] = Field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    source: str = "embedded"
    train_items: int | None = Field(None, ge=1)
    validation_items: int | None = Field(None, ge=1)
    protocol: str = DEFAULT_PROTOCOL
    loss: Loss = "candidates"
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(8, ge=1)
    accumulate: int = Field(1, ge=1)
    epochs: int = Field(1, ge=1, le=100_000)
    schedule: Literal["linear", "constant"] = "linear"
    warmup: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, ge=0)
    validations: int = Field(3, ge=1)
    select: Literal["likelihood", "score"] = "likelihood"
    max_length: int = Field(512, ge=8)
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    gradient_checkpointing: bool = False
    chat_template: bool = False
    optimizer: Optimizer = "adamw"
    quantization: Quantization = "none"
    seeds: Seeds = Seeds()


class EvaluationSpec(Frozen):
    """Everything that a score depends on besides the trained model.

    Attributes:
        tasks: tasks to score.
        source: where their data comes from.
        split: which split is scored.
        items: items per task; ``None`` takes all.
        sample: seed of the draw when ``items`` is set.
        protocol: registered name of the protocol: how items become prompts and answers are
            read.
        normaliser: how a candidate's log-likelihood is made comparable.
        max_length: longest context plus answer, in tokens.
        max_new_tokens: bound on a generated answer, in tokens; ``None`` for the task's own bound
            or, if it has none, the length of its longest right answer.
        chat_template: put prompts in the model's own chat template; texts to predict stay as they
            are.
        forgetting: a perplexity task that shows what the model lost, or empty for none.
        forgetting_source: where its text comes from.
        forgetting_items: its items.
    """

    tasks: tuple[str, ...]
    source: str = "embedded"
    split: Literal["validation", "test"] = "test"
    items: int | None = Field(None, ge=1)
    sample: int = Field(0, ge=0, lt=2**32)
    protocol: str = DEFAULT_PROTOCOL
    normaliser: Normaliser = "token_mean"
    max_length: int = Field(1024, ge=8)
    max_new_tokens: int | None = Field(None, ge=1)
    chat_template: bool = False
    forgetting: str = ""
    forgetting_source: str = "embedded"
    forgetting_items: int = Field(20, ge=1)


def build(kind: type[TrainingSpec] | type[EvaluationSpec], values: Mapping[str, Any]) -> Any:
    """Validate plain values into a spec.

    Raises:
        UsageError: an unknown key (the message names the closest known one) or a refused value.
    """
    from pydantic import ValidationError

    for key in values:
        if key not in kind.model_fields:
            raise UsageError(f"There is no setting {key!r}. {did_you_mean(key, kind.model_fields)}")
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        part = "training." if kind is TrainingSpec else "evaluation."
        raise UsageError(f"Settings refused: {problems(error, part)}.") from None


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def identity(spec: Frozen, **content: Any) -> str:
    """A spec's name on disk.

    Args:
        spec: the spec; values equal to their defaults do not enter.
        content: fingerprints and versions of what the spec only names.

    Returns:
        12 hexadecimal digits.
    """
    text = canonical({"spec": spec.model_dump(mode="json", exclude_defaults=True), **content})
    return hashlib.sha256(text.encode()).hexdigest()[:12]


Denominator = Literal["base", "base+added"]


@dataclass(frozen=True)
class Job:
    """A run to compute.

    Attributes:
        label: the row it belongs to.
        training: what to train.
        evaluation: how to score it.
    """

    label: str
    training: TrainingSpec
    evaluation: EvaluationSpec


def meta_reference(model: ModelSpec) -> str:
    """The name and revision, or folder, by which `quanta_bench.models.meta` finds a model."""
    if model.source.startswith("local:"):
        return model.source if model.name == "." else f"{model.source}/{model.name}"
    named = model.source == "hub" and model.revision != "main"
    return f"{model.name}@{model.revision}" if named else model.name
