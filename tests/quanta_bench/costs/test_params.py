"""One method on one model without weights: size, optimizer, work for each token, rank."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from baselines.lora import Lora
from baselines.quanta.method import Quanta
from quanta_bench.costs import params
from quanta_bench.costs.params import describe, group_ranks, multiply_adds
from quanta_bench.errors import BenchError, UsageError


def test_lora_by_hand() -> None:
    found = describe("llama2-7b", "lora", {"r": 8})
    assert found.trainable == found.added == 64 * 8 * (4096 + 4096)
    assert found.optimizer_bytes == found.trainable * 2 * 4
    # Two products of r x in and out x r for each token: r (in + out).
    assert found.multiply_adds == 64 * 8 * (4096 + 4096)
    assert found.percent_of_base == pytest.approx(100 * 4_194_304 / 6_738_415_616)


def test_a_classification_head_is_counted_and_told_apart() -> None:
    """RoBERTa's LoRA row of the QuanTA paper's Table F.7: 0.71% with the head."""
    found = describe("roberta-base", "lora", {"r": 8, "target_modules": ["query", "value"]})
    assert found.head == (768 * 768 + 768) + (768 * 2 + 2)
    assert found.trainable - found.head == 12 * 2 * 8 * (768 + 768)
    assert f"{found.percent_of_base:.2f}" == "0.71"
    assert describe("roberta-base", "none", {}).head == 0
    assert describe("smollm2-135m", "full", {}).head == 0


def test_quantas_work_is_the_papers() -> None:
    """d times the sum of dm dn, for T and for S (Section 6)."""
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, vocab_size=97,
    )  # fmt: skip
    # Without weights, as `describe` counts: with them, a plan may merge gates.
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
    before = multiply_adds(model, 10)
    adapted = Quanta.from_settings({"dims": (4, 4, 4)}).adapt(model, 0)
    pairs = 3 * 4 * 4
    assert multiply_adds(adapted, 10) - before == 2 * 10 * 4 * 64 * pairs


def test_default_layers_go_by_the_names_that_a_model_has() -> None:
    found = describe("gpt2", "lora", {"r": 4})
    assert found.settings["target_modules"] == ["c_attn"]
    assert found.trainable == 12 * 4 * (768 + 3 * 768)
    assert found.tokens == 512


def test_a_padding_token_takes_no_positions(tiny_model: Path, tmp_path: Path) -> None:
    """Only models with a table of positions number them after the padding token."""
    config = json.loads((tiny_model / "config.json").read_text())
    config |= {"pad_token_id": 250, "max_position_embeddings": 256}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert describe(f"local:{tmp_path}", "lora", {"r": 2}).tokens == 256


def test_full_fine_tuning_adds_no_work() -> None:
    assert describe("smollm2-135m", "full", {}).multiply_adds == 0


def test_work_is_the_same_with_and_without_weights() -> None:
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=97,
    )  # fmt: skip
    found = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = LlamaForCausalLM(config).eval()
        base = multiply_adds(model, 7)
        found.append(multiply_adds(Lora.from_settings({"r": 3}).adapt(model, 0), 7) - base)
    # q_proj is 32 to 32, v_proj 32 to 16.
    assert found == 2 * [7 * 3 * (32 + 32 + 32 + 16)]


def test_ranks_are_grouped_by_module_and_bounds() -> None:
    bounds = {"T": (4096, 4096), "update": (0, 4096)}
    narrow = {"update": (0, 1024)}
    ranks = {"layers.0.q": bounds, "layers.1.q": bounds, "layers.0.v": narrow}
    found = [(r.module, r.modules, r.of, r.least, r.most) for r in group_ranks(ranks)]
    assert found == [
        ("q", 2, "T", 4096, 4096),
        ("q", 2, "update", 0, 4096),
        ("v", 1, "update", 0, 1024),
    ]


def test_it_is_drawn_with_a_line_for_each_kind_of_module() -> None:
    found = describe("llama2-7b", "quanta", {"dims": [16, 8, 8, 4]})
    console = Console(width=150)
    with console.capture() as drawn:
        console.print(params.on_screen(found))
    text = drawn.get()
    assert "q_proj (32 layers): T 4096..4096, update 0..4096" in text
    assert "2,752,512 parameters" in text
    assert "21.0 MiB" in text


def test_a_folders_configuration_is_enough(tiny_model: Path, tmp_path: Path) -> None:
    config = (tiny_model / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    found = describe(f"local:{tmp_path}", "lora", {"r": 2})
    assert found.base == sum(
        value.numel() for value in LlamaForCausalLM.from_pretrained(tiny_model).parameters()
    )
    assert found.trainable == 2 * 2 * (64 + 64 + 64 + 32)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "config.json is missing"),
        ("{", "is not a configuration"),
        ("[]", "holds no JSON object"),
        ({"model_type": "none_such"}, "of the type 'none_such'"),
        ({"model_type": "none_such", "auto_map": {"AutoModel": "evil.py"}}, "is never run"),
        ({"model_type": "clip"}, "no causal language model of type 'clip'"),
    ],
)
def test_a_folder_without_a_usable_configuration(tmp_path: Path, config: object, said: str) -> None:
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(BenchError, match=said):
        describe(f"local:{tmp_path}", "lora", {})


def test_code_beside_a_configuration_is_not_run(tiny_model: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.EvilConfig"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert describe(f"local:{tmp_path}", "lora", {}).trainable
    assert not (tmp_path / "ran").exists()


def test_unknown_words() -> None:
    with pytest.raises(UsageError, match="Did you mean 'lora'"):
        describe("gpt2", "loar", {})
    with pytest.raises(UsageError, match="no setting 'rank'"):
        describe("gpt2", "lora", {"rank": 2})
