"""MoRA: one square trained matrix between a fixed compression and a fixed decompression."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.origins import COMPARED, OURS
from baselines.tuners import AdapterConfig, AdapterModule, AdapterTuner, register
from baselines.tuners.method import TunerMethod
from baselines.tuners.settings import Count, settings_class
from quanta_bench.method import Row

TARGETS = ("q_proj", "v_proj")
PAPER = "QuanTA paper, Table F.5"
PUBLIC = "the MoRA authors' public code"


class MoraType(enum.StrEnum):
    """The `peft` type of a MoRA adapter; saved as ``"MORA"``."""

    MORA = "MORA"


@dataclass
class MoraConfig(AdapterConfig):
    """Configuration of MoRA (arXiv:2405.12130) as a `peft` method; see also `AdapterConfig`.

    Args:
        r: Rank of the LoRA adapter that has about as many parameters.
        mora_type: ``1`` (sharing, Eq. 6) or ``6`` (rotation, Eq. 9). Its authors use 6 for small
            ranks such as 8 and 1 for large ones such as 128.

    Raises:
        ValueError: A value is out of range; the message names the field, the value and the reason.
    """

    r: Count = field(default=8)
    mora_type: Literal[1, 6] = field(default=6)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = MoraType.MORA


def side_of_square(r: int, in_features: int, out_features: int, mora_type: int) -> int:
    """Side of M: sqrt((in + out) r), rounded; for type 6, rounded down to an even number.

    At least 1, and at least 2 for type 6.
    """
    side = int(math.sqrt((in_features + out_features) * r) + 0.5)
    return max(side // 2 * 2, 2) if mora_type == 6 else side


class MoraAdapter(AdapterModule):
    """Decompress(M compress(x)), with M (side, side) the only parameter.

    The input is cyclically repeated to a multiple of ``side`` and split into chunks of that length.
    Type 1 sums them, applies M, and repeats the result to the output width. Type 6 rotates chunk j,
    as a rotary embedding rotates position j, applies M to each, concatenates the results, and
    truncates or repeats these to the output width: ``cos`` and ``sin`` (chunks, side / 2) are those
    of the angles j 10000^(-2k / side). If the output is narrower than the input, type 6 uses only
    as many chunks as the output needs.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: MoraConfig, in_features: int, out_features: int) -> None:
        super().__init__()
        self.side = side = side_of_square(config.r, in_features, out_features, config.mora_type)
        self.in_features = in_features
        self.out_features = out_features
        self.rotates = config.mora_type == 6
        self.chunks = math.ceil(in_features / side)
        if self.rotates:
            self.chunks = min(self.chunks, math.ceil(out_features / side))
        self.square = nn.Parameter(torch.empty(side, side))
        self._set_angles()

    def reset(self, generator: torch.Generator) -> None:
        """Set M to zero; the generator is unused."""
        nn.init.zeros_(self.square)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        padded = _repeated(x, self.chunks * self.side)
        chunks = padded.reshape(*x.shape[:-1], self.chunks, self.side)
        if self.rotates:
            mixed = functional.linear(self._rotated(chunks), self.square).flatten(-2)
        else:
            mixed = functional.linear(chunks.sum(-2), self.square)
        return _repeated(mixed, self.out_features)

    def rank_bound(self) -> int:
        """The side of M for type 1; for type 6 the weight's full rank, reached by almost any M.

        Type 6 puts a rotated M on one diagonal block per chunk.
        """
        widths = min(self.in_features, self.out_features)
        return widths if self.rotates else min(widths, self.side)

    def _rotated(self, chunks: Tensor) -> Tensor:
        """Rotate each pair (k, k + side / 2) of chunk j by the angle of (j, k)."""
        first, second = chunks.chunk(2, -1)
        return torch.cat(
            (first * self.cos - second * self.sin, second * self.cos + first * self.sin), -1
        )

    def _set_angles(self) -> None:
        """Compute ``cos`` and ``sin`` in float64, then round once to the dtype of M."""
        if not self.rotates:
            return
        # On the CPU, because not every accelerator supports float64; meta has nothing to compute.
        device = torch.device("meta" if self.square.is_meta else "cpu")
        position = torch.arange(self.chunks, dtype=torch.float64, device=device)
        pair = torch.arange(self.side // 2, dtype=torch.float64, device=device)
        angles = torch.outer(position, 10000 ** (-2 * pair / self.side))
        for name, table in (("cos", angles.cos()), ("sin", angles.sin())):
            self.register_buffer(name, table.to(self.square), persistent=False)

    # The angles are not saved. They are recomputed whenever M changes device or dtype, or gets its
    # first values: a module created on the meta device has none yet.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MoraAdapter:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._set_angles()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._set_angles()


def _repeated(x: Tensor, length: int) -> Tensor:
    """Cyclically repeat, or truncate, the last axis to a length."""
    times, remainder = divmod(length, x.shape[-1])
    if times == 0 or (times, remainder) == (1, 0):
        return x[..., :length]
    return torch.cat((*(x,) * times, x[..., :remainder]), -1)


class MoraModel(AdapterTuner):
    """The `peft` tuner."""

    prefix = "mora_"

    @staticmethod
    def make_adapter(
        config: MoraConfig, in_features: int, out_features: int, name: str
    ) -> AdapterModule:
        """The adapter of a layer of these widths; all widths are supported."""
        return MoraAdapter(config, in_features, out_features)


register(MoraType.MORA, MoraConfig, MoraModel)


class Mora(TunerMethod):
    """MoRA: y = W x + decompress(M compress(x)), with M square and zero at the start.

    M has about as many parameters as LoRA's two matrices of rank r.
    """

    name = "mora"
    title = "MoRA"
    tuner_config = MoraConfig
    Config = settings_class(MoraConfig)
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "MoRA r=8",
            config={"r": 8, "target_modules": TARGETS},
            training={"learning_rate": 3e-3},
            origin={"r": OURS, "target_modules": OURS, "learning_rate": COMPARED},
        ),
        "paper": Row(
            "MoRA r=8",
            config={"r": 8, "mora_type": 6, "target_modules": TARGETS},
            training={"learning_rate": 3e-4},
            origin={
                "r": PAPER,
                "mora_type": PUBLIC,
                "target_modules": "the parameter counts of " + PAPER,
                "learning_rate": PUBLIC,
            },
        ),
    }
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": (3e-4, 1e-3, 3e-3, 1e-2),
        "r": (4, 8, 16, 32),
    }
    source = f"Jiang et al. 2024, arXiv:2405.12130, Eq. 6 and 9; the padding is that of {PUBLIC}."

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterator[Mapping[str, Any]]:
        """Ranks from 1 to 128; M has about (in + out) r entries."""
        for r in range(1, 129):
            yield {"r": r}
