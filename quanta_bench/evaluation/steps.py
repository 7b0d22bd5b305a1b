"""Steps of decoding: the logits that follow one more token of each row.

:class:`Steps` calls the model. On a GPU it takes longer to launch a small model's step than to
compute it. :class:`RecordedSteps` therefore keeps all that a step reads and writes at fixed
addresses, so that a CUDA graph can be recorded once and replayed for each token.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

RESERVE = 64
"""Spare tokens that a layer of keys and values has room for."""

Recorder: TypeAlias = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Makes of a function one that does the same work on the same tensors again."""


class ReservedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer's keys and values with spare room, so that adding a token copies nothing.

    Args:
        keys: (rows, heads, length, width).
        values: as ``keys``.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._hold(keys, values)

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        """Copy keys and values into larger tensors."""
        # In latent attention, values and keys have different widths.
        self._stores = [
            torch.cat([tensor, tensor.new_zeros(*tensor.shape[:2], RESERVE, tensor.shape[3])], 2)
            for tensor in (keys, values)
        ]
        self._see(keys.shape[2])

    def _see(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (store[:, :, :length] for store in self._stores)
        self.keys, self.values = keys, values
        return keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens; returns all of them."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self._stores[0].shape[2]:
            self._hold(*self._see(start))
        for store, new in zip(self._stores, (key_states, value_states), strict=True):
            store[:, :, start:end] = new
        return self._see(end)

    def held(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens so far, (rows, heads, length, width) each."""
        return self._see(self.get_seq_length())

    def keep(self, rows: Tensor, start: int) -> None:
        """Keep only these rows, and only tokens from ``start`` on."""
        keys, values = self.held()
        self._hold(keys[rows, :, start:], values[rows, :, start:])


class FixedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer's keys and values in tensors of the final length, written where a tensor says.

    From token to token nothing changes but the contents of tensors. The mask hides places that are
    not written yet.

    Args:
        keys: (rows, heads, length, width), with room for the answers in ``length``.
        values: as ``keys``.
        place: (1,) int64, where the next token's keys and values belong.
    """

    def __init__(self, keys: Tensor, values: Tensor, place: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._stores, self._place = (keys, values), place

    def get_seq_length(self) -> int:
        """All places but one, whatever they hold: what a token sees is left to the mask."""
        return self._stores[0].shape[2] - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length of the mask and where it starts."""
        return self._stores[0].shape[2], 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the keys and values of one token; returns all of them."""
        for store, new in zip(self._stores, (key_states, value_states), strict=True):
            store.index_copy_(2, self._place, new)
        return self._stores

    def kept(self, rows: Tensor, start: int, place: Tensor) -> FixedLayer:
        """A copy of these rows, from token ``start`` on, whose next token belongs at ``place``."""
        keys, values = (store[rows, :, start:].contiguous() for store in self._stores)
        return FixedLayer(keys, values, place)


class Steps:
    """Decoding one token after another, by calls of the model.

    Args:
        model: a causal language model.
        layers: keys and values of what was read, by layer.
        mask: (rows, length) int64, 0 on padding.
    """

    ended_part = 8
    """Finished rows are dropped when one row in this many has ended; dropping copies the rest."""

    def __init__(self, model: nn.Module, layers: Sequence[ReservedLayer], mask: Tensor) -> None:
        self._model, self._layers, self._mask = model, layers, mask
        self._cache = DynamicCache()
        self._cache.layers = [*layers]

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, and only columns in which one of them has a token.

        Args:
            rows: (kept,) int64 numbers among the present rows.
        """
        start = int(self._mask[rows].any(0).int().argmax())
        self._mask = self._mask[rows, start:]
        for layer in self._layers:
            layer.keep(rows, start)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Add a token to each row.

        Args:
            tokens: (rows,) int64.

        Returns:
            (rows, vocabulary) float32 logits of what follows.
        """
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        return forward(self._model, tokens[:, None], self._mask, self._cache)


class RecordedSteps:
    """Decoding one token after another, by replaying what was recorded of the first.

    Args:
        model: a causal language model that takes ``position_ids`` and attends by SDPA.
        layers: keys and values of what was read, by layer; the list is emptied.
        mask: (rows, length) int64, 0 on padding.
        room: the most tokens that may follow.
        record: makes a replay of a step.
    """

    ended_part = 2
    """As for :class:`Steps`; dropping rows costs another recording."""

    def __init__(
        self,
        model: nn.Module,
        layers: list[ReservedLayer],
        mask: Tensor,
        room: int,
        record: Recorder,
    ) -> None:
        self._model, self._record = model, record
        self._place = mask.new_tensor([mask.shape[1]])
        # Four dimensions are used as they are. Of two the model would make its own mask, and wait
        # for the device to see whether it needs one.
        self._mask = nn.functional.pad(mask, (0, room)).bool()[:, None, None]
        self._positions = mask.sum(-1, keepdim=True) - 1
        self._tokens = mask.new_zeros(len(mask), 1)
        self._layers: list[FixedLayer] = []
        while layers:
            # Layer by layer, so that little is held twice.
            held = layers.pop(0).held()
            keys, values = (nn.functional.pad(tensor, (0, 0, 0, room)) for tensor in held)
            self._layers.append(FixedLayer(keys, values, self._place))
        self._cache: DynamicCache | None = None
        self._replay: Callable[[], Tensor] | None = None

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, and record the next step again.

        Args:
            rows: (kept,) int64 numbers among the present rows.
        """
        self._replay = self._cache = None
        start = int(self._mask[rows, 0, 0].any(0).int().argmax())
        self._place = self._place - start
        self._mask = self._mask[rows, :, :, start:].contiguous()
        self._positions, self._tokens = self._positions[rows], self._tokens[rows]
        left, self._layers = self._layers[::-1], []
        while left:
            self._layers.append(left.pop().kept(rows, start, self._place))

    def __call__(self, tokens: Tensor) -> Tensor:
        """Add a token to each row.

        Args:
            tokens: (rows,) int64.

        Returns:
            (rows, vocabulary) float32 logits of what follows, until the next step overwrites them.

        Raises:
            RuntimeError: the model's step cannot be recorded.
        """
        self._tokens.copy_(tokens[:, None])
        self._mask.index_fill_(3, self._place, True)
        self._positions.add_(1)
        if self._replay is None:
            self._cache = DynamicCache()
            self._cache.layers = [*self._layers]
            self._replay = self._record(self._step)
        logits = self._replay()
        self._place.add_(1)
        return logits

    def _step(self) -> Tensor:
        return forward(
            self._model, self._tokens, self._mask, self._cache, positions=self._positions
        )


def forward(
    model: nn.Module,
    ids: Tensor,
    mask: Tensor,
    cache: DynamicCache | None,
    *,
    positions: Tensor | None = None,
) -> Tensor:
    """(rows, vocabulary) float32 logits of what follows the last of ``ids``.

    Args:
        model: a causal language model.
        ids: (rows, new) int64 tokens that the cache does not hold yet.
        mask: (rows, length) int64 of all tokens, 0 on padding; or (rows, 1, new, length) bool, with
            ``positions``.
        cache: keys and values of the tokens before ``ids``; takes theirs too.
        positions: (rows, new) int64; counted from the mask if not given.
    """
    options: dict[str, Any] = {}
    accepted = inspect.signature(model.forward).parameters
    if "position_ids" in accepted:
        if positions is None:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        options["position_ids"] = positions
    if "logits_to_keep" in accepted:
        options["logits_to_keep"] = 1
    output = model(
        input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options
    )
    return output.logits[:, -1].float()  # type: ignore[no-any-return]
