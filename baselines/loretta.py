"""LoRETTA: adapters whose matrices are tensor trains (Yang et al. 2024, arXiv:2402.11417)."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from baselines.adapters import LLAMA_MLP, NOT_LINEAR, check_before
from baselines.bottleneck import Bottleneck, SeriesConfig, Start
from baselines.origins import BOUNDED, COMPARED, OURS
from baselines.tensor_train import TensorTrain, choose_modes, paired_modes
from baselines.tuners import AdapterConfig, AdapterModule, AdapterTuner, Position, register
from baselines.tuners.method import TunerMethod
from baselines.tuners.settings import Count, Positive, TunerSettings, settings_class
from quanta_bench.method import YES, Claim, Row

if TYPE_CHECKING:
    from torch import nn

TABLE = "QuanTA paper, Table F.5"
READING = "our reading of the counts in the QuanTA paper's Table F.5"
PUBLIC = "default of LoRETTA's public code"
OURS_ZERO = f"{OURS}: the published start is not the base model"
RANKS = tuple(sorted({m * 2**n for m in (1, 3) for n in range(8)}))  # 1, 2, 3, 4, 6, .. 384


class LorettaType(enum.StrEnum):
    """The `peft` types of LoRETTA's two forms."""

    LORETTA_REP = "LORETTA_REP"
    LORETTA_ADP = "LORETTA_ADP"


# Tuners.


@dataclass
class TrainConfig(AdapterConfig):
    """Fields shared by both forms; see `AdapterConfig` for the other fields.

    Args:
        rank: The rank rho of every tensor train, between all of its cores.
        bottleneck: Width b between the two matrices.
        modes: For a layer width d, the ordered modes of its tensor trains. Their product is d b;
            the d x b and the b x d matrix both use them. `choose_modes` chooses the modes of other
            widths.
        start: ``"normal"``: normally distributed cores, such that the entries of each matrix have
            the standard deviation sqrt(1 / (in + out)), as published. ``"zero"``: the same, except
            that the last core and the bias of the second matrix, and so the initial update, are
            zero.

    Raises:
        ValueError: A value that is out of range; the message names the field and the value.
    """

    rank: Count = field(default=8)
    bottleneck: Count = field(default=64)
    modes: dict[int, list[Count]] | None = field(default=None)
    start: Start = field(default="normal")

    def __post_init__(self) -> None:
        super().__post_init__()
        for width, sizes in (self.modes or {}).items():
            if math.prod(sizes) != width * self.bottleneck:
                self.refuse(
                    "modes",
                    f"has sizes for width {width} whose product is not {width} * bottleneck = "
                    f"{width * self.bottleneck}",
                )

    def trains(
        self, in_features: int, out_features: int, name: str, *, bias: bool
    ) -> tuple[TensorTrain, TensorTrain]:
        """The tensor trains of a module's matrices (in x b) and (b x out).

        Raises:
            ValueError: the modes of a width do not fit; the message names the module.
        """
        down = self._train(in_features, self.bottleneck, in_features, name, bias)
        return down, self._train(self.bottleneck, out_features, out_features, name, bias)

    def _train(self, rows: int, columns: int, width: int, name: str, bias: bool) -> TensorTrain:
        modes = (self.modes or {}).get(width) or choose_modes(rows, columns)
        try:
            in_modes, out_modes = paired_modes(rows, columns, modes)
        except ValueError as error:
            raise ValueError(f"module {name!r}: {error}") from error
        return TensorTrain(out_modes, in_modes, self.rank, bias=bias)

    def reset(self, down: TensorTrain, up: TensorTrain, generator: torch.Generator) -> None:
        """Initialise both trains."""
        for train, zero in ((down, False), (up, self.start == "zero")):
            train.reset(generator, 1 / math.sqrt(train.in_features + train.out_features), zero=zero)


