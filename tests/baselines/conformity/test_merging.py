"""Merging, unmerging and switching off."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import get_peft_model

from tests.baselines.conformity.tuners import (
    TUNERS,
    Tuner,
    adapted,
    add_perturbed,
    every_mergeable_tuner,
    every_tuner,
    gpt2,
    llama,
    logits,
    perturb,
)

NOT_MERGEABLE = {name: tuner for name, tuner in TUNERS.items() if tuner.not_mergeable}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=atol)


@every_mergeable_tuner
@pytest.mark.parametrize("safe_merge", [False, True])
def test_merged_is_unmerged(tuner: Tuner, safe_merge: bool) -> None:
    model = adapted(tuner)
    expected = logits(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.merge_adapter(safe_merge=safe_merge)
    assert_close(logits(model), expected)
    once = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match="lready"):
        model.merge_adapter(safe_merge=safe_merge)  # changes nothing
    torch.testing.assert_close(dict(model.state_dict()), once, rtol=0, atol=0)
    model.unmerge_adapter()
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=1e-5, atol=1e-6)
    assert_close(logits(model), expected)
    with pytest.warns(UserWarning, match="lready") if tuner is TUNERS["lora"] else _nothing():
        model.unmerge_adapter()
    merged = model.merge_and_unload(safe_merge=safe_merge)
    assert type(merged) is type(llama())
    assert set(merged.state_dict()) == set(llama().state_dict())
    assert_close(logits(merged), expected)


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...


@every_mergeable_tuner
def test_several_adapters(tuner: Tuner) -> None:
    model = adapted(tuner)
    add_perturbed(model, tuner, "second", seed=2)
    outputs = {}
    for name in ("default", "second"):
        model.set_adapter(name)
        outputs[name] = logits(model)
    assert (outputs["default"] - outputs["second"]).abs().max() > 1e-3
    for name, expected in outputs.items():
        assert_close(logits(copy.deepcopy(model).merge_and_unload(adapter_names=[name])), expected)
    both = copy.deepcopy(model)
    both.base_model.set_adapter(["default", "second"])
    merged = copy.deepcopy(model).merge_and_unload(adapter_names=["default", "second"])
    assert_close(logits(merged), logits(both))
    model.set_adapter("default")
    model.delete_adapter("second")
    assert_close(logits(model), outputs["default"])


@every_mergeable_tuner
def test_a_bad_merge_leaves_the_weight(tuner: Tuner) -> None:
    model = adapted(tuner)
    perturb([p for p in model.parameters() if p.requires_grad], scale=float("nan"))
    base = {n: v.clone() for n, v in model.state_dict().items() if "base_layer" in n}
    with pytest.raises(ValueError, match=r"(?i)nan|not finite"):
        model.merge_and_unload(safe_merge=True)
    for name, value in base.items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


@every_mergeable_tuner
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_merge_in_half_precision(tuner: Tuner, dtype: torch.dtype) -> None:
    model = adapted(tuner, llama(dtype))
    expected = logits(model)
    merged = model.merge_and_unload()
    assert {value.dtype for value in merged.parameters()} == {dtype}
    assert_close(logits(merged), expected, atol=0.02 if dtype is torch.float16 else 0.2)


@every_mergeable_tuner
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")  # of peft, at injection
def test_merge_of_tied_weights(tuner: Tuner) -> None:
    if tuner is TUNERS["lora"]:
        pytest.skip("LoRA of peft merges into the embeddings too")
    settings = {"target_modules": ["lm_head"]}
    if "dims" in tuner.settings:
        settings |= {"dims": (4, 4, 2), "rectangular": "pad"}
    if "side" in tuner.settings:
        settings["side"] = 1
    model = adapted(tuner, llama(tied=True), **settings)
    base = model.get_base_model()
    embeddings = base.get_input_embeddings().weight
    assert base.lm_head.weight is embeddings
    expected, values = logits(model), embeddings.detach().clone()
    assert (expected - logits(llama(tied=True))).abs().max() > 1e-3
    model.merge_adapter()
    assert_close(logits(model), expected)
    assert torch.equal(base.get_input_embeddings().weight, values)
    model.unmerge_adapter()
    assert base.lm_head.weight is base.get_input_embeddings().weight is embeddings
    model.merge_adapter()
    model.to(torch.float64).to(torch.float32)  # while merged
    model.unmerge_adapter()
    assert_close(logits(model), expected)
    assert base.lm_head.weight is base.get_input_embeddings().weight
    with pytest.warns(UserWarning, match="no longer tied"):
        merged = model.merge_and_unload()
    assert_close(logits(merged), expected)
    assert merged.config.tie_word_embeddings is False


@every_mergeable_tuner
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_merge_of_transposed_layers(tuner: Tuner) -> None:
    settings = {"target_modules": ["c_attn"]}
    if "dims" in tuner.settings:
        settings |= {"dims": (4, 4), "rectangular": "pad"}
    model = adapted(tuner, gpt2(), **settings)
    expected = logits(model)
    assert_close(logits(model.merge_and_unload()), expected)


@pytest.mark.parametrize("tuner", NOT_MERGEABLE.values(), ids=NOT_MERGEABLE.keys())
def test_what_cannot_be_merged_says_why(tuner: Tuner) -> None:
    model = adapted(tuner)
    expected = logits(model)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match=r"not linear|not a\s+matrix"):
            merge()
    assert torch.equal(logits(model), expected)


@every_tuner
def test_switched_off(tuner: Tuner) -> None:
    model = adapted(tuner)
    expected, base = logits(model), logits(llama())
    assert (expected - base).abs().max() > 1e-3
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), base, rtol=0, atol=0)
        with model.disable_adapter():
            torch.testing.assert_close(logits(model), base, rtol=0, atol=0)
        torch.testing.assert_close(logits(model), base, rtol=0, atol=0)
    assert_close(logits(model), expected, atol=1e-5)
    model.base_model.disable_adapter_layers()
    torch.testing.assert_close(logits(model), base, rtol=0, atol=0)
    model.base_model.enable_adapter_layers()
    assert_close(logits(model), expected, atol=1e-5)
    if not tuner.not_mergeable:
        model.merge_adapter()
        with model.disable_adapter():
            assert_close(logits(model), base, atol=1e-5)
        assert_close(logits(model), expected)


@every_tuner
def test_unload_gives_the_base_model(tuner: Tuner) -> None:
    unloaded = adapted(tuner).unload()
    assert set(unloaded.state_dict()) == set(llama().state_dict())
    torch.testing.assert_close(logits(unloaded), logits(llama()), rtol=0, atol=1e-6)


@every_tuner
def test_start_is_the_base_model(tuner: Tuner) -> None:
    model = get_peft_model(llama(), tuner()).eval()
    torch.testing.assert_close(logits(model), logits(llama()), rtol=1e-5, atol=1e-5)
