# Copyright 2026-present the HuggingFace Inc. team.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The QuanTA circuit: a product of gates, each on two of the axes into which a layer's width is split."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Gate:
    """A linear map on two axes.

    Args:
        axes (`tuple[int, int]`):
            The axes it acts on.
        shape (`tuple[int, int, int, int]`):
            The shape of its tensor: the sizes of both axes after it, then before it.
    """

    axes: tuple[int, int]
    shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class Circuit:
    """Gates in the order in which they act on a tensor with the axes `sizes`."""

    sizes: tuple[int, ...]
    gates: tuple[Gate, ...]

    @classmethod
    def all_pairs(cls, dims: Sequence[int], *, first_in: int | None = None, first_out: int | None = None) -> "Circuit":
        """One gate for each pair of axes, last pair first (Appendix G of the paper).

        Args:
            dims (`Sequence[int]`):
                The sizes of the axes.
            first_in (`int`, *optional*):
                The size of the first axis of the input if not `dims[0]`, to which the first gate on it maps it.
            first_out (`int`, *optional*):
                The size of the first axis of the output if not `dims[0]`, to which the last gate on it maps it.
        """
        pairs = sorted(itertools.combinations(range(len(dims)), 2), key=lambda pair: pair[::-1], reverse=True)
        # the gates on the first axis are (0, N - 1), ..., (0, 1), and the others never change a size
        first, last = (0, len(dims) - 1), (0, 1)
        gates = []
        for m, n in pairs:
            out_m = first_out if (m, n) == last and first_out is not None else dims[m]
            in_m = first_in if (m, n) == first and first_in is not None else dims[m]
            gates.append(Gate((m, n), (out_m, dims[n], in_m, dims[n])))
        return cls((first_in or dims[0], *dims[1:]), tuple(gates))

    @property
    def in_features(self) -> int:
        return math.prod(self.sizes)

    def apply(self, x: torch.Tensor, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map vectors `(..., in_features)`, one tensor for each gate."""
        lead = x.shape[:-1]
        x = x.reshape(-1, *self.sizes)
        for gate, tensor in zip(self.gates, tensors):
            m, n = (axis + 1 for axis in gate.axes)
            # tensordot puts the axes that it creates last
            x = torch.tensordot(x, tensor, dims=([m, n], [2, 3])).movedim((-2, -1), (m, n))
        return x.reshape(*lead, math.prod(x.shape[1:]))


@dataclass(frozen=True)
class WeightCircuit:
    """A circuit as a map from `in_features` to `out_features`.

    Where the circuit has other widths, vectors are padded with zeros or truncated.
    """

    in_features: int
    out_features: int
    dims: tuple[int, ...]
    circuit: Circuit

    def apply(self, x: torch.Tensor, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map vectors `(..., in_features)` to `(..., out_features)`."""
        x = self.circuit.apply(_resize(x, self.circuit.in_features), tensors)
        return _resize(x, self.out_features)


def _resize(x: torch.Tensor, length: int) -> torch.Tensor:
    # a negative padding truncates
    return x if x.shape[-1] == length else nn.functional.pad(x, (0, length - x.shape[-1]))
