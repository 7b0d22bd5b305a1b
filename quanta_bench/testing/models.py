"""A language model of a few thousand random weights, the same one in every test."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_llama(
    *,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> LlamaForCausalLM:
    """A LLaMA with grouped-query attention: q is 64 to 64, v is 64 to 32.

    Args:
        seed: of its weights; the global generator stays as it is.
        device: such as ``meta``.
        dtype: of its weights.
        config: values of its ``LlamaConfig`` that differ from these.
    """
    values = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 97,
        "max_position_embeddings": 64,
        **config,
    }
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**values))
    nn.Module.to(model, dtype=dtype)
    nn.Module.eval(model)
    return model
