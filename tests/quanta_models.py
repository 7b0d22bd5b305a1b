"""A tiny LLaMA with grouped queries and a tiny GPT-2 with Conv1D, with and without QuanTA."""

from __future__ import annotations

import torch
from peft import PeftModel, get_peft_model
from tiny_models import tiny_gpt2, tiny_llama
from torch import Tensor, nn

from baselines.quanta import QuantaConfig, QuantaLinear

TOKENS = torch.arange(24).reshape(2, 12) * 7 % 50
KINDS = ["llama", "gpt2"]
TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"]}
DIMS = {"llama": {"down_proj": (4, 4, 4, 2), ".*": (4, 4, 4)}, "gpt2": None}


def base_model(kind: str = "llama", dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    if kind == "gpt2":
        model = tiny_gpt2(seed=1, n_embd=48, n_inner=96, n_positions=32, vocab_size=50)
    else:
        model = tiny_llama(seed=1, intermediate_size=128, vocab_size=50, attention_bias=True)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero by default, which would hide a lost bias
            nn.init.normal_(parameter, std=0.1)
    return model.to(dtype).eval()


def config_for(kind: str = "llama", **fields) -> QuantaConfig:
    return QuantaConfig(**{"dims": DIMS[kind], "target_modules": TARGETS[kind], **fields})


def adapted(kind: str = "llama", dtype: torch.dtype = torch.float32, **fields) -> PeftModel:
    return get_peft_model(base_model(kind, dtype), config_for(kind, **fields)).eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def train(model: nn.Module, steps: int = 3) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    for _ in range(steps):
        model(TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def layers(model: nn.Module) -> list[QuantaLinear]:
    return [module for module in model.modules() if isinstance(module, QuantaLinear)]


def base_weights(model: nn.Module) -> list[Tensor]:
    return [layer.get_base_layer().weight.detach().clone() for layer in layers(model)]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(map(torch.equal, first, second)) and len(first) == len(second)
