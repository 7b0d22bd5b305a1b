"""The output layer is left out only where it alone makes the logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
)

from quanta_bench.data.batches import collate
from quanta_bench.data.encoding import Encoded
from quanta_bench.evaluation import likelihood
from quanta_bench.models import chunked_log_softmax
from quanta_bench.models.output_layer import hidden_at
from quanta_bench.task import Example
from quanta_bench.training.trainer import recompute_activations

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
GPT2 = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
BATCH = collate(
    [
        Encoded(Example(name, name, {}), 0, (context,) * 2, ((8, 9, 10), (11,)), (1, 1), 0, 0)
        for name, context in (("a", (5, 6, 7)), ("b", (12, 13)))
    ],
    0,
    packed=False,
)


def model(config, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).to(dtype)


def expected(made, batch=BATCH):
    logits = made(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    at = logits.flatten(0, 1)[batch.where]
    wide = torch.promote_types(at.dtype, torch.float32)
    return -nn.functional.cross_entropy(at.to(wide), batch.targets, reduction="none")


def left_out(made):
    inputs = {"input_ids": BATCH.input_ids, "attention_mask": BATCH.attention_mask}
    return hidden_at(made, inputs, BATCH.where) is not None


def gradients(made, said):
    made.zero_grad()
    said.pow(2).sum().backward()
    return [value.grad for value in made.parameters()]


@pytest.mark.parametrize("held", [1, 4 << 20], ids=["in parts", "few logits"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("config", [LlamaConfig(**SMALL), GPT2], ids=["llama", "gpt2"])
def test_likelihoods_and_all_gradients_are_those_of_the_models_own_logits(
    config, tied, held, monkeypatch
):
    monkeypatch.setattr(chunked_log_softmax, "MIN_CHUNK", 7)
    monkeypatch.setattr(chunked_log_softmax, "LOGIT_BYTES", {"cpu": held})
    config.tie_word_embeddings = tied
    made = model(config).eval()
    assert left_out(made)
    found = [likelihood.token_log_likelihoods(made, BATCH), expected(made)]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    for one, other in zip(*(gradients(made, said) for said in found), strict=True):
        # The norms of transformers' LLaMA compute in float32 whatever the model's dtype.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**SMALL),  # caps
        CohereConfig(**SMALL, logit_scale=0.25),
        GraniteConfig(**SMALL, logits_scaling=4.0),
    ],
    ids=["gemma2", "cohere", "granite"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_changes_its_logits_keeps_them(config, dtype):
    made = model(config, dtype)
    torch.testing.assert_close(likelihood.token_log_likelihoods(made, BATCH), expected(made))
    assert not left_out(made)
    torch.testing.assert_close(likelihood.token_log_likelihoods(made, BATCH), expected(made))


def test_the_probe_costs_no_random_numbers():
    torch.manual_seed(3)
    with torch.random.fork_rng():
        made = model(GraniteConfig(**SMALL, logits_scaling=4.0, attention_dropout=0.5)).train()
        first, second = (
            torch.random.manual_seed(5) and likelihood.token_log_likelihoods(made, BATCH)
            for _ in range(2)
        )
        assert torch.equal(first, second)


class Twice(nn.Linear):
    def forward(self, hidden):
        return 2 * super().forward(hidden)


def hooked(made):
    made.lm_head.register_forward_hook(lambda module, given, said: 2 * said)


def replaced(made):
    plain = made.lm_head.forward
    made.lm_head.forward = lambda hidden: 2 * plain(hidden)


def subclassed(made):
    made.lm_head.__class__ = Twice


def adapted(made):
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    inject_adapter_in_model(config, made)


@pytest.mark.parametrize("change", [hooked, replaced, subclassed, adapted])
@pytest.mark.parametrize("before", [False, True])
def test_a_layer_that_is_more_than_linear_is_used(change, before):
    """Also where the model was plain at its first batch."""
    made = model(LlamaConfig(**SMALL, tie_word_embeddings=False)).eval()
    if before:
        assert left_out(made)
    change(made)
    assert not left_out(made)
    found = likelihood.token_log_likelihoods(made, BATCH)
    torch.testing.assert_close(found, expected(made), rtol=1e-10, atol=1e-10)


def test_activations_that_are_computed_again_change_nothing():
    made = model(LlamaConfig(**SMALL)).train()
    plain = gradients(made, likelihood.token_log_likelihoods(made, BATCH))
    recompute_activations(made)
    again = gradients(made, likelihood.token_log_likelihoods(made, BATCH))
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other)


def test_the_model_generates_as_before():
    made = model(LlamaConfig(**SMALL)).eval()
    ids = torch.tensor([[5, 6, 7]])
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False}
    before = made.generate(ids, **options)
    likelihood.token_log_likelihoods(made, BATCH)
    assert torch.equal(made.generate(ids, **options), before)
    assert not made.lm_head._forward_pre_hooks
