"""The usual stack: ``transformers.Trainer``, LoRA from ``peft``, batches padded to the longest."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from transformers import (
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from quanta_bench.bench.turns import EndPart
from quanta_bench.benchmarks.materials import Materials, row_settings
from quanta_bench.data.encoding import Encoded
from quanta_bench.models.loading import LoadedModel
from quanta_bench.spec import TrainingSpec

IGNORED = -100
"""The label that ``transformers`` ignores in the loss."""


def features(items: Sequence[Encoded]) -> list[dict[str, list[int]]]:
    """Items as ``Trainer`` expects them: token ids, with labels only on the answer."""
    rows = []
    for item in items:
        context, answer = list(item.contexts[0]), list(item.candidates[0])
        rows.append(
            {
                "input_ids": context + answer,
                "attention_mask": [1] * (len(context) + len(answer)),
                "labels": [IGNORED] * len(context) + answer,
            }
        )
    return rows


def with_lora(base: LoadedModel) -> Any:
    """The base adapted by ``peft``'s own LoRA, with the settings of our row."""
    from peft import LoraConfig, get_peft_model

    settings = row_settings("lora")
    config = LoraConfig(
        r=settings["r"],
        lora_alpha=settings["alpha"],
        target_modules=list(settings["target_modules"]),
        lora_dropout=settings.get("dropout", 0.0),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base.model, config)


def trainer(
    materials: Materials,
    items: Sequence[Encoded],
    spec: TrainingSpec,
    dtype: torch.dtype,
    *,
    grouped: bool = False,
    autocast: bool = False,
    in_order: bool = False,
) -> Trainer:
    """A ``Trainer`` that makes one pass over a spec's items and writes and logs nothing.

    Args:
        materials: the model.
        items: encoded items with one continuation each.
        spec: learning rate, schedule, batch size.
        dtype: dtype of the base.
        grouped: batch items of similar length, with Trainer's own sampler.
        autocast: compute under bfloat16 autocast.
        in_order: keep the order of the items.
    """
    base = materials.load(dtype)
    strategy = "sequential" if in_order else "group_by_length" if grouped else "random"
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        per_device_train_batch_size=spec.batch_size,
        num_train_epochs=spec.epochs,
        learning_rate=spec.learning_rate,
        lr_scheduler_type=spec.schedule,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.clip_norm,
        bf16=autocast,
        use_cpu=materials.device.type == "cpu",
        train_sampling_strategy=strategy,
        dataloader_num_workers=0,
        dataloader_pin_memory=materials.device.type != "cpu",
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=spec.seeds.order,
    )
    return Trainer(
        model=with_lora(base),
        args=arguments,
        train_dataset=features(items),
        data_collator=DataCollatorForSeq2Seq(base.tokenizer),
        processing_class=base.tokenizer,
    )


class Parts(TrainerCallback):
    """Ends a part of the run at given steps.

    Args:
        ends: steps after which a part ends.
        work: the amount of work in each part.
    """

    def __init__(self, ends: Collection[int], work: float) -> None:
        self._ends = ends
        self._work = work
        self.end_part: EndPart = lambda work: None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the part if this step is its last."""
        if state.global_step in self._ends:
            self.end_part(self._work)


def run(trainer: Trainer, end_part: EndPart) -> None:
    """Train to the end; the trainer's :class:`Parts` end the parts."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, Parts):
            callback.end_part = end_part
    trainer.train()


def losses(trainer: Trainer, start: Mapping[str, torch.Tensor]) -> list[float]:
    """The loss of each step of a whole run that starts from given adapter weights.

    Raises:
        ValueError: the weights are not those of the trainer's adapter.
    """
    step_losses: list[float] = []
    model: Any = trainer.model
    weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if set(weights) != set(start):
        raise ValueError(f"these adapter weights differ: {sorted(set(weights) ^ set(start))[:3]}")
    with torch.no_grad():
        for name, value in weights.items():
            value.copy_(start[name])
    compute = trainer.compute_loss

    def recorded(*arguments: Any, **keywords: Any) -> Any:
        value = compute(*arguments, **keywords)
        step_losses.append(float((value[0] if isinstance(value, tuple) else value).detach()))
        return value

    trainer.compute_loss = recorded  # type: ignore[method-assign]
    trainer.train()
    return step_losses


def faster_with_autocast(
    materials: Materials, items: Sequence[Encoded], spec: TrainingSpec
) -> bool:
    """Whether ``Trainer`` is faster with bfloat16 autocast on the base as this machine loads it.

    Timed on the same few items, alternating; the shorter of two times counts.
    """
    if materials.dtype is not torch.bfloat16:
        return False
    few = items[: spec.batch_size]
    best = {True: float("inf"), False: float("inf")}
    trainers = {
        mixed: trainer(materials, few, spec, materials.dtype, autocast=mixed) for mixed in best
    }
    for _ in range(2):
        for mixed, candidate in trainers.items():
            start = time.perf_counter()
            candidate.train()
            best[mixed] = min(best[mixed], time.perf_counter() - start)
    return best[True] < best[False]
