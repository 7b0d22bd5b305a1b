"""Weights from a quantum circuit and a classical map (QPA, arXiv:2410.09846)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from baselines.quantum import Backend, QuantumNetwork
from baselines.tuners.initial import kaiming_, uniform_

HIDDEN = (32, 64, 128, 128, 64, 32, 32)
"""Widths between the layers of the mapping model."""

FLOOR = 1e-6
"""The probability, in units of the uniform one, below which `feature` passes no gradient."""


class WeightGenerator(nn.Module):
    """Generates a vector of weights, a chunk for each basis state of a circuit.

    The circuit starts in |0...0> and has `depth` blocks of RY on each qubit and a chain of CNOTs.
    Basis state i always generates chunk i: the order is fixed. The mapping model takes the state's
    bits as signs (-1 for 0, +1 for 1; qubit 0, the most significant bit, first) and its `feature`
    minus the mean over all states, and returns the chunk's weights. It is a chain of linear layers
    with biases and no activations, so a chunk is an affine function of the signs and the feature.
    The chunks are concatenated, truncated to `count`, and centred to mean 0.

    With n qubits there are ``32 (n + 1) + 32 + 38,336 + 33 chunk + n depth`` parameters.

    The parameters are float32 and uninitialised; `reset` initialises them.

    Args:
        count: Number of weights, at least 2 (a single weight is its own mean).
        chunk: Weights per basis state. There are ``ceil(count / chunk)`` chunks and enough
            qubits to index them: ``ceil(log2(chunks))``, but at least 1 (our reading; a single
            chunk would need no circuit).
        depth: Blocks of the circuit.
        backend: The backend that computes the circuit; the circuit engine by default.
        device: Where the parameters are.

    Raises:
        ValueError: A number is too small, or more than 24 qubits would be needed.
    """

    def __init__(
        self,
        count: int,
        chunk: int,
        depth: int,
        *,
        backend: Backend | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        for name, value, least in (("count", count, 2), ("chunk", chunk, 1), ("depth", depth, 1)):
            if value < least:
                raise ValueError(f"{name}={value!r} is below {least}")
        self.count, self.chunk = count, chunk
        self.chunks = math.ceil(count / chunk)
        qubits = max(1, (self.chunks - 1).bit_length())
        try:
            self.network = QuantumNetwork(qubits, depth, backend=backend)
        except ValueError as error:
            raise ValueError(
                f"chunk={chunk!r} cuts {count:,} weights into {self.chunks:,} chunks: {error}"
            ) from error
        widths = (qubits + 1, *HIDDEN, chunk)
        with torch.device(
            "meta"
        ):  # initialises nothing, so the global random state stays unchanged
            self.angles = nn.Parameter(torch.empty(self.network.shape, dtype=torch.float32))
            self.mapping = nn.Sequential(
                *(
                    nn.Linear(before, after, dtype=torch.float32)
                    for before, after in pairwise(widths)
                )
            )
        self.to_empty(device=device)

    @property
    def qubits(self) -> int:
        """Number of qubits."""
        return self.network.ansatz.qubits

    def reset(self, generator: torch.Generator) -> None:
        """Initialise the parameters from a CPU generator.

        Angles are uniform in [-pi, pi]; layers are initialised like `torch.nn.Linear`, weights and
        biases uniform within 1 / sqrt(fan-in) (our reading; the paper does not specify it).
        """
        uniform_(self.angles, math.pi, generator)
        for module in self.mapping:
            layer = cast(nn.Linear, module)
            kaiming_(layer.weight, layer.in_features, generator)
            uniform_(layer.bias, 1 / math.sqrt(layer.in_features), generator)

    def forward(self) -> Tensor:
        """The weights: shape ``(count,)``, float32, also under autocast; their mean is 0."""
        kind = self.angles.device.type  # the meta device has no autocast
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            values = feature(self.network.probabilities(self.angles))
            values = values - values.mean()
            inputs = torch.cat((self._signs(values), values[:, None]), dim=1)[: self.chunks]
            weights = cast(Tensor, self.mapping(inputs)).flatten()[: self.count]
            return weights - weights.mean()

    def _signs(self, like: Tensor) -> Tensor:
        """Bits of the basis states as signs: shape ``(2**n, n)``."""
        states = torch.arange(2**self.qubits, device=like.device)
        places = torch.arange(self.qubits - 1, -1, -1, device=like.device)
        return 2 * (states[:, None] >> places & 1).to(like.dtype) - 1

    def extra_repr(self) -> str:
        """The generator's sizes."""
        return f"count={self.count}, chunk={self.chunk}, network={self.network!r}"


def feature(probabilities: Tensor) -> Tensor:
    """``(0.60 tanh(0.1 2**(n - 1) p)) ** 0.15`` of the probabilities p of n qubits' basis states.

    The power has an infinite slope at p = 0, which is the probability of all states but one if all
    angles are 0. Values are exact everywhere, but no gradient passes where ``2**n p`` is below
    `FLOOR`; above it, the slope is at most about 11,000 times ``2**n``, and smaller with respect to
    the amplitude, because p is its square.

    Args:
        probabilities: Shape ``(2**n,)``, real.

    Returns:
        The same shape and dtype.
    """
    half = len(probabilities) / 2
    scaled = 0.60 * torch.tanh(0.1 * half * probabilities)
    least = 0.60 * math.tanh(0.05 * FLOOR)
    # Both branches need finite slopes: that of the unselected branch is multiplied by 0.
    sloped = scaled.clamp(min=least) ** 0.15
    flat = scaled.detach().clamp(min=0) ** 0.15
    return torch.where(scaled < least, flat, sloped)
