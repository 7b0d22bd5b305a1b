"""QuanTA through `peft`, on a tiny LLaMA with grouped queries and a tiny GPT-2 with Conv1D."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from paths import ROOT
from peft import PeftModel, get_peft_model
from quanta_models import (
    KINDS,
    TOKENS,
    adapted,
    base_model,
    base_weights,
    config_for,
    layers,
    logits,
    same,
    train,
)
from torch import Tensor, nn
from transformers import LlamaForCausalLM

pytestmark = [
    # transformers renames its checkpointing calls, which peft still makes under the old names.
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*deprecated:FutureWarning"),
]


# The start.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_starts_as_the_base_model_to_the_bit(kind: str, dtype: torch.dtype):
    start, model = logits(base_model(kind, dtype)), adapted(kind, dtype)
    assert len(layers(model)) == {"llama": 6, "gpt2": 6}[kind]
    assert torch.equal(logits(model), start)
    assert logits(model).dtype == dtype
    model.train()
    assert torch.equal(logits(model), start)
    with torch.enable_grad():
        assert torch.equal(model(TOKENS).logits, start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_starts_as_the_base_model_under_autocast(dtype: torch.dtype):
    model = adapted(dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logits(model), logits(base_model(dtype=dtype)))


def test_starts_as_the_base_model_after_a_change_of_dtype():
    model = adapted()
    logits(model)
    model.bfloat16()
    assert torch.equal(logits(model), logits(base_model(dtype=torch.bfloat16)))


def test_start_does_not_depend_on_the_random_state_and_leaves_it():
    def gates(model: nn.Module) -> list[Tensor]:
        return [gate for layer in layers(model) for gate in layer.quanta_gates.parameters()]

    model = base_model()
    before = torch.random.get_rng_state()
    first = get_peft_model(copy.deepcopy(model), config_for())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    assert same(gates(get_peft_model(copy.deepcopy(model), config_for())), gates(first))
    # Which other modules are adapted does not matter either.
    alone = get_peft_model(copy.deepcopy(model), config_for(target_modules=["v_proj"]))
    kept = [
        gate for gate in gates(first) if any(torch.equal(gate, other) for other in gates(alone))
    ]
    assert len(kept) == len(gates(alone))
    assert not same(gates(get_peft_model(copy.deepcopy(model), config_for(seed=1))), gates(first))
    q, v = layers(first)[:2]
    assert not torch.equal(q.quanta_gates["default"][0], v.quanta_gates["default"][0])


# Training.


@pytest.mark.parametrize("kind", KINDS)
def test_only_declared_parameters_train(kind: str):
    model = adapted(kind).train()
    declared = {
        id(parameter)
        for layer in layers(model)
        for attribute in layer.adapter_layer_names
        for parameter in getattr(layer, attribute).parameters()
    }
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert trainable == declared
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, 1)
    for name, tensor in model.state_dict().items():
        moved = not torch.equal(tensor, before[name])
        assert moved == (".quanta_gates." in name), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_stay_in_float32(dtype: torch.dtype):
    model = adapted(dtype=dtype)
    train(model, 1)
    for layer in layers(model):
        tensors = [*layer.quanta_gates.parameters(), *layer.quanta_frozen.buffers()]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
    low = get_peft_model(base_model(dtype=dtype), config_for(), autocast_adapter_dtype=False)
    assert {p.dtype for p in low.parameters() if p.requires_grad} == {dtype}
    assert torch.equal(logits(low), logits(base_model(dtype=dtype))) or dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_under_autocast(dtype: torch.dtype):
    model = adapted(dtype=dtype).train()
    with torch.autocast("cpu", torch.bfloat16):
        model(TOKENS, labels=TOKENS).loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.dtype == torch.float32 for g in gradients)
    assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)


def test_gradient_checkpointing_gives_the_same_gradients():
    def gradients(checkpointing: bool) -> list[Tensor]:
        model = adapted().train()
        if checkpointing:
            model.base_model.model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        model(TOKENS, labels=TOKENS).loss.backward()
        return [p.grad for p in model.parameters() if p.requires_grad]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        assert torch.allclose(plain, checkpointed, rtol=1e-5, atol=1e-8)


def test_dropout_has_one_mask_for_t_and_s():
    start, model = logits(base_model()), adapted(dropout=0.5).train()
    assert torch.equal(logits(model), start)  # two masks would not cancel
    train(model)
    assert not torch.equal(logits(model), logits(model))  # but there is dropout
    model.eval()
    assert torch.equal(logits(model), logits(model))


def test_modules_to_save():
    model = adapted(modules_to_save=["lm_head"])
    assert any("lm_head" in name for name, p in model.named_parameters() if p.requires_grad)
    train(model, 1)


# Merging.


@pytest.mark.parametrize("kind", KINDS)
def test_merged_equals_unmerged_and_unmerge_is_exact(kind: str):
    model = adapted(kind)
    originals = base_weights(model)
    train(model)
    assert same(base_weights(model), originals)
    output = logits(model)
    deltas = [layer.get_delta_weight("default") for layer in layers(model)]
    model.merge_adapter(safe_merge=True)
    merged = base_weights(model)
    for weight, original, delta in zip(merged, originals, deltas, strict=True):
        assert delta.abs().max() > 1e-3
        assert torch.equal(weight, (original.double() + delta).float())  # one rounding
    assert torch.allclose(logits(model), output, atol=2e-5)
    with pytest.warns(UserWarning, match="already merged"):
        model.merge_adapter()
    assert same(base_weights(model), merged)
    model.unmerge_adapter()
    assert same(base_weights(model), originals)
    assert torch.equal(logits(model), output)
    model.unmerge_adapter()
    assert same(base_weights(model), originals)

    plain = model.merge_and_unload()
    assert not layers(plain)
    assert type(plain) is type(base_model(kind))
    assert torch.allclose(logits(plain), output, atol=2e-5)
    assert set(plain.state_dict()) == set(base_model(kind).state_dict())


def test_bfloat16_merge_rounds_once_and_unmerges_exactly():
    model = adapted(dtype=torch.bfloat16)
    originals = base_weights(model)
    train(model)
    deltas = [layer.get_delta_weight("default") for layer in layers(model)]
    model.merge_adapter()
    for weight, original, delta in zip(base_weights(model), originals, deltas, strict=True):
        assert delta.dtype == torch.float32
        assert torch.equal(weight, (original.float() + delta).bfloat16())
    model.unmerge_adapter()
    assert same(base_weights(model), originals)


def test_unload_gives_back_the_base_model():
    model = adapted()
    train(model)
    assert torch.equal(logits(model.unload()), logits(base_model()))


def test_safe_merge_refuses_what_is_not_finite():
    model = adapted()
    originals = base_weights(model)
    with torch.no_grad():
        layers(model)[0].quanta_gates["default"][0].fill_(float("inf"))
    with pytest.raises(ValueError, match=r"\['default'\] give a weight that is not finite"):
        model.merge_adapter(safe_merge=True)
    assert same(base_weights(model), originals)


# Switching.


def test_disabled_adapter_is_the_base_model():
    model, start = adapted(), logits(base_model())
    train(model)
    output = logits(model)
    assert not torch.allclose(output, start, atol=1e-2)
    with model.disable_adapter():
        assert torch.equal(logits(model), start)
    assert torch.equal(logits(model), output)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.allclose(logits(model), start, atol=1e-5)


def test_several_adapters():
    model = adapted(dtype=torch.float64)
    start = logits(base_model(dtype=torch.float64))
    train(model)
    first = logits(model)
    other = {"v_proj": (8, 8), ".*": (4, 4, 2, 2)}
    second_config = config_for(dims=other, target_modules=["q_proj", "v_proj", "k_proj"], seed=5)
    model.add_adapter("second", second_config)
    assert torch.allclose(logits(model), first, atol=1e-12)
    model.set_adapter("second")
    assert torch.allclose(logits(model), start, atol=1e-12)
    train(model)
    second = logits(model)
    model.set_adapter("default")
    assert torch.allclose(logits(model), first, atol=1e-12)

    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    assert not torch.allclose(both, first, atol=1e-3)
    q = layers(model)[0]
    x = torch.randn(3, 64, dtype=torch.float64)
    with torch.no_grad():
        deltas = q.get_delta_weight("default") + q.get_delta_weight("second")
        expected = q.get_base_layer()(x) + x @ deltas.mT
        assert torch.allclose(q(x), expected, atol=1e-12)
    model.merge_adapter()
    assert torch.allclose(logits(model), both, atol=1e-12)
    model.unmerge_adapter()
    model.merge_adapter(["second"])  # one after the other
    with pytest.warns(UserWarning, match="additionally merging default"):
        model.merge_adapter(["default"])
    assert torch.allclose(logits(model), both, atol=1e-12)
    model.unmerge_adapter()

    model.base_model.set_adapter("second")
    model.delete_adapter("default")
    assert torch.allclose(logits(model), second, atol=1e-12)
    assert all(not any("default" in key for key in layer.state_dict()) for layer in layers(model))


# Saving.


@pytest.mark.parametrize("kind", KINDS)
def test_reload_in_a_fresh_process_is_exact(kind: str, tmp_path: Path):
    model = adapted(kind)
    base = base_model(kind)
    base.save_pretrained(tmp_path / "base")
    train(model)
    model.save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    script = f"""
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        torch.set_num_threads({torch.get_num_threads()})
        torch.rand(13)  # another random state
        import baselines.quanta
        base = AutoModelForCausalLM.from_pretrained({str(tmp_path / "base")!r})
        model = PeftModel.from_pretrained(base, {str(tmp_path / "adapter")!r}).eval()
        tokens = torch.arange(24).reshape(2, 12) * 7 % 50
        with torch.no_grad():
            torch.save(model(tokens).logits, {str(tmp_path / "logits.pt")!r})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, cwd=ROOT)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), logits(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_saved_adapter_is_all_that_is_needed(
    dtype: torch.dtype, low_cpu_mem_usage: bool, tmp_path: Path
):
    model = adapted(dtype=dtype)
    train(model)
    with torch.no_grad():  # an S that no seed gives: it has to come from the file
        for buffer in layers(model)[0].quanta_frozen["default"].buffers():
            buffer += 0.01
    model.save_pretrained(tmp_path)
    other = PeftModel.from_pretrained(
        base_model(dtype=dtype), tmp_path, "renamed", low_cpu_mem_usage=low_cpu_mem_usage
    )
    assert torch.equal(logits(other), logits(model))
    assert {p.dtype for layer in layers(other) for p in layer.quanta_gates.parameters()} == {
        torch.float32
    }
    # Into a model that has run already.
    model.load_adapter(tmp_path, "again")
    again = adapted(dtype=dtype, seed=9)
    logits(again)
    again.load_adapter(tmp_path, "default")
    assert torch.equal(logits(again), logits(model))
    model.set_adapter("again")
    assert torch.equal(logits(model), logits(other))


def test_saved_names_and_sizes(tmp_path: Path):
    from safetensors.torch import load_file

    model = adapted()
    logits(model)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(t.numel() for t in saved.values()) == 2 * trainable
    assert all(".quanta_gates." in name or ".quanta_frozen." in name for name in saved)


def test_full_state_dict_round_trip():
    model = adapted()
    train(model)
    other = adapted(seed=3)
    logits(other)
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(other), logits(model))


# Sizes without weights.


def test_meta_model_has_the_counts_of_the_real_one():
    with torch.device("meta"):
        empty = LlamaForCausalLM(base_model().config)
    counts = get_peft_model(empty, config_for()).get_nb_trainable_parameters()
    assert counts == adapted().get_nb_trainable_parameters()


# Errors.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_modules": ["query"]}, "query.*not found"),
        (
            {"target_modules": ["embed_tokens"]},
            "'model.embed_tokens' is a Embedding; adapters here go on",
        ),
        ({"dims": (4, 4), "target_modules": ["q_proj"]}, r"q_proj' \(64 -> 64\): dims \(4, 4\)"),
        ({"target_modules": ["q_proj", "down_proj"], "dims": (4, 4, 4)}, "down_proj.*nearest dims"),
    ],
)
def test_errors_leave_the_model_as_it_was(fields: dict, message: str):
    model = base_model()
    with pytest.raises(ValueError, match=message):
        get_peft_model(model, config_for(**fields))
    assert not layers(model)
    assert torch.equal(logits(model), logits(base_model()))
