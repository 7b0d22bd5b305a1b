"""KronA: the update of a weight is a Kronecker product of two small matrices."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.origins import COMPARED, OURS
from baselines.tuners import AdapterConfig, AdapterModule, AdapterTuner, register
from baselines.tuners.initial import kaiming_
from baselines.tuners.method import TunerMethod
from baselines.tuners.settings import Count, Positive, settings_class
from quanta_bench.method import Row

TARGETS = ("q_proj", "v_proj")
PAPER = "QuanTA paper, Tables F.5 and F.6"


class KronaType(enum.StrEnum):
    """The `peft` type of a KronA adapter; saved as ``"KRONA"``."""

    KRONA = "KRONA"


@dataclass
class KronaConfig(AdapterConfig):
    """Configuration of KronA (arXiv:2212.10650) as a `peft` method; see also `AdapterConfig`.

    Args:
        side: Number of rows and columns of A; it must divide both widths of every adapted layer.
            The default divides the widths of nearly all models.
        scale: Factor of the update, a positive number.

    Raises:
        ValueError: A value is out of range; the message names the field, the value and the reason.
    """

    side: Count = field(default=16)
    scale: Positive = field(default=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = KronaType.KRONA


class KronaAdapter(AdapterModule):
    """scale (A kron B), with A (side, side) and B (out / side, in / side)."""

    def __init__(self, config: KronaConfig, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.scale = config.scale
        side = config.side
        self.a = nn.Parameter(torch.empty(side, side))
        self.b = nn.Parameter(torch.empty(out_features // side, in_features // side))

    def reset(self, generator: torch.Generator) -> None:
        """Initialise A Kaiming-uniformly and B with zeros."""
        kaiming_(self.a, self.a.shape[1], generator)
        nn.init.zeros_(self.b)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)`` as A X B^T, with X the input as (side, in / side)."""
        grid = x.reshape(*x.shape[:-1], self.a.shape[1], self.b.shape[1])
        return (self.a @ (grid @ (self.scale * self.b).mT)).flatten(-2)

    def matrix(self) -> Tensor:
        """scale (A kron B), of shape (out, in)."""
        return self.scale * torch.kron(self.a, self.b)

    def rank_bound(self) -> int:
        """rank(A kron B) = rank(A) rank(B)."""
        return min(self.a.shape) * min(self.b.shape)


class KronaModel(AdapterTuner):
    """The `peft` tuner."""

    prefix = "krona_"

    @staticmethod
    def make_adapter(
        config: KronaConfig, in_features: int, out_features: int, name: str
    ) -> AdapterModule:
        """The adapter of a layer of these widths.

        Raises:
            ValueError: ``side`` does not divide both widths.
        """
        common = math.gcd(in_features, out_features)
        if common % config.side:
            raise ValueError(
                f"KronaConfig: side={config.side} does not divide both widths of module {name!r}, "
                f"{in_features} in and {out_features} out; the numbers that do are "
                f"{', '.join(map(str, _divisors(common)))}"
            )
        return KronaAdapter(config, in_features, out_features)


register(KronaType.KRONA, KronaConfig, KronaModel)


class Krona(TunerMethod):
    """KronA: y = W x + s (A kron B) x.

    A (side x side) starts Kaiming-uniform with a = sqrt(5), B (out/side x in/side) at zero.
    """

    name = "krona"
    title = "KronA"
    tuner_config = KronaConfig
    Config = settings_class(KronaConfig)
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "KronA 64",
            config={"side": 64, "target_modules": TARGETS},
            training={"learning_rate": 1e-2},
            origin={"side": OURS, "target_modules": OURS, "learning_rate": COMPARED},
        ),
        "paper": Row(
            "KronA 256-16",
            config={"side": 256, "target_modules": TARGETS},
            training={"learning_rate": 5e-4},
            origin={
                "side": PAPER,
                "target_modules": "the parameter counts of " + PAPER,
                "learning_rate": OURS,
            },
        ),
    }
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": (1e-2, 3e-2, 1e-1, 3e-1),
    }
    source = "Edalati et al. 2022, arXiv:2212.10650."
    footnote = "A is square for rectangular weights too, and B starts at zero: our reading."

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterator[Mapping[str, Any]]:
        """Every side of A that divides the widths of the model's query and value projections."""
        layers = [
            module.weight.shape
            for name, module in model.named_modules()
            if name.rpartition(".")[2] in TARGETS and isinstance(module, nn.Linear)
        ]
        for side in _divisors(math.gcd(*(width for shape in layers for width in shape))):
            yield {"side": side}


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
