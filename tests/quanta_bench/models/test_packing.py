"""Candidates share a row only on models where that changes no number."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, MistralConfig

from quanta_bench.models.attention import use_kept_probabilities
from quanta_bench.models.capabilities import can_pack

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def model(config, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config, **options).eval()
        for parameter in made.parameters():
            # At its usual start a model hardly looks at its context.
            parameter.data.normal_(0, 0.2)
    return made


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL),
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2),
    ],
    ids=["llama", "gpt2"],
)
def test_plain_attention_packs(config):
    made = model(config)
    assert can_pack(made)
    use_kept_probabilities(made)
    assert can_pack(made)


@pytest.mark.parametrize(
    "config",
    [MistralConfig(**SMALL, sliding_window=4096), Gemma2Config(**SMALL)],
    ids=["mistral", "gemma2"],
)
def test_sliding_windows_do_not(config):
    assert not can_pack(model(config))


def test_an_attention_that_takes_no_such_mask_does_not():
    assert not can_pack(model(LlamaConfig(**SMALL), attn_implementation="eager"))


def test_a_model_that_the_configuration_does_not_give_away_is_found_out(monkeypatch):
    """A layer that mixes neighbours, as a convolution does, sees across candidates."""
    made = model(LlamaConfig(**SMALL))
    assert can_pack(made)
    layer = made.model.layers[0].mlp
    plain = layer.forward
    monkeypatch.setattr(layer, "forward", lambda x: plain(x + x.roll(1, dims=1)))
    assert not can_pack(made)
    assert not made.training
