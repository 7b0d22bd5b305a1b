"""Tuners on a base of 4 bits, and under optimisers that write behind torch's back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn

from quanta_bench.models.quantised import dequantise
from tests.baselines.conformity.tuners import (
    IDS,
    Tuner,
    adapted,
    every_mergeable_tuner,
    every_tuner,
    llama,
    logits,
)

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


def quantised() -> nn.Module:
    """The tiny model with its projections in 4 bits."""
    model = llama()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name.endswith("_proj"):
                made = bnb.nn.Linear4bit(
                    child.in_features,
                    child.out_features,
                    bias=False,
                    compute_dtype=torch.float32,
                    quant_type="nf4",
                )
                made.weight = bnb.nn.Params4bit(
                    child.weight.detach().clone(), requires_grad=False, quant_type="nf4"
                )
                # On processors with AVX512-BF16 it would round its scales to bfloat16.
                made.support_avx512bf16_for_cpu = False
                setattr(module, name, made.to("cpu"))
    return model


def dequantised() -> nn.Module:
    """The tiny model with the weights that the 4 bits stand for, as plain layers."""
    model = llama()
    plain = dict(model.named_modules())
    for name, module in quantised().named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(module.weight, module.weight.quant_state)
            plain[name].weight.data = weight
    return model


@every_tuner
def test_outputs_are_those_of_the_dequantised_base(tuner: Tuner) -> None:
    for training in (False, True):
        one, other = (adapted(tuner, base).train(training) for base in (quantised(), dequantised()))
        assert torch.allclose(logits(one), logits(other), atol=1e-4)


@every_tuner
def test_gradients_are_those_of_the_dequantised_base(tuner: Tuner) -> None:
    gradients: list[dict[str, torch.Tensor]] = []
    for base in (quantised(), dequantised()):
        model = adapted(tuner, base).train()
        model(input_ids=IDS, labels=IDS).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5), name


@every_mergeable_tuner
def test_a_merge_into_4_bits_is_refused_and_leaves_the_model(tuner: Tuner) -> None:
    if isinstance(tuner(), LoraConfig):
        pytest.skip("peft's own merges into layers that transformers has quantised")
    model = adapted(tuner, quantised())
    before = logits(model)
    with pytest.raises(ValueError, match="without quantisation"):
        model.merge_and_unload()
    assert torch.equal(logits(model), before)


@every_mergeable_tuner
def test_an_adapter_merges_into_the_dequantised_base(tuner: Tuner) -> None:
    expected = logits(adapted(tuner, quantised()))
    model = adapted(tuner, dequantise(quantised()))
    merged = model.merge_and_unload()
    assert torch.allclose(logits(merged), expected, atol=1e-4)


@every_tuner
@pytest.mark.parametrize("kind", ["AdamW", "AdamW8bit", "Lion8bit"])
def test_outputs_follow_an_optimiser_that_torch_does_not_see(tuner: Tuner, kind: str) -> None:
    model = adapted(tuner)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Small tensors would be kept in 32 bits.
    options: dict[str, Any] = {"min_8bit_size": 1} if kind.endswith("8bit") else {}
    optimiser = getattr(bnb.optim, kind)(trained, lr=0.05, **options)
    for _ in range(2):
        before = logits(model.eval())
        model.train()
        model(input_ids=IDS, labels=IDS).loss.backward()
        versions = [parameter._version for parameter in trained]
        optimiser.step()
        assert versions == [parameter._version for parameter in trained]
        optimiser.zero_grad()
        fresh = adapted(tuner, seed=2)
        fresh.load_state_dict(model.state_dict())
        assert not torch.allclose(logits(model.eval()), before, atol=1e-4)
        assert torch.allclose(logits(model), logits(fresh), atol=1e-6)
