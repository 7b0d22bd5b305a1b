from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from baselines.base import NoFineTuning
from baselines.full import FullFineTuning
from quanta_bench.method import BenchError

FULL = FullFineTuning.from_settings({})


def test_every_parameter_trains_and_a_tied_one_counts_once(train: Any) -> None:
    run = train(FULL, steps=2)
    assert run.trainable.keys() == run.base.keys()
    assert "lm_head.weight" not in run.trainable
    assert run.model.lm_head.weight is run.model.model.embed_tokens.weight


def test_a_bfloat16_base_becomes_float32(tiny: Any) -> None:
    model = FULL.adapt(tiny(dtype=torch.bfloat16), seed=0)
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_load_restores_every_bit_and_the_tie(train: Any, tiny: Any, tmp_path: Path) -> None:
    run = train(FULL, steps=3)
    FULL.save(run.model, tmp_path)
    loaded = FULL.load(tiny(), tmp_path)
    state = loaded.state_dict()
    assert state.keys() == run.model.state_dict().keys()
    for name, value in run.model.state_dict().items():
        assert torch.equal(state[name], value), name
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert not any(value.requires_grad for value in loaded.parameters())


def test_transformers_reads_the_folder(train: Any, tmp_path: Path) -> None:
    run = train(FULL, steps=3)
    FULL.save(run.model, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, value in run.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_folder_of_another_model_is_refused(tiny: Any, tmp_path: Path) -> None:
    FULL.save(tiny(), tmp_path)
    with pytest.raises(BenchError, match="does not contain the weights of this LlamaForCausalLM"):
        FULL.load(tiny(), tmp_path / "nowhere")
    config = tiny().config
    config.num_hidden_layers = 3
    with pytest.raises(BenchError, match=r"missing \['model.layers.2"):
        FULL.load(LlamaForCausalLM(config), tmp_path)
    config.num_hidden_layers = 1
    with pytest.raises(BenchError, match=r"not part of it \['model.layers.1"):
        FULL.load(LlamaForCausalLM(config), tmp_path)
    config.hidden_size = 32
    with pytest.raises(BenchError, match="size mismatch"):
        FULL.load(LlamaForCausalLM(config), tmp_path)


def test_merging_changes_nothing(tiny: Any) -> None:
    for method in (FULL, NoFineTuning.from_settings({})):
        model = method.adapt(tiny(), seed=0)
        assert method.merge(model) is model


def test_base_trains_nothing_and_saves_nothing(tiny: Any, tmp_path: Path) -> None:
    method = NoFineTuning.from_settings({})
    model = method.adapt(tiny(), seed=0)
    assert not any(value.requires_grad for value in model.parameters())
    method.save(model, tmp_path / "adapter")
    assert list((tmp_path / "adapter").iterdir()) == []
