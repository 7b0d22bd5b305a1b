"""Tasks whose update is known: a model, and the same model with planted changes of rank k.

A planted change is a product of two random Gaussian factors, scaled to half of the weight's
Frobenius norm, so that no method's own form is favoured and all ranks are equally large.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 64
SHARE = 0.5
"""Frobenius norm of a planted change over that of the weight."""


class Task(ABC):
    """A base model of a seed, inputs, and where changes are planted.

    Class attributes:
        title: in words.
        targets: names of the modules that are changed, and adapted.
        ranks: the ranks planted.
        batch: inputs of a step.
        steps: of training.
    """

    title: ClassVar[str]
    targets: ClassVar[tuple[str, ...]]
    ranks: ClassVar[tuple[int, ...]]
    batch: ClassVar[int]
    test: ClassVar[int]
    steps: ClassVar[int]

    @abstractmethod
    def base(self, generator: torch.Generator) -> nn.Module:
        """A model with random weights."""

    @abstractmethod
    def inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Random inputs, the first axis counting them."""

    def plant(self, model: nn.Module, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The weights of the targets with a change of this rank, by parameter name."""
        changed = {}
        for name, module in model.named_modules():
            if name.rpartition(".")[2] in self.targets and isinstance(module, nn.Linear):
                weight = module.weight.detach()
                left = torch.randn(weight.shape[0], rank, generator=generator)
                right = torch.randn(rank, weight.shape[1], generator=generator)
                change = left @ right
                scale = SHARE * weight.norm() / change.norm()
                changed[f"{name}.weight"] = weight + scale * change
        return changed


class LinearMap(Task):
    """y = W0 x + D x for Gaussian x: the error is the distance of the matrices."""

    title = "a linear map, 64 to 64"
    targets = ("q_proj",)
    ranks = (1, 2, 4, 8, 16, 32, 64)
    batch = 64
    test = 512
    steps = 300

    def base(self, generator: torch.Generator) -> nn.Module:
        """One layer."""
        return _Named(q_proj=_linear(WIDTH, WIDTH, generator))

    def inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Gaussian vectors."""
        return torch.randn(count, WIDTH, generator=generator)


class SmallTransformer(Task):
    """Two layers whose query and value weights are changed; the student sees outputs alone."""

    title = "query and value weights of a transformer"
    targets = ("q_proj", "v_proj")
    ranks = (1, 4, 16, 64)
    batch = 4
    test = 64
    steps = 200

    def base(self, generator: torch.Generator) -> nn.Module:
        """A random transformer of two layers and four heads."""
        return Transformer(generator)

    def inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Random sequences of tokens."""
        return torch.randint(Transformer.vocabulary, (count, 8), generator=generator)


class _Named(nn.Module):
    """One layer under a name."""

    def __init__(self, q_proj: nn.Linear) -> None:
        super().__init__()
        self.q_proj = q_proj

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        y: Tensor = self.q_proj(x)
        return y


def _linear(wide_in: int, wide_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(wide_in, wide_out, bias=False)
    layer.weight.data.normal_(0, wide_in**-0.5, generator=generator)
    return layer


class Block(nn.Module):
    """Causal attention of four heads and a perceptron, each after a normalisation."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.q_proj = _linear(WIDTH, WIDTH, generator)
        self.k_proj = _linear(WIDTH, WIDTH, generator)
        self.v_proj = _linear(WIDTH, WIDTH, generator)
        self.o_proj = _linear(WIDTH, WIDTH, generator)
        self.up_proj = _linear(WIDTH, WIDTH, generator)
        self.down_proj = _linear(WIDTH, WIDTH, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(sequences, tokens, 64)``."""
        normal = functional.rms_norm(x, (WIDTH,))
        query, key, value = (
            projection(normal).unflatten(-1, (4, -1)).transpose(-2, -3)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = query @ key.mT * query.shape[-1] ** -0.5
        past = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        mixed = scores.masked_fill(~past, -torch.inf).softmax(-1) @ value
        x = x + self.o_proj(mixed.transpose(-2, -3).flatten(-2))
        hidden = functional.relu(self.up_proj(functional.rms_norm(x, (WIDTH,))))
        y: Tensor = x + self.down_proj(hidden)
        return y


class Transformer(nn.Module):
    """Tokens to logits."""

    vocabulary = 64

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.embedding = nn.Embedding(self.vocabulary, WIDTH)
        self.embedding.weight.data.normal_(generator=generator)
        self.layers = nn.ModuleList(Block(generator) for _ in range(2))
        self.head = _linear(WIDTH, self.vocabulary, generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(sequences, tokens)`` to ``(sequences, tokens, vocabulary)``."""
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.head(functional.rms_norm(x, (WIDTH,)))
        return y


TASKS: Sequence[Task] = (LinearMap(), SmallTransformer())
