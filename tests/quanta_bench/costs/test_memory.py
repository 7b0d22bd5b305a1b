"""What a training takes: choices by hand, and predictions against what a process really took."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from tiny_architectures import tiny, tiny_config
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig

from quanta_bench.costs.footprints import Footprint, Footprints, Shape
from quanta_bench.costs.memory import (
    activation_bytes,
    fit,
    logit_bytes,
    optimizer_bytes,
    weight_bytes,
)
from quanta_bench.data.batches import CandidateBatch, collate
from quanta_bench.data.encoding import Encoded
from quanta_bench.errors import UsageError
from quanta_bench.evaluation.likelihood import token_log_likelihoods
from quanta_bench.method import Method
from quanta_bench.plugins import build_method
from quanta_bench.task import Example
from quanta_bench.training.trainer import recompute_activations

LORA = {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}
LOGITS = logit_bytes()


def by_hand(shape: Shape, *, recomputed: bool) -> tuple[Footprint, Footprint]:
    """Ten layers that keep 1 MB a token, or a tenth of it where they are recomputed."""
    kept = 1e6 * shape.fed * (0.1 if recomputed else 1)
    return Footprint(1, 1, kept), Footprint(1, 1, kept / 10)


def test_activations_are_kept_as_long_as_micro_batches_are_large_enough() -> None:
    most = Shape(16, 200)
    roomy = fit(by_hand, most, 3.2e9 + LOGITS)
    assert (roomy.items, roomy.recomputed, roomy.fits) == (16, False, True)
    # Three items of 200 tokens come to the 512 that suffice; two do not.
    enough = fit(by_hand, most, 0.65e9 + LOGITS)
    assert (enough.items, enough.recomputed, enough.activation_bytes) == (
        3, False, pytest.approx(0.6e9 + LOGITS),
    )  # fmt: skip
    # Recomputed, an item keeps 20 MB of inputs and 20 MB of the layer that is computed again.
    narrow = fit(by_hand, most, 0.55e9 + LOGITS)
    assert (narrow.items, narrow.recomputed) == (13, True)
    tight = fit(by_hand, most, 0.01e9)
    assert (tight.items, tight.recomputed, tight.fits) == (1, True, False)


def test_what_cannot_be_recomputed_is_computed_in_small_parts() -> None:
    def kept_only(shape: Shape, *, recomputed: bool) -> tuple[Footprint, Footprint]:
        if recomputed:
            raise UsageError("it does not work with gradient checkpointing")
        return by_hand(shape, recomputed=False)

    found = fit(kept_only, Shape(16, 200), 0.25e9 + LOGITS)
    assert (found.items, found.recomputed, found.fits) == (1, False, True)
    assert fit(by_hand, Shape(16, 200), 1e12, recompute=True).recomputed


@pytest.mark.parametrize("kind", ["openai-gpt", "ctrl"])
def test_a_model_that_cannot_recompute_is_computed_in_small_parts(
    kind: str, tmp_path: Path
) -> None:
    config = tiny_config(kind)
    config.architectures = [type(tiny(kind)).__name__]
    config.save_pretrained(tmp_path)
    model, method = f"local:{tmp_path}", build_method("full", {})
    measured = partial(Footprints().get, model, method, precision="float32")
    most = Shape(16, 40)
    room = activation_bytes(measured, replace(most, items=2), recomputed=False)
    found = fit(measured, most, room)
    assert (found.items, found.recomputed, found.fits) == (2, False, True)
    message = r"cannot recompute activations\. Set training\.gradient_checkpointing=false"
    with pytest.raises(UsageError, match=message):
        fit(measured, most, room, recompute=True)
    with pytest.raises(UsageError, match=message):
        recompute_activations(tiny(kind))


def test_moments_by_hand() -> None:
    assert optimizer_bytes("adamw", 100) == 400 + 800
    assert optimizer_bytes("adamw-8bit", 100) == 400 + 200


def test_weights_of_4_bits_have_a_scale_for_each_64() -> None:
    assert weight_bytes(1064, 10, wide=False) == 2 * 1064 + 40
    assert weight_bytes(1064, 10, wide=True) == 4 * 1064 + 40
    packed = weight_bytes(1064, 10, wide=False, quantization="nf4", outside=40)
    assert packed == 1024 // 2 + 4 * 1024 // 64 + 2 * 40 + 40


def batch(shape: Shape) -> CandidateBatch:
    context = tuple(2 + n % 50 for n in range(shape.context))
    item = Encoded(Example("", "", {}), 0, (context,), ((3,),), (1,), 0, 0)
    return collate([item] * shape.items, 0, packed=False)


def peak_of_a_step(folder: Path, method: Method[Any], shape: Shape, recomputed: bool) -> int:
    """Bytes of tensors that a step on a model with weights allocates at its peak."""
    model = AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(folder))
    if recomputed:
        recompute_activations(model)
    model = method.adapt(model, 0).train()
    token_log_likelihoods(model, batch(Shape(1, 8))).sum().backward()  # the model is probed
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        token_log_likelihoods(model, batch(shape)).sum().backward()
    events: Any = profiler.profiler
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in events.kineto_results.events()
        if event.name() == "[memory]"
    )
    return max(accumulate(size for _, size in changes))


@pytest.mark.parametrize(
    ("name", "settings", "recomputed"),
    [("lora", LORA, False), ("lora", LORA, True), ("full", {}, True)],
)
def test_the_predicted_peak_is_that_of_a_step(
    name: str, settings: dict[str, Any], recomputed: bool, tmp_path: Path
) -> None:
    """On a small model, on a processor; the arithmetic is the same for any size."""
    LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=320, num_hidden_layers=8,
        num_attention_heads=4, num_key_value_heads=4, architectures=["LlamaForCausalLM"],
        bos_token_id=1, eos_token_id=1,
    ).save_pretrained(tmp_path)  # fmt: skip
    shape, method = Shape(8, 256), build_method(name, settings)
    measured = partial(Footprints().get, f"local:{tmp_path}", method, precision="float32")
    predicted = activation_bytes(measured, shape, recomputed=recomputed) - LOGITS
    taken = peak_of_a_step(tmp_path, method, shape, recomputed)
    assert 0.8 < predicted / taken < 1.15
