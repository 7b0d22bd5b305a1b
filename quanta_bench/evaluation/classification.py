"""Outputs, losses and answers of a classification head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quanta_bench.data.texts import TextBatch
from quanta_bench.evaluation.decisions import check_finite, judge
from quanta_bench.task import Answer, Example, Task


def head_outputs(model: nn.Module, batch: TextBatch) -> Tensor:
    """The head's numbers, (items, outputs), float32 or wider."""
    inputs = {"input_ids": batch.input_ids}
    if batch.attention_mask is not None:
        inputs["attention_mask"] = batch.attention_mask
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    logits: Tensor = model(**inputs).logits
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def head_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of each item, (items,): cross-entropy of classes, or the square of the error.

    Args:
        outputs: (items, outputs).
        targets: (items,) int64 classes, or numbers to predict with a single output.
    """
    if targets.is_floating_point():
        return (outputs.squeeze(1) - targets).square()
    return F.cross_entropy(outputs, targets, reduction="none")


def judge_outputs(task: Task, example: Example, outputs: Sequence[float]) -> tuple[Answer, ...]:
    """Judge a head's outputs for an item: the largest class, or the number.

    Returns:
        One answer, or one for each class that ties for the largest output.

    Raises:
        NonFiniteError: an output is NaN or infinite.
    """
    check_finite(outputs, "output", example, task.reference)
    if task.outputs == 1:
        return (task.judge_value(example, outputs[0]),)
    return judge(task, example, outputs)
