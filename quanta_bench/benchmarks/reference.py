"""The usual stack: ``transformers.Trainer``, LoRA by ``peft``, batches padded to their longest."""

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

from quanta_bench.bench.turns import Done
from quanta_bench.benchmarks.materials import Materials, own_settings
from quanta_bench.data.encoding import Encoded
from quanta_bench.models.loading import LoadedModel
from quanta_bench.spec import TrainingSpec

IGNORED = -100
"""The label that ``transformers`` leaves out of the loss."""


def features(items: Sequence[Encoded]) -> list[dict[str, list[int]]]:
    """Items as ``Trainer`` takes them: token ids, with labels on the answer alone."""
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
    """The base with LoRA as our row has it, put in by ``peft`` itself."""
    from peft import LoraConfig, get_peft_model

    settings = own_settings("lora")
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
    """A ``Trainer`` for a spec's items, one pass, that writes and logs nothing.

    Args:
        materials: the model.
        items: encoded items with one continuation each.
        spec: rate, schedule, items a step.
        dtype: of the base.
        grouped: batches of similar length, by its own sampler.
        autocast: compute in bfloat16 by autocast.
        in_order: take the items in their order.
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
    """Ends a part of the run after some steps.

    Args:
        ends: numbers of steps done at which a part ends.
        work: how much each part is.
    """

    def __init__(self, ends: Collection[int], work: float) -> None:
        self._ends = ends
        self._work = work
        self.done: Done = lambda work: None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the part if it is one."""
        if state.global_step in self._ends:
            self.done(self._work)


def run(trainer: Trainer, done: Done) -> None:
    """Train to the end, in the parts of the trainer's :class:`Parts`."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, Parts):
            callback.done = done
    trainer.train()


def losses(trainer: Trainer, start: Mapping[str, torch.Tensor]) -> list[float]:
    """Each step's loss in a whole run from given weights of the adapter.

    Raises:
        ValueError: the weights are not those of the trainer's adapter.
    """
    found: list[float] = []
    model: Any = trainer.model
    own = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if set(own) != set(start):
        raise ValueError(f"other adapter weights: {sorted(set(own) ^ set(start))[:3]}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(start[name])
    compute = trainer.compute_loss

    def kept(*arguments: Any, **keywords: Any) -> Any:
        value = compute(*arguments, **keywords)
        found.append(float((value[0] if isinstance(value, tuple) else value).detach()))
        return value

    trainer.compute_loss = kept  # type: ignore[method-assign]
    trainer.train()
    return found


def faster_with_autocast(
    materials: Materials, items: Sequence[Encoded], spec: TrainingSpec
) -> bool:
    """Whether ``Trainer`` is the faster with bfloat16 autocast on the base as it is loaded here.

    Timed over the same few items, in turns, the lesser of two times.
    """
    if materials.dtype is not torch.bfloat16:
        return False
    few = items[: spec.batch_size]
    best = {True: float("inf"), False: float("inf")}
    trainers = {
        mixed: trainer(materials, few, spec, materials.dtype, autocast=mixed) for mixed in best
    }
    for _ in range(2):
        for mixed, one in trainers.items():
            begun = time.perf_counter()
            one.train()
            best[mixed] = min(best[mixed], time.perf_counter() - begun)
    return best[True] < best[False]
