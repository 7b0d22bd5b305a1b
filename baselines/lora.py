"""LoRA and DoRA, through `peft`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from baselines.origins import COMPARED, OURS
from baselines.peft_method import PeftMethod
from quanta_bench.method import MethodConfig, Row

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn

FIVE = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
ARITHMETIC = "QuanTA paper, Table E.4"
DORA = "DoRA paper, Table 8 (LLaMA-7B at r=32)"


def small_row(label: str) -> Row:
    """The embedded row of LoRA and DoRA, shared so that only the method differs."""
    return Row(
        label,
        config={"r": 8, "alpha": 16, "target_modules": ("q_proj", "v_proj")},
        training={"learning_rate": 3e-3},
        origin={
            "learning_rate": COMPARED,
            "r": OURS,
            "alpha": OURS,
            "target_modules": OURS,
        },
    )


class LoraSettings(MethodConfig):
    """Settings of LoRA and of DoRA.

    Attributes:
        r: rank of the update.
        alpha: the update is scaled by ``alpha / r``.
        dropout: probability of dropout on the adapter's input.
        target_modules: names of the modules to adapt, a regular expression for their full names,
            or ``"all-linear"``.
    """

    r: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] | str = Field(("q_proj", "v_proj"), min_length=1)


class Lora(PeftMethod[LoraSettings]):
    """Low-rank adaptation: y = W x + (alpha / r) B A x.

    A (r x in) starts Kaiming-uniform with a = sqrt(5), B (out x r) starts at zero.
    """

    name = "lora"
    title = "LoRA"
    Config = LoraSettings
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": small_row("LoRA r=8"),
        "paper": Row(
            "LoRA r=32",
            config={"r": 32, "alpha": 16, "target_modules": FIVE},
            training={"learning_rate": 1e-4},
            origin=dict.fromkeys(
                ("r", "alpha", "dropout", "target_modules", "learning_rate"), ARITHMETIC
            ),
        ),
    }
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3),
        "r": (4, 8, 16, 32),
    }
    source = "Hu et al. 2021, arXiv:2106.09685, Eq. 3; implementation: peft."

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterator[Mapping[str, Any]]:
        """Ranks up to the largest that the update of a target module can have."""
        return _ranks(model)

    def ranks(self, model: nn.Module) -> dict[str, dict[str, tuple[int, int]]]:
        """The update B A has at most rank r."""
        from peft.tuners.lora import LoraLayer

        bounds = {}
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                weight = cast("Tensor", module.get_base_layer().weight)
                bounds[name] = {"update": (0, min(self.config.r, *weight.shape))}
        return bounds

    def peft_config(self, seed: int) -> PeftConfig:
        """A `LoraConfig`. It has no seed: A is sampled from the global generator."""
        return _lora_config(self.config, use_dora=False)


class Dora(PeftMethod[LoraSettings]):
    """Weight-decomposed low-rank adaptation: W' = m V / |V| with V = W + (alpha / r) B A.

    The magnitude m (out) starts as the norms of W's rows; |V|, the norms of V's rows, is
    detached in the backward pass.
    """

    name = "dora"
    title = "DoRA"
    Config = LoraSettings
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": small_row("DoRA r=8"),
        "paper": Row(
            "DoRA r=32",
            config={"r": 32, "alpha": 64, "dropout": 0.05, "target_modules": FIVE},
            training={"learning_rate": 1e-4},
            origin=dict.fromkeys(
                ("r", "alpha", "dropout", "target_modules", "learning_rate"), DORA
            ),
        ),
    }
    search = Lora.search
    source = "Liu et al. 2024, arXiv:2402.09353, Eq. 5 and 11; implementation: peft."

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterator[Mapping[str, Any]]:
        """Ranks up to the largest that V - W can have at a target module."""
        return _ranks(model)

    def peft_config(self, seed: int) -> PeftConfig:
        """A `LoraConfig` with ``use_dora``."""
        return _lora_config(self.config, use_dora=True)


def _ranks(model: nn.Module) -> Iterator[Mapping[str, Any]]:
    """Settings of increasing rank: each one up to 16, then eight per doubling."""
    from torch import nn

    targets = LoraSettings().target_modules
    most = max(
        (
            min(module.in_features, module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name.rpartition(".")[2] in targets
        ),
        default=1,
    )
    rank = 1
    while rank <= most:
        yield {"r": rank}
        rank += max(1, 2 ** (rank.bit_length() - 4))


def _lora_config(settings: LoraSettings, *, use_dora: bool) -> PeftConfig:
    from peft import LoraConfig

    targets = settings.target_modules
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_dora=use_dora,
    )
