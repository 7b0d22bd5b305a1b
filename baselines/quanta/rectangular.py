"""A circuit fitted to a weight of any shape (QuanTA paper, App. B).

Two constructions:

- ``"gate"``: the axis sizes multiply to the larger width. If the other width is an integer factor
  smaller and the first axis is a multiple of that factor, a rectangular gate changes the first
  axis: the last gate on it shrinks it, or the first one grows it.
- ``"pad"``: the circuit is square on ``P``, the product of the sizes; the input is zero-padded or
  truncated to ``P``, and the output to the layer's width.

If both apply, they are the same map: the first is the second without the unused rows or columns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from baselines.quanta import fused
from baselines.quanta.circuit import Circuit, result_dtype
from baselines.quanta.dims import can_split, choose_dims
from baselines.quanta.layout import Layout, layout_of

Rectangular: TypeAlias = Literal["gate", "pad"]


@dataclass(frozen=True)
class WeightCircuit:
    """A circuit as a map from ``in_features`` to ``out_features``, with padding where needed."""

    in_features: int
    out_features: int
    dims: tuple[int, ...]
    circuit: Circuit

    def apply(
        self,
        x: Tensor,
        gates: Sequence[Tensor],
        *,
        minus: Sequence[Tensor] | None = None,
        recompute: bool | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``; see `Circuit.apply`."""
        if x.is_cuda and not torch.compiler.is_compiling():
            dtype = result_dtype(x, [*gates, *(minus or ())])
            layout = self._layout
            if layout is not None and fused.fits(layout, x, dtype, self.out_features):
                for stack in (gates, minus or gates):
                    if [gate.shape for gate in stack] != layout.shapes:
                        self.circuit.tensors(x, stack)  # raises with the reason
                result = fused.run(
                    layout,
                    x.to(dtype).reshape(-1, self.in_features),
                    gates,
                    minus=minus,
                    out_features=self.out_features,
                    weight=None if weight is None else weight.to(dtype),
                    bias=None if bias is None else bias.to(dtype),
                )
                return result.reshape(*x.shape[:-1], self.out_features)
        if self.pads:
            result = self.circuit.apply(
                _resize(x, self.circuit.in_features), gates, minus=minus, recompute=recompute
            )
            result = _resize(result, self.out_features)
            return result if weight is None else result + functional.linear(x, weight, bias)
        return self.circuit.apply(
            x, gates, minus=minus, recompute=recompute, weight=weight, bias=bias
        )

    @cached_property
    def _layout(self) -> Layout | None:
        return layout_of(self.circuit)

    @property
    def pads(self) -> bool:
        """Whether vectors are padded or truncated before or after the circuit."""
        features = (self.circuit.in_features, self.circuit.out_features)
        return features != (self.in_features, self.out_features)

    def rank_bounds(self) -> tuple[int, int]:
        """Bounds on the rank of the map, from Theorem 6.2 for gates of full rank.

        Each row or column that padding truncates can lower the rank by one.
        """
        least, most = self.circuit.rank_bounds()
        cut = self.circuit.in_features - self.in_features
        cut += self.circuit.out_features - self.out_features
        return max(0, least - cut), min(most, self.in_features, self.out_features)

    def matrix(self, gates: Sequence[Tensor]) -> Tensor:
        """The map as a matrix ``(out_features, in_features)``, in the gates' dtype."""
        matrix = self.circuit.matrix(gates)
        return _resize(_resize(matrix, self.in_features).mT, self.out_features).mT


def _resize(x: Tensor, length: int) -> Tensor:
    """Zero-pad or truncate the last dimension."""
    missing = length - x.shape[-1]
    if missing > 0:
        return functional.pad(x, (0, missing))
    return x[..., :length] if missing < 0 else x


@lru_cache(maxsize=1024)
def fit_circuit(
    in_features: int,
    out_features: int,
    dims: tuple[int, ...] | None,
    rectangular: Rectangular,
    budget: int | None,
    name: str,
) -> WeightCircuit:
    """Plan the all-pairs circuit of one layer.

    Args:
        in_features: The layer's input width.
        out_features: The layer's output width.
        dims: Axis sizes, or `None` to choose them.
        rectangular: The construction, see above.
        budget: Maximum number of parameters, if sizes are chosen.
        name: The module's name, for messages.

    Raises:
        ValueError: The sizes do not fit the layer. The message names the module, its widths, and
            what would fit.
    """
    if rectangular == "pad":
        if dims is None:
            # Any product works, so a narrow width without a good split is rounded up.
            narrow = min(in_features, out_features)
            dims = choose_dims(next(filter(can_split, itertools.count(narrow))), budget=budget)
        return WeightCircuit(in_features, out_features, dims, Circuit.all_pairs(dims))

    wide, narrow = max(in_features, out_features), min(in_features, out_features)
    layer = f"module {name!r} ({in_features} -> {out_features})"
    if wide % narrow:
        raise ValueError(
            f"{layer}: neither width is a multiple of the other, so no rectangular gate joins "
            'them; pass rectangular="pad" to pad and cut instead'
        )
    factor = wide // narrow
    if dims is None:
        try:
            dims = choose_dims(wide, budget=budget, divisor=factor)
        except ValueError as error:
            raise ValueError(f"{layer}: {error}") from error
    if math.prod(dims) != wide:
        raise ValueError(
            f"{layer}: dims {dims} multiply to {math.prod(dims)}, not to its width {wide}; "
            f"nearest dims: {_nearest_dims(dims, wide, factor)}. Or pass "
            'rectangular="pad" to pad and cut to the product'
        )
    if dims[0] % factor:
        raise ValueError(
            f"{layer}: the first of dims {dims} is not a multiple of {factor}, by which the layer "
            f"{'shrinks' if in_features > out_features else 'grows'}; nearest dims: "
            f'{_nearest_dims(dims, wide, factor)}. Or pass rectangular="pad"'
        )
    first = dims[0] // factor
    circuit = Circuit.all_pairs(
        dims,
        first_in=first if in_features < out_features else None,
        first_out=first if in_features > out_features else None,
    )
    return WeightCircuit(in_features, out_features, dims, circuit)


def _nearest_dims(dims: tuple[int, ...], width: int, factor: int) -> str:
    """Up to three splits of ``width`` into as many axes, nearest to ``dims`` on a log scale."""

    def distance(candidate: tuple[int, ...]) -> float:
        pairs = zip(candidate, dims, strict=True)
        return sum(abs(math.log(size / wanted)) for size, wanted in pairs)

    fitting = [split for split in _ordered_splits(width, len(dims)) if split[0] % factor == 0]
    if not fitting:
        return f"none with {len(dims)} axes"
    best = sorted(fitting, key=lambda split: (distance(split), split))[:3]
    return " or ".join("-".join(map(str, split)) for split in best)


def _ordered_splits(width: int, count: int) -> list[tuple[int, ...]]:
    if count == 1:
        return [(width,)] if width > 1 else []
    return [
        (size, *rest)
        for size in range(2, width // 2 + 1)
        if width % size == 0
        for rest in _ordered_splits(width // size, count - 1)
    ]
