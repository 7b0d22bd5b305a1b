"""Bottleneck adapters as tuners of `peft`: s U act(D h), in series with or parallel to a layer."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.tuners import AdapterConfig, AdapterModule, AdapterTuner, Position, register
from baselines.tuners.initial import kaiming_, normal_
from baselines.tuners.settings import Count, Positive

Activation: TypeAlias = Literal["tanh", "relu", "gelu", "silu"]
Start: TypeAlias = Literal["zero", "normal"]

STD = 0.02  # of the normal start
LLAMA_BEFORE = ("gate_proj", "up_proj")

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


class AdapterType(enum.StrEnum):
    """The `peft` types of bottleneck adapters."""

    SERIES_ADAPTER = "SERIES_ADAPTER"
    PARALLEL_ADAPTER = "PARALLEL_ADAPTER"


@dataclass
class BottleneckConfig(AdapterConfig, ABC):
    """Fields shared by all bottleneck adapters; see `AdapterConfig` for the other fields.

    Args:
        bottleneck: Width b between the projections D (b x in) and U (out x b).
        activation: The function between them.
        scale: The factor s.
        start: ``"zero"``: D Kaiming-uniform with a = sqrt(5), U zero, so that it adds zero.
            ``"normal"``: both normal with standard deviation 0.02.

    Raises:
        ValueError: A value that is out of range; the message names the field and the value.
    """

    bottleneck: Count = field(default=64)
    activation: Activation = field(default="tanh")
    scale: Positive = field(default=1.0)
    start: Start = field(default="zero")

    @abstractmethod
    def position(self, name: str) -> Position:
        """Where the adapter of a module acts."""

    def widths(self, name: str, in_features: int, out_features: int) -> tuple[int, int]:
        """Input and output width of a module's adapter, from those of the module."""
        return {
            "input": (in_features, in_features),
            "parallel": (in_features, out_features),
            "output": (out_features, out_features),
        }[self.position(name)]


@dataclass
class SeriesConfig(BottleneckConfig):
    """Configuration of series adapters: each on the input or on the output of its layer.

    Args:
        before: Names of the modules whose input is adapted, each a module's full name or its last
            components; all other targets have their output adapted.
    """

    before: list[str] = field(default_factory=lambda: list(LLAMA_BEFORE))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = AdapterType.SERIES_ADAPTER

    def position(self, name: str) -> Position:
        """On the input of the modules that `before` names, on the output of all others."""
        return "input" if f".{name}".endswith(tuple(f".{end}" for end in self.before)) else "output"


@dataclass
class ParallelConfig(BottleneckConfig):
    """Configuration of parallel adapters: from a layer's input to its output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = AdapterType.PARALLEL_ADAPTER

    def position(self, name: str) -> Position:
        """In parallel to every module."""
        return "parallel"


class Bottleneck(AdapterModule):
    """x to s U act(D x), for any two projections D and U.

    Args:
        in_features: width that D takes.
        down: the projection D.
        up: the projection U.
        config: provides the activation and s.
        position: where the adapter acts.
    """

    not_linear: ClassVar[str] = (
        "a bottleneck adapter is not linear, so it cannot be merged into the weight as a matrix"
    )

    def __init__(
        self,
        in_features: int,
        down: nn.Module,
        up: nn.Module,
        config: BottleneckConfig,
        position: Position,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.down, self.up = down, up
        self.activation = ACTIVATIONS[config.activation]
        self.scale = config.scale
        self.position = position

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        y: Tensor = self.up(self.activation(self.down(x)))
        return self.scale * y


class Dense(nn.Module):
    """A projection by a dense matrix, created uninitialised.

    Attributes:
        weight: shape (out, in).
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        return functional.linear(x, self.weight)


class DenseBottleneck(Bottleneck):
    """A bottleneck whose projections are dense matrices without biases."""

    down: Dense
    up: Dense

    def __init__(
        self, in_features: int, out_features: int, config: BottleneckConfig, position: Position
    ) -> None:
        down, up = Dense(in_features, config.bottleneck), Dense(config.bottleneck, out_features)
        super().__init__(in_features, down, up, config, position)
        self.start = config.start

    def reset(self, generator: torch.Generator) -> None:
        """Fill both projections; see `BottleneckConfig.start`."""
        if self.start == "normal":
            normal_(self.down.weight, STD, generator)
            normal_(self.up.weight, STD, generator)
        else:
            kaiming_(self.down.weight, self.in_features, generator)
            nn.init.zeros_(self.up.weight)


class SeriesModel(AdapterTuner):
    """A model with series adapters; made by `peft.get_peft_model` from a `SeriesConfig`."""

    prefix: str = "series_adapter_"

    @staticmethod
    def make_adapter(config: Any, in_features: int, out_features: int, name: str) -> AdapterModule:
        """The adapter of a layer of these widths."""
        in_width, out_width = config.widths(name, in_features, out_features)
        return DenseBottleneck(in_width, out_width, config, config.position(name))


class ParallelModel(SeriesModel):
    """A model with parallel adapters; made by `peft.get_peft_model` from a `ParallelConfig`."""

    prefix: str = "parallel_adapter_"


register(AdapterType.SERIES_ADAPTER, SeriesConfig, SeriesModel)
register(AdapterType.PARALLEL_ADAPTER, ParallelConfig, ParallelModel)
