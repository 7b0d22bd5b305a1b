"""The LightningDataModule that feeds any task's items, tokenised once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from quanta_bench.data.bucketing import by_tokens, shuffled
from quanta_bench.data.loader import Batches, evaluation_tokens, halvings, training_tokens
from quanta_bench.data.pools import Pools
from quanta_bench.models.special_tokens import pad_token
from quanta_bench.spec import TrainingSpec
from quanta_bench.training.objectives import objective_of
from quanta_bench.utils.device import this_device
from quanta_bench.utils.process_group import ALONE, Group


class BenchData(pl.LightningDataModule):
    """Training and validation batches of a training spec.

    All passes over the data are laid out in advance and cut into ``spec.validations`` intervals
    of equal length. An interval is what Lightning calls an epoch, so that it validates, saves and
    resumes between intervals by its own rules.

    A training batch holds the items of one optimiser step. It comes as micro-batches: its items,
    cut by length so that little is padded and each is within a budget of tokens, and within the
    ``spec.accumulate``-th part of the items. The loss is that of the whole batch all the same
    (:func:`quanta_bench.training.objectives.accumulate_gradients`).

    In a group of processes all lay out the same batches, and each computes its share of every one.

    Args:
        spec: the training spec.
        pools: where items come from.
        tokenizer: the model's tokenizer.
        packed: whether candidates may share a row (see :mod:`quanta_bench.data.batches`).
        device: where they are computed, which sets the budgets; by default a GPU if there is one.
        group: the processes that share the run.

    Attributes:
        tokens: budget of a micro-batch, padding counted; may be lowered at any time, by each
            process of a group on its own.
        halvings: how often it was halved because memory had run out.
        recomputed: whether activations are to be computed again in the backward pass.
        predicted_bytes: the peak of memory that is expected; ``None`` where it is not predicted.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        pools: Pools,
        tokenizer: Any,
        *,
        packed: bool,
        device: torch.device | None = None,
        group: Group = ALONE,
    ) -> None:
        super().__init__()
        self.device = device or this_device()
        self.group = group
        self.spec = spec
        self.objective = objective_of(spec)
        self.packed = packed
        # A single continuation gains nothing from packing and is spared its larger mask.
        self.train_packed = packed and spec.loss == "candidates"
        self.tokens = training_tokens(self.device)
        self.halvings = 0
        self.recomputed = spec.gradient_checkpointing
        self.predicted_bytes: int | None = None
        self.pad_token = pad_token(tokenizer)
        self.train_items = self._encode(pools, tokenizer, "train", spec.train_items)
        self.validation_items = self._encode(pools, tokenizer, "validation", spec.validation_items)
        self.intervals = self._lay_out()

    def _encode(self, pools: Pools, tokenizer: Any, split: Any, count: int | None) -> list[Any]:
        spec = self.spec
        samples = pools.sample(spec.tasks, spec.source, split, count, spec.seeds.sample)
        return self.objective.encode(tokenizer, samples, train=split == "train")

    def _lay_out(self) -> list[list[list[Any]]]:
        spec = self.spec
        batches = [
            batch
            for epoch in range(spec.epochs)
            for batch in shuffled(
                self.train_items,
                spec.batch_size,
                seed=spec.seeds.order,
                epoch=epoch,
                packed=self.train_packed,
            )
        ]
        count = min(spec.validations, len(batches))
        bounds = [round(i * len(batches) / count) for i in range(count + 1)]
        return [batches[low:high] for low, high in pairwise(bounds)]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return sum(map(len, self.intervals))

    @property
    def cut(self) -> int:
        """Training items whose context was cut."""
        return sum(item.cut > 0 for item in self.train_items)

    @property
    def most_items(self) -> int:
        """The most items of a micro-batch."""
        parts = max(self.spec.accumulate, self.group.size)
        return math.ceil(self.spec.batch_size / (parts << halvings()))

    @property
    def longest(self) -> int:
        """Tokens of the longest training item."""
        return max(int(item.cost(self.train_packed)) for item in self.train_items)

    def halve(self, micro_batches: Sequence[Any]) -> bool:
        """Halve the budget, because these micro-batches were too large; false if they cannot be."""
        largest = max(
            (part for part in micro_batches if len(part.items) > 1),
            key=lambda part: part.input_ids.numel(),
            default=None,
        )
        if largest is None:
            return False
        self.tokens = largest.input_ids.numel() // 2
        self.halvings += 1
        return True

    def within_budget(self, micro_batches: Sequence[Any]) -> list[Any]:
        """These micro-batches, or the same items cut anew if the budget is lower than it was."""
        if all(
            part.input_ids.numel() <= self.tokens or len(part.items) == 1 for part in micro_batches
        ):
            return list(micro_batches)
        device = micro_batches[0].input_ids.device
        items = [item for part in micro_batches for item in part.items]
        return [part.to(device) for part in self.micro_batches(items)]

    def micro_batches(self, batch: Sequence[Any]) -> list[Any]:
        """The items of an optimiser step as micro-batches, collated."""
        parts = by_tokens(batch, self.tokens, packed=self.train_packed, most=self.most_items)
        return [
            self.objective.collate(part, self.pad_token, packed=self.train_packed, train=True)
            for part in parts
        ]

    def spare(self) -> Any:
        """The smallest micro-batch, for passes that do not count."""
        shortest = min(self.train_items, key=lambda item: item.cost(self.train_packed))
        return self.micro_batches([shortest])[0]

    def train_dataloader(self) -> DataLoader[Any]:
        """The interval that the trainer is in: a list of micro-batches for each batch.

        It is empty where the batch has fewer items than the group has processes.
        """
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        shares = [self.group.share(batch) for batch in self.intervals[epoch]]
        return Batches(shares, self.micro_batches).loader(self.device)

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation items of this process, in batches of similar length."""
        budget = evaluation_tokens(self.device)
        own = self.group.share(self.validation_items)
        # Lightning validates only where there is a batch, and the processes wait for each other.
        batches = by_tokens(own, budget, packed=self.packed) or [[]]
        return Batches(batches, self.collate).loader(self.device)

    def collate(self, items: Sequence[Any]) -> Any:
        """Validation items as one batch; an empty list without any."""
        if not items:
            return []
        return self.objective.collate(items, self.pad_token, packed=self.packed)
