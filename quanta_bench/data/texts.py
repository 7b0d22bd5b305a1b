"""Inputs and targets of a classification head: one or two texts, a class or a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quanta_bench.data.batch import Batch
from quanta_bench.errors import BenchError
from quanta_bench.task import Example, Task


@dataclass(frozen=True)
class EncodedTexts:
    """An item's one or two texts in token ids, with the tokenizer's special tokens.

    Attributes:
        example: the item itself.
        task: position of its task in the list that is being run.
        ids: the token ids.
        types: which text each token belongs to, where the tokenizer says so; otherwise ``None``.
        target: number of the class, or the number to predict.
        cut: number of tokens cut from the ends of the texts.
    """

    example: Example
    task: int
    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    target: float
    cut: int

    def cost(self, packed: bool) -> int:
        """Tokens that the item puts into a batch; it is never packed."""
        return len(self.ids)


@dataclass(frozen=True)
class TextBatch(Batch):
    """Texts, one row an item.

    Attributes:
        input_ids: (items, length) int64, padded on the right.
        attention_mask: (items, length) int64, or ``None`` where nothing is padding.
        token_type_ids: (items, length) int64, or ``None`` where the tokenizer has none.
        targets: (items,) int64 classes, or (items,) float32 numbers to predict.
        items: the items, in order.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    token_type_ids: Tensor | None
    targets: Tensor
    items: tuple[EncodedTexts, ...]


def encode_texts(
    tokenizer: Any, task: Task, examples: Sequence[Example], *, max_length: int, number: int = 0
) -> list[EncodedTexts]:
    """Encode a task's items as their texts.

    A pair that is too long loses tokens at the end of whichever text is longer at the time.

    Args:
        tokenizer: a ``transformers`` tokenizer; its ``model_max_length`` is a bound too.
        task: the task.
        examples: its items.
        max_length: bound in tokens, special tokens included.
        number: position of the task in the list that is being run.

    Raises:
        BenchError: an item has neither one text nor two.
    """
    room = min(max_length, tokenizer.model_max_length)
    encoded = []
    for example in examples:
        texts = task.texts(example)
        if len(texts) not in (1, 2):
            raise BenchError(
                f"Item {example.id} of {task.name} has {len(texts)} texts; a head reads one or two."
            )
        # Not verbose: texts that are too long are counted, not warned of.
        encoding = whole = tokenizer(*texts, verbose=False)
        if len(whole["input_ids"]) > room:
            encoding = tokenizer(*texts, truncation="longest_first", max_length=room)
        ids, types = encoding["input_ids"], encoding.get("token_type_ids")
        encoded.append(
            EncodedTexts(
                example,
                number,
                tuple(ids),
                None if types is None else tuple(types),
                task.target(example),
                len(whole["input_ids"]) - len(ids),
            )
        )
    return encoded


def collate_texts(items: Sequence[EncodedTexts], pad_token: int, *, outputs: int) -> TextBatch:
    """Lay items out as one batch.

    Args:
        items: encoded items of one task.
        pad_token: id to fill with; masked everywhere.
        outputs: numbers that the head gives; with one, targets are numbers and not classes.
    """
    lengths = torch.tensor([len(item.ids) for item in items])
    width = int(lengths.max())

    def rows(values: Sequence[Sequence[int]], fill: int) -> Tensor:
        table = torch.full((len(items), width), fill)
        for row, own in zip(table, values, strict=True):
            row[: len(own)] = torch.tensor(own)
        return table

    types = [item.types for item in items if item.types is not None]
    targets = torch.tensor([item.target for item in items], dtype=torch.float32)
    return TextBatch(
        rows([item.ids for item in items], pad_token),
        (torch.arange(width) < lengths[:, None]).long() if int(lengths.min()) < width else None,
        rows(types, 0) if types else None,
        targets if outputs == 1 else targets.long(),
        tuple(items),
        tokens=int(lengths.sum()),
    )
