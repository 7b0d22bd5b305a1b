"""Batches of candidates: packed, one context for all its candidates, or flat, one row each.

Both layouts come out as the same :class:`CandidateBatch`; what reads it does not know which it is.
In the packed layout a row holds a context followed by all its candidates. Each candidate attends
to the context and to itself, never to its neighbours, and its positions go on from the context's
end, so that the numbers are those of the flat layout at a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from quanta_bench.data.batch import Batch
from quanta_bench.data.encoding import Encoded


@dataclass(frozen=True)
class CandidateBatch(Batch):
    """Token rows, and which of their positions predict which candidate's tokens.

    Attributes:
        input_ids: (rows, length) int64, padded on the right.
        attention_mask: (rows, length) int64, or (rows, 1, length, length) bool when packed.
        position_ids: (rows, length) int64 when packed; otherwise ``None``, counting from the left.
        where: (tokens,) int64, positions in the flattened (rows * length) whose output predicts
            ``targets``.
        targets: (tokens,) int64 token ids.
        candidate: (tokens,) int64, the candidate each of these tokens belongs to.
        lengths: (candidates,) float32 number of tokens.
        sizes: (candidates,) float32 number of UTF-8 bytes.
        example: (candidates,) int64, the item each candidate belongs to.
        slot: (candidates,) int64, the candidate's place within its item.
        gold: (items,) int64, place of the right candidate.
        items: the items, in order.
        tokens: a context counts once for each row that contains it.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor | None
    where: Tensor
    targets: Tensor
    candidate: Tensor
    lengths: Tensor
    sizes: Tensor
    example: Tensor
    slot: Tensor
    gold: Tensor
    items: tuple[Encoded, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and tokens of each, padding counted."""
        rows, width = self.input_ids.shape
        return rows, width

    @classmethod
    def stack(cls, batches: Sequence[Self]) -> Self:
        """One batch of the rows of several of the same layout, padded with masked tokens."""
        width = max(batch.shape[1] for batch in batches)
        wide = [_widen(batch, width) for batch in batches]
        rows = _starts(len(batch.input_ids) for batch in batches)
        candidates = _starts(len(batch.lengths) for batch in batches)
        items = _starts(len(batch.items) for batch in batches)
        positions = [batch.position_ids for batch in wide if batch.position_ids is not None]
        return cls(
            torch.cat([batch.input_ids for batch in wide]),
            torch.cat([batch.attention_mask for batch in wide]),
            torch.cat(positions) if positions else None,
            torch.cat([batch.where + row * width for batch, row in zip(wide, rows, strict=True)]),
            torch.cat([batch.targets for batch in batches]),
            torch.cat([b.candidate + start for b, start in zip(batches, candidates, strict=True)]),
            torch.cat([batch.lengths for batch in batches]),
            torch.cat([batch.sizes for batch in batches]),
            torch.cat([batch.example + start for batch, start in zip(batches, items, strict=True)]),
            torch.cat([batch.slot for batch in batches]),
            torch.cat([batch.gold for batch in batches]),
            tuple(item for batch in batches for item in batch.items),
            tokens=sum(batch.tokens for batch in batches),
        )


B = TypeVar("B", bound=CandidateBatch)


def _starts(sizes: Iterable[int]) -> list[int]:
    return [0, *accumulate(sizes)][:-1]


def _widen(batch: B, width: int) -> B:
    """A batch with more padding on the right."""
    own = batch.input_ids.shape[1]
    more = width - own
    if not more:
        return batch
    mask, positions = batch.attention_mask, batch.position_ids
    if positions is None:
        mask = pad(mask, (0, more))
    else:
        mask = pad(mask, (0, more, 0, more))
        # Padding sees itself; see `_packed_mask`.
        mask[..., own:, own:] |= torch.eye(more, dtype=torch.bool, device=mask.device)
        positions = pad(positions, (0, more))
    return replace(
        batch,
        input_ids=pad(batch.input_ids, (0, more)),
        attention_mask=mask,
        position_ids=positions,
        where=batch.where // own * width + batch.where % own,
    )


def collate(
    items: Sequence[Encoded], pad_token: int, *, packed: bool, context_loss: bool = False
) -> CandidateBatch:
    """Lay items out as one batch.

    Args:
        items: encoded items.
        pad_token: id to fill with; masked everywhere.
        packed: put all candidates of an item into one row. Items whose candidates do not share
            one context are laid out one row a candidate within the same batch.
        context_loss: predict the context's tokens too (language modelling on the whole text);
            only for items with one continuation.
    """
    rows: list[_Row] = []
    lengths: list[int] = []
    sizes: list[int] = []
    example: list[int] = []
    slot: list[int] = []
    for index, item in enumerate(items):
        together = packed and item.shared
        if together:
            rows.append(_Row(item.contexts[0]))
        for place, (context, tokens) in enumerate(zip(item.contexts, item.candidates, strict=True)):
            if not together:
                rows.append(_Row(context))
            lengths.append(rows[-1].append(tokens, len(lengths), context_loss))
            sizes.append(item.sizes[place])
            example.append(index)
            slot.append(place)

    width = max(len(row.ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token)
    where: list[int] = []
    targets: list[int] = []
    candidate: list[int] = []
    for r, row in enumerate(rows):
        input_ids[r, : len(row.ids)] = torch.tensor(row.ids)
        where += [r * width + at for at in row.where]
        targets += row.targets
        candidate += row.candidate
    mask, positions = _packed_mask(rows, width) if packed else (_flat_mask(rows, width), None)
    return CandidateBatch(
        input_ids,
        mask,
        positions,
        torch.tensor(where),
        torch.tensor(targets),
        torch.tensor(candidate),
        torch.tensor(lengths, dtype=torch.float32),
        torch.tensor(sizes, dtype=torch.float32),
        torch.tensor(example),
        torch.tensor(slot),
        torch.tensor([item.gold for item in items]),
        tuple(items),
        tokens=sum(len(row.ids) for row in rows),
    )


class _Row:
    """One row being laid out: its tokens, their positions and which segment each is in."""

    def __init__(self, context: Sequence[int]) -> None:
        self.context = len(context)
        self.ids = list(context)
        self.positions = list(range(len(context)))
        self.segment = [0] * len(context)
        self.where: list[int] = []
        self.targets: list[int] = []
        self.candidate: list[int] = []

    def append(self, tokens: Sequence[int], candidate: int, context_loss: bool) -> int:
        """Add a continuation; returns the number of its tokens that are predicted."""
        start = len(self.ids)
        # The last token of the context predicts the first of every continuation. The last token
        # of a continuation predicts nothing, so it is never fed.
        where = [self.context - 1, *range(start, start + len(tokens) - 1)]
        targets = list(tokens)
        if context_loss:
            where = [*range(self.context - 1), *where]
            targets = [*self.ids[1 : self.context], *targets]
        fed = list(tokens[:-1])
        self.ids += fed
        self.positions += range(self.context, self.context + len(fed))
        self.segment += [max(self.segment) + 1] * len(fed)
        self.where += where
        self.targets += targets
        self.candidate += [candidate] * len(targets)
        return len(targets)


def _flat_mask(rows: Sequence[_Row], width: int) -> Tensor:
    lengths = torch.tensor([len(row.ids) for row in rows])
    return (torch.arange(width) < lengths[:, None]).long()


def _packed_mask(rows: Sequence[_Row], width: int) -> tuple[Tensor, Tensor]:
    segment = torch.full((len(rows), width), -1)
    positions = torch.zeros(len(rows), width, dtype=torch.int64)
    for r, row in enumerate(rows):
        segment[r, : len(row.ids)] = torch.tensor(row.segment)
        positions[r, : len(row.ids)] = torch.tensor(row.positions)
    query, key = segment[:, :, None], segment[:, None, :]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    visible = causal & (key >= 0) & ((key == 0) | (key == query))
    # A row of padding that attends to nothing would give NaN; let it see itself. Nothing reads it.
    padding = (segment < 0)[:, :, None] & torch.eye(width, dtype=torch.bool)
    return (visible | padding)[:, None], positions
