"""What all methods that `peft` implements share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_gpt2
from transformers import (
    RobertaConfig,
    RobertaForSequenceClassification,
)

from baselines.any_peft import AnyPeft
from baselines.lora import Lora
from baselines.seeding import isolated_rng
from quanta_bench.method import BenchError, UsageError

LORA = Lora.from_settings({})


def names(model: Any) -> set[str]:
    return {name.split(".lora_")[0].rpartition(".")[2] for name in LORA.trainable(model)}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "v_prj"], r"no module is called 'v_prj' .* Did you mean 'v_proj'"),
        (["layers.0.self_attn.q_prj"], r"Did you mean .*'model.layers.0.self_attn.q_proj'"),
        (["zzz"], r"Known: .*down_proj, .*q_proj"),
        ("q_proj", "no module's full name matches 'q_proj'"),
        (r"model\.(", "is not a regular expression"),
    ],
)
def test_unknown_targets(tiny: Any, targets: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"target_modules: .*{message}"):
        Lora.from_settings({"target_modules": targets}).adapt(tiny(), seed=0)


def test_targets_by_expression_and_all_linear(tiny: Any) -> None:
    one = Lora.from_settings({"target_modules": r".*layers\.1\.mlp\.up_proj"})
    assert len(one.trainable(one.adapt(tiny(), seed=0))) == 2
    every = Lora.from_settings({"target_modules": "all-linear"})
    model = every.adapt(tiny(), seed=0)
    assert names(model) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip


def test_a_target_of_the_wrong_kind(tiny: Any) -> None:
    with pytest.raises(UsageError, match="'lora' does not fit this LlamaForCausalLM"):
        Lora.from_settings({"target_modules": ["self_attn"]}).adapt(tiny(), seed=0)


def test_unknown_module_to_save(tiny: Any) -> None:
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["lm_hed"]}
    with pytest.raises(UsageError, match=r"modules_to_save: .*'lm_hed'.*'lm_head'"):
        AnyPeft.from_settings({"type": "lora", "settings": settings}).adapt(tiny(), seed=0)


def test_modules_to_save_train_in_float32(tiny: Any) -> None:
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}
    method = AnyPeft.from_settings({"type": "lora", "settings": settings})
    trained = method.trainable(method.adapt(tiny(dtype=torch.bfloat16), seed=0))
    assert [name for name in trained if "modules_to_save" in name and "norm" in name]
    assert {value.dtype for value in trained.values()} == {torch.float32}


def test_biases_that_a_configuration_trains() -> None:
    settings = {"target_modules": ["c_attn"], "bias": "lora_only"}
    method = AnyPeft.from_settings({"type": "lora", "settings": settings})
    trained = method.trainable(method.adapt(tiny_gpt2(), seed=0))
    assert sum(name.endswith(".bias") for name in trained) == 2


def test_a_classification_head_trains() -> None:
    config = RobertaConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        vocab_size=50, num_labels=2,
    )  # fmt: skip
    method = Lora.from_settings({"target_modules": ["query", "value"]})
    trained = method.trainable(method.adapt(RobertaForSequenceClassification(config), seed=0))
    head = {name for name in trained if "classifier" in name}
    assert sum(trained[name].numel() for name in head) == 32 * 32 + 32 + 32 * 2 + 2


def test_training_whatever_no_layer_declares_is_refused(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peft

    real = peft.get_peft_model

    def meddling(model: Any, config: Any) -> Any:
        adapted = real(model, config)
        adapted.get_input_embeddings().weight.requires_grad = True
        return adapted

    monkeypatch.setattr(peft, "get_peft_model", meddling)
    with pytest.raises(BenchError, match=r"trains .*embed_tokens.weight, which none of its layers"):
        LORA.adapt(tiny(), seed=0)


def test_loading_what_is_no_adapter_or_another_model_s(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="contains no adapter"):
        LORA.load(tiny(), tmp_path)
    LORA.save(LORA.adapt(tiny(), seed=0), tmp_path)
    with pytest.raises(BenchError, match="does not fit this GPT2LMHeadModel"):
        LORA.load(tiny_gpt2(), tmp_path)


def test_loaded_on_bfloat16_stays_float32_and_frozen(tiny: Any, tmp_path: Path) -> None:
    LORA.save(LORA.adapt(tiny(), seed=0), tmp_path)
    base = tiny(dtype=torch.bfloat16)
    own = {id(value) for value in base.parameters()}
    loaded = LORA.load(base, tmp_path)
    for value in loaded.parameters():
        assert value.dtype is (torch.bfloat16 if id(value) in own else torch.float32)
        assert not value.requires_grad


def test_isolated_rng_restores_after_an_error() -> None:
    def draw_and_fail() -> None:
        with isolated_rng(2**40):
            torch.rand(3)
            raise ZeroDivisionError

    torch.manual_seed(1)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        draw_and_fail()
    assert torch.equal(before, torch.get_rng_state())


def test_methods_are_described_without_torch() -> None:
    code = (
        "import sys, baselines.any_peft, baselines.base, baselines.full, baselines.lora\n"
        "baselines.lora.Lora.from_settings({'r': 4})\n"
        "assert not {'torch', 'peft', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
