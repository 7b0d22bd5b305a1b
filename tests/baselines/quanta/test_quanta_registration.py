"""QuanTA enters `peft`'s dictionaries and nothing else; counts of models too large to build."""

from __future__ import annotations

import peft.mapping
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from baselines.quanta import QuantaConfig, QuantaModel, QuantaType
from baselines.tuners import register

pytestmark = [
    # transformers renames its checkpointing calls, which peft still makes under the old names.
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*deprecated:FutureWarning"),
]


def test_peft_itself_is_left_alone():
    assert "QUANTA" not in peft.PeftType.__members__
    assert QuantaType.QUANTA == "QUANTA"
    assert peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING["QUANTA"] is QuantaModel  # by its plain string
    register(QuantaType.QUANTA, QuantaConfig, QuantaModel)  # twice changes nothing
    plain = nn.Sequential(nn.Linear(4, 4))
    x = torch.randn(2, 4)
    before = plain(x)
    lora = get_peft_model(plain, LoraConfig(target_modules=["0"]))
    assert torch.equal(lora(x), before)


@pytest.mark.parametrize(
    "table",
    [
        "PEFT_TYPE_TO_CONFIG_MAPPING",
        "PEFT_TYPE_TO_TUNER_MAPPING",
        "PEFT_TYPE_TO_PREFIX_MAPPING",
    ],
)
def test_registration_says_what_peft_lacks(table: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(peft.mapping, table)
    with pytest.raises(ImportError, match=rf"peft.mapping.{table}, .* which peft 0\.\d+"):
        register(QuantaType.QUANTA, QuantaConfig, QuantaModel)


def test_registration_refuses_a_taken_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING, QuantaType.QUANTA, nn.Linear)
    with pytest.raises(ValueError, match=r"already has .*Linear.* under 'QUANTA'"):
        register(QuantaType.QUANTA, QuantaConfig, QuantaModel)
    monkeypatch.undo()
    monkeypatch.setitem(peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING, peft.PeftType.LORA, "quanta_")
    with pytest.raises(ValueError, match="already has the prefix 'quanta_'"):
        register(QuantaType.QUANTA, QuantaConfig, QuantaModel)


def test_llama_70b_counts_on_the_meta_device():
    config = LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    targets = ["q_proj", "v_proj"]
    fields = {"dims": (16, 8, 8, 8), "target_modules": targets, "rectangular": "pad"}
    trainable, total = get_peft_model(model, QuantaConfig(**fields)).get_nb_trainable_parameters()
    per_module = 3 * (16 * 8) ** 2 + 3 * (8 * 8) ** 2
    assert trainable == 160 * per_module
    assert round(100 * trainable / (total - trainable), 3) == 0.014  # as the paper prints