@dataclass
class LorettaRepConfig(TrainConfig):
    """Configuration of LoRETTA's reparameterisation as a `peft` method.

    Args:
        alpha: The update is scaled by ``alpha / bottleneck``.
    """

    alpha: Positive = field(default=16.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = LorettaType.LORETTA_REP


@dataclass
class LorettaAdpConfig(SeriesConfig, TrainConfig):
    """Configuration of LoRETTA's adapters as a `peft` method.

    Combines the fields of series adapters and of tensor trains. By default the output of each
    target is adapted.
    """

    before: list[str] = field(default_factory=list)
    start: Start = field(default="normal")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = LorettaType.LORETTA_ADP


class TrainProduct(AdapterModule):
    """x to (alpha / b) B A x, with tensor trains A (b x in) and B (out x b)."""

    def __init__(
        self, config: LorettaRepConfig, in_features: int, out_features: int, name: str
    ) -> None:
        super().__init__()
        self.config = config
        self.in_features = in_features
        self.scale = config.alpha / config.bottleneck
        self.a, self.b = config.trains(in_features, out_features, name, bias=False)

    def reset(self, generator: torch.Generator) -> None:
        """Initialise both trains; see `TrainConfig.start`."""
        self.config.reset(self.a, self.b, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        y: Tensor = self.b(self.a(x))
        return self.scale * y

    def matrix(self) -> Tensor:
        """The update, shape (out, in)."""
        return self.scale * self.b.matrix() @ self.a.matrix()

    def rank_bound(self) -> int:
        """The smaller of the two trains' bounds."""
        return min(self.a.rank_bound(), self.b.rank_bound())


class TrainBottleneck(Bottleneck):
    """A bottleneck whose projections are tensor trains with biases."""

    down: TensorTrain
    up: TensorTrain

    def __init__(
        self,
        config: LorettaAdpConfig,
        in_features: int,
        out_features: int,
        position: Position,
        name: str,
    ) -> None:
        down, up = config.trains(in_features, out_features, name, bias=True)
        super().__init__(in_features, down, up, config, position)
        self.config = config

    def reset(self, generator: torch.Generator) -> None:
        """Initialise both trains; see `TrainConfig.start`.

        Biases are uniform within 1 / sqrt(out); that of the second is zero for ``start="zero"``.
        """
        self.config.reset(self.down, self.up, generator)


class LorettaRepModel(AdapterTuner):
    """A model with tensor-train updates; made by `get_peft_model` from a `LorettaRepConfig`."""

    prefix: str = "loretta_rep_"

    @staticmethod
    def make_adapter(config: Any, in_features: int, out_features: int, name: str) -> AdapterModule:
        """The update of a layer of these widths."""
        return TrainProduct(config, in_features, out_features, name)


class LorettaAdpModel(AdapterTuner):
    """A model with tensor-train adapters; made by `get_peft_model` from a `LorettaAdpConfig`."""

    prefix: str = "loretta_adp_"

    @staticmethod
    def make_adapter(config: Any, in_features: int, out_features: int, name: str) -> AdapterModule:
        """The adapter of a layer of these widths."""
        in_width, out_width = config.widths(name, in_features, out_features)
        return TrainBottleneck(config, in_width, out_width, config.position(name), name)


register(LorettaType.LORETTA_REP, LorettaRepConfig, LorettaRepModel)
register(LorettaType.LORETTA_ADP, LorettaAdpConfig, LorettaAdpModel)


# Methods.


class LorettaMethod(TunerMethod):
    """Base class of both forms."""

    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": (5e-4, 1e-3, 2e-3, 5e-3, 1e-2),
        "rank": (4, 8, 16, 32),
    }
    source = "Yang et al. 2024, arXiv:2402.11417."

    def __init__(self, config: TunerSettings) -> None:
        super().__init__(config)
        zero = config.start == "zero"
        self.exact_start = (
            YES if zero else Claim(False, "all cores of both trains are initialised randomly")
        )

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterator[Mapping[str, Any]]:
        """Ranks from 1 to 384 that are 2**n or 3 * 2**n."""
        return ({"rank": rank} for rank in RANKS)


class LorettaRep(LorettaMethod):
    """LoRETTA by reparameterisation: y = W x + (alpha / b) B A x.

    A (in x b) and B (b x out), applied from the right, are each a tensor train of their row-major
    entries. As published, neither A nor B starts at zero.
    """

    name = "loretta_rep"
    title = "LoRETTA"
    Config = settings_class(LorettaRepConfig)
    tuner_config = LorettaRepConfig
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "LoRETTA rank 8",
            config={"rank": 8, "start": "zero"},
            training={"learning_rate": 1e-2},
            origin={
                "learning_rate": COMPARED,
                **dict.fromkeys(("rank", "bottleneck", "alpha"), OURS),
                "start": OURS_ZERO,
            },
        ),
        "paper": Row(
            "LoRETTA r=8",
            config={
                "rank": 8,
                "target_modules": ("q_proj", "v_proj"),
                "modules_to_save": ("input_layernorm", "post_attention_layernorm", "norm"),
            },
            training={"learning_rate": 1e-4},
            origin={
                "rank": TABLE,
                **dict.fromkeys(("bottleneck", "target_modules", "modules_to_save"), READING),
                **dict.fromkeys(("alpha", "start"), PUBLIC),
                "learning_rate": OURS,
            },
        ),
    }
    footnote = (
        "In the paper's counts the subscript r is taken to be the rank of the trains, with a "
        "bottleneck of 64 and all norms trained; modes of widths other than 4096 are ours."
    )


class LorettaAdp(LorettaMethod):
    """LoRETTA by adapters: h + U act(D h) replaces a layer's output h.

    The matrices of D and U are tensor trains as in the other form. Both have biases, initialised
    uniformly within 1 / sqrt(width); U's is zero for ``start="zero"``.
    """

    name = "loretta_adp"
    title = "LoRETTA, adapters"
    Config = settings_class(LorettaAdpConfig, LLAMA_MLP)
    tuner_config = LorettaAdpConfig
    mergeable = NOT_LINEAR
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "LoRETTA adapters rank 6",
            config={"rank": 6, "start": "zero"},
            training={"learning_rate": 3e-3},
            origin={
                "learning_rate": BOUNDED,
                **dict.fromkeys(("rank", "bottleneck"), OURS),
                "start": OURS_ZERO,
            },
        ),
    }
    footnote = (
        "Adapters follow the gate, up and down projections, as the paper says; its public code "
        "adapts the input of the first two. Modes of widths other than 4096 are ours."
    )

    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        """Put an adapter before or after each target; see `PeftMethod.adapt`."""
        check_before(model, self.config.before)
        return super().adapt(model, seed)
