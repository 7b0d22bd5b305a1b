"""The tuners that the conformity tests run, and what does not apply to which."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from baselines.adapters import ParallelConfig, SeriesConfig
from baselines.krona import KronaConfig
from baselines.loretta import LorettaAdpConfig, LorettaRepConfig
from baselines.mora import MoraConfig
from baselines.qtha import QthaConfig
from baselines.quanta import QuantaConfig

IDS = torch.tensor([[5, 9, 2, 7, 11, 3], [8, 1, 6, 4, 10, 12]])
TARGETS = ["q_proj", "v_proj"]


@dataclass(frozen=True)
class Tuner:
    """A tuner with settings for tiny layers, whose adapters start at zero.

    Attributes:
        not_mergeable: why it cannot be merged; empty if it can.
    """

    config: Callable[..., PeftConfig]
    settings: dict[str, Any] = field(default_factory=dict)
    not_mergeable: str = ""

    def __call__(self, **settings: Any) -> PeftConfig:
        return self.config(**{"target_modules": TARGETS, **self.settings, **settings})


# The one list of exclusions. Weighted combination of adapters and hot-swapping are LoRA's alone in
# `peft`, which refuses them for every other tuner; `bias` and mixed batches of adapters likewise.
NOT_LINEAR = "a nonlinear function stands inside the adapter, so it is not a matrix"

TUNERS = {
    "lora": Tuner(LoraConfig, {"r": 2}),  # the control: what fails for it is not a tuner's fault
    "quanta": Tuner(QuantaConfig, {"dims": {"q_proj": (4, 4), ".*": None}}),
    "krona": Tuner(KronaConfig, {"side": 4}),
    "mora": Tuner(MoraConfig, {"r": 2}),
    "loretta_rep": Tuner(LorettaRepConfig, {"bottleneck": 4, "rank": 2, "start": "zero"}),
    "loretta_adp": Tuner(
        LorettaAdpConfig, {"bottleneck": 4, "rank": 2, "start": "zero"}, NOT_LINEAR
    ),
    "series": Tuner(SeriesConfig, {"bottleneck": 4, "before": ["q_proj"]}, NOT_LINEAR),
    "parallel": Tuner(ParallelConfig, {"bottleneck": 4}, NOT_LINEAR),
    "qtha": Tuner(QthaConfig, {"qubits": 2, "rank": 2}, NOT_LINEAR),
}
MERGEABLE = {name: tuner for name, tuner in TUNERS.items() if not tuner.not_mergeable}

every_tuner = pytest.mark.parametrize("tuner", TUNERS.values(), ids=TUNERS.keys())
every_mergeable_tuner = pytest.mark.parametrize("tuner", MERGEABLE.values(), ids=MERGEABLE.keys())


def llama(dtype: torch.dtype = torch.float32, *, tied: bool = False) -> LlamaForCausalLM:
    """Two layers of width 16; keys and values have width 8. Always the same weights."""
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=29,
        max_position_embeddings=16,
        initializer_range=0.2,
        tie_word_embeddings=tied,
    )
    return _seeded(lambda: LlamaForCausalLM(config)).to(dtype).eval()


def gpt2() -> GPT2LMHeadModel:
    """One layer of `Conv1D`, transposed weights with a bias; tied."""
    config = GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=29, n_positions=16, initializer_range=0.2
    )
    return _seeded(lambda: GPT2LMHeadModel(config)).eval()


def _seeded(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS).logits


@torch.no_grad()
def perturb(parameters: Iterable[nn.Parameter], seed: int = 1, scale: float = 0.2) -> None:
    """Move parameters away from their initial values, the same way each time."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=generator) * scale
        parameter.add_(noise.to(parameter))


def adapted(
    tuner: Tuner,
    base: nn.Module | None = None,
    adapter_name: str = "default",
    seed: int = 1,
    **settings: Any,
) -> PeftModel:
    """A model with one adapter away from its start."""
    base = llama() if base is None else base
    # LoRA's start depends on the global random state.
    model = _seeded(lambda: get_peft_model(base, tuner(**settings), adapter_name=adapter_name))
    perturb([p for p in model.parameters() if p.requires_grad], seed)
    return model.eval()


def add_perturbed(model: PeftModel, tuner: Tuner, name: str, seed: int, **settings: Any) -> None:
    """Add another adapter away from its start; the first stays active."""
    before = model.active_adapter
    model.add_adapter(name, tuner(**settings))
    model.set_adapter(name)
    perturb([p for p in model.parameters() if p.requires_grad], seed)
    model.set_adapter(before)
