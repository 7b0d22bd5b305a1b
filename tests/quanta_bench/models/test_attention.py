"""Attention that keeps its probabilities gives what sdpa gives, and takes only its own calls."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    masking_utils,
)
from transformers.integrations import sdpa_attention

from quanta_bench.models import attention

CONFIG = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def layer(group, causal=True):
    return SimpleNamespace(num_key_value_groups=group, is_causal=causal)


@st.composite
def calls(draw):
    """A layer, its float64 inputs, a mask and a gradient of the output."""
    rows, groups, group = (draw(st.integers(1, 3)) for _ in range(3))
    queries, size, width = draw(st.integers(1, 7)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    kind = draw(st.sampled_from(["causal", "both ways", "pairs", "heads", "one for all rows"]))
    past = draw(st.integers(0, 4)) if kind not in ("causal", "both ways") else 0
    keys, heads = queries + past, groups * group
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def values(count, length, last):
        # In memory as a projection leaves them: heads after positions.
        drawn = torch.randn(
            rows, length, count, last, dtype=torch.float64, generator=generator
        ).transpose(1, 2)
        return drawn.requires_grad_()

    inputs = values(heads, queries, size), values(groups, keys, size), values(groups, keys, width)
    shape = {
        "pairs": (rows, 1, queries, keys),
        "heads": (rows, heads, queries, keys),
        "one for all rows": (1, 1, queries, keys),
    }.get(kind)
    mask = torch.rand(shape, generator=generator) < 0.5 if shape else None
    if mask is not None and draw(st.booleans()):
        mask[..., 0, :] = False  # a query that may see nothing, as left padding does
    gradient = torch.randn(rows, queries, heads, width, dtype=torch.float64, generator=generator)
    scaling = draw(st.sampled_from([None, 0.3]))
    return layer(group, kind != "both ways"), inputs, mask, scaling, gradient


def plainly(inputs, mask, scaling, causal):
    """Softmax attention of repeated heads, by its definition; nothing seen gives zero."""
    query, key, value = inputs
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool)
        mask = mask.tril() if causal else mask
    weights = torch.where(mask, scores.exp(), 0.0)
    total = weights.sum(-1, keepdim=True)
    return (weights / torch.where(total == 0, 1.0, total) @ value).transpose(1, 2)


@settings(max_examples=150, deadline=None)
@given(call=calls())
def test_outputs_and_gradients_are_those_of_the_definition_and_of_sdpa(call):
    module, inputs, mask, scaling, gradient = call
    found, none = attention.attention(module, *inputs, mask, scaling=scaling)
    assert none is None
    assert found.is_contiguous()
    ways = [plainly(inputs, mask, scaling, module.is_causal)]
    if mask is None or mask.any(-1).all():  # sdpa differs among its kernels where all is masked
        ways.append(
            sdpa_attention.sdpa_attention_forward(module, *inputs, mask, scaling=scaling)[0]
        )
    gradients = torch.autograd.grad(found, inputs, gradient)
    for expected in ways:
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        others = torch.autograd.grad(expected, inputs, gradient)
        torch.testing.assert_close(gradients, others, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_it_rounds_as_sdpa_does(dtype):
    generator = torch.Generator().manual_seed(0)
    exact = [
        torch.randn(4, heads, 57, 64, generator=generator).to(dtype).double().requires_grad_()
        for heads in (6, 2, 2)
    ]
    upstream = torch.randn(4, 57, 6, 64, generator=generator).to(dtype).double()
    reference = plainly(exact, None, None, True)
    reference = [reference.detach(), *torch.autograd.grad(reference, exact, upstream)]
    errors = []
    for way in (attention.attention, sdpa_attention.sdpa_attention_forward):
        inputs = [value.detach().to(dtype).requires_grad_() for value in exact]
        output, _ = way(layer(3), *inputs, None)
        assert output.dtype is dtype
        gradients = torch.autograd.grad(output, inputs, upstream.to(dtype))
        found = [output.detach(), *gradients]
        errors.append([(a - b).norm().item() for a, b in zip(found, reference, strict=True)])
    for ours, theirs in zip(*errors, strict=True):
        assert ours < 1.5 * theirs


def test_autocast_casts_as_it_does_for_sdpa():
    inputs = [torch.randn(2, 4, 5, 8, requires_grad=True) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = attention.attention(layer(1), *inputs, None)
        expected, _ = sdpa_attention.sdpa_attention_forward(layer(1), *inputs, None)
    assert found.dtype is expected.dtype is torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    found.sum().backward()
    assert {value.grad.dtype for value in inputs} == {torch.float32}


@pytest.fixture
def left_to_sdpa(monkeypatch):
    """Asks whether a call of attention is handed on."""
    handed = []
    inner = sdpa_attention.sdpa_attention_forward

    def spy(*words, **more):
        handed.append(True)
        return inner(*words, **more)

    monkeypatch.setattr(sdpa_attention, "sdpa_attention_forward", spy)

    def ask(*, length=5, past=0, grown=True, mask=None, **more):
        handed.clear()
        query, key, value = (
            torch.randn(2, 2, length + extra, 8, requires_grad=grown) for extra in (0, past, past)
        )
        attention.attention(layer(1), query, key, value, mask, **more)
        return bool(handed)

    return ask


def test_calls_that_it_is_not_made_for_go_to_sdpa(left_to_sdpa):
    seen = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    assert not left_to_sdpa()
    assert not left_to_sdpa(mask=seen, position_ids=torch.arange(5), softcap=None)
    assert not left_to_sdpa(mask=torch.ones(2, 1, 5, 8, dtype=torch.bool), past=3)
    assert left_to_sdpa(grown=False)
    assert left_to_sdpa(length=attention.MAX_KEYS + 1)
    assert left_to_sdpa(dropout=0.1)
    assert left_to_sdpa(mask=torch.zeros(2, 1, 5, 5))
    assert left_to_sdpa(past=3)
    assert left_to_sdpa(position_bias=torch.zeros(1, 2, 5, 5))
    with torch.no_grad():
        assert left_to_sdpa(mask=seen)


def test_what_sdpa_refuses_is_refused(left_to_sdpa):
    with pytest.raises(ValueError, match="softcap"):
        left_to_sdpa(softcap=30.0)


def test_no_plan_is_built_for_each_shape_of_a_batch_on_a_gpu():
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        attention.use_kept_probabilities(LlamaForCausalLM(LlamaConfig(**CONFIG)))
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.parametrize("kind", ["none", "padding", "pairs"])
def test_a_model_has_the_loss_and_gradients_that_it_had(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = LlamaForCausalLM(LlamaConfig(**CONFIG)).double()
    ours = deepcopy(plain)
    attention.use_kept_probabilities(ours)
    assert plain.config._attn_implementation == "sdpa"
    assert ours.config._attn_implementation == attention.NAME
    ids = torch.arange(3, 21).view(2, 9)
    pairs = torch.ones(2, 1, 9, 9, dtype=torch.bool).tril()
    pairs[..., 6:, 3:6] = False  # two continuations of one beginning
    mask = {
        "none": None,
        "padding": (torch.arange(9) < torch.tensor([[9], [6]])).long(),
        "pairs": pairs,
    }[kind]
    found = []
    for model in (ours, plain):
        loss = model(input_ids=ids, attention_mask=mask, labels=ids).loss
        loss.backward()
        found.append((loss.detach(), [value.grad for value in model.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=0)
    # The norms of transformers' LLaMA compute in float32 whatever the model's dtype.
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-7)
    for model in (ours, plain):
        model.eval()
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    assert torch.equal(
        ours.generate(ids, attention_mask=mask, **options),
        plain.generate(ids, attention_mask=mask, **options),
    )


def test_a_second_derivative_is_an_error_and_not_wrong():
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    attention.use_kept_probabilities(model)
    ids = torch.arange(3, 9)[None]
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    loss = model(input_ids=ids, attention_mask=mask, labels=ids).loss
    weight = model.model.layers[0].self_attn.q_proj.weight
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_only_models_that_run_sdpa_are_changed():
    eager = AutoModelForCausalLM.from_config(LlamaConfig(**CONFIG), attn_implementation="eager")
    attention.use_kept_probabilities(eager)
    assert eager.config._attn_implementation == "eager"
    assert not attention.is_sdpa(eager)
    other = AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4, bos_token_id=1, eos_token_id=2)
    )
    assert attention.is_sdpa(other)
    attention.use_kept_probabilities(other)
    assert attention.is_sdpa(other)
    ids = torch.arange(3, 9)[None]
    other(input_ids=ids, labels=ids).loss.backward()


@pytest.mark.parametrize("window", [None, 3])
def test_padding_on_the_right_needs_no_mask_and_no_reading_of_it(window, monkeypatch):
    """With a window as without one, every token has the outputs that it has in a masked batch."""
    kind, config = (LlamaForCausalLM, LlamaConfig(**CONFIG))
    if window:
        options = {"sliding_window": window, "use_sliding_window": True, "max_window_layers": 0}
        kind, config = (Qwen2ForCausalLM, Qwen2Config(**CONFIG, **options))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config).eval()
    attention.use_kept_probabilities(model)
    ids = torch.tensor([[5, 6, 7, 0, 0, 0], [8, 9, 10, 11, 12, 13]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1] * 6])
    masks = []
    original = masking_utils.sdpa_mask

    def seen(*args, **kwargs):
        masks.append(original(*args, **kwargs))
        return masks[-1]

    monkeypatch.setattr(masking_utils, "sdpa_mask", seen)
    read = []
    monkeypatch.setattr(masking_utils, "fast_all", lambda mask: read.append(mask) or mask.all())
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits
        assert masks[0] is not None
        assert read
        masks.clear(), read.clear()
        with attention.padded_on_the_right():
            found = model(input_ids=ids, attention_mask=mask).logits
    assert not read
    assert all(one is None for one in masks) == (window is None)
    real = mask.bool()
    torch.testing.assert_close(found[real], expected[real], rtol=1e-5, atol=1e-6)
