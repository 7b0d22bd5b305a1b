from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_architectures import tiny_config
from tiny_models import tiny_llama

from quanta_bench.errors import SourceError, UsageError
from quanta_bench.models import attention
from quanta_bench.models.loading import (
    ModelRef,
    load_classifier,
    load_model,
    load_tokenizer,
    model_fingerprint,
)
from quanta_bench.models.meta import layers_of, meta_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a tiny LLaMA with random weights, called ``tiny``."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny"
    words = {word: place for place, word in enumerate(["<unk>", "</s>", "one", "two", "three"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    tiny_llama(vocab_size=8, hidden_size=16, intermediate_size=32).save_pretrained(folder)
    return folder.parent


@pytest.fixture
def models(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "models"))


def tiny(models: Path, name: str = "tiny") -> ModelRef:
    return ModelRef(name, f"local:{models}")


def edit(models: Path, **changes: Any) -> None:
    file = models / "tiny" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_local_model_loads_in_either_dtype(models: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        loaded = load_model(tiny(models), dtype)
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {dtype}
        assert not loaded.model.training
        assert loaded.model.config._attn_implementation == attention.NAME
    assert loaded.base_parameters == sum(p.numel() for p in loaded.model.parameters())
    assert loaded.description == "tiny (local folder)"
    eager = load_model(tiny(models), torch.float32, attn_implementation="eager")
    assert eager.model.config._attn_implementation == "eager"


def test_a_folder_that_is_the_model_is_named_by_a_dot(models: Path) -> None:
    loaded = load_model(tiny(models / "tiny", "."), torch.float32)
    assert loaded.description == "tiny (local folder)"


def test_a_tokenizer_without_padding_token_gets_one(models: Path) -> None:
    tokenizer = load_tokenizer(tiny(models))
    assert tokenizer.pad_token == "<unk>"
    assert tokenizer(["one", "one two"], padding=True)["attention_mask"][0].count(1) == 1


def test_the_fingerprint_follows_content_not_other_files_or_place(
    models: Path, tmp_path: Path
) -> None:
    first = model_fingerprint(tiny(models))
    (models / "tiny" / "README.md").write_text("hello")
    (models / "tiny" / "trainer_state.json").write_text("{}")
    shutil.copytree(models, tmp_path / "elsewhere")
    assert model_fingerprint(tiny(tmp_path / "elsewhere")) == first
    edit(models, rms_norm_eps=0.5)
    assert model_fingerprint(tiny(models)) != first


def test_pickles_are_refused(models: Path) -> None:
    weights = models / "tiny" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    for use in (model_fingerprint, load_tokenizer, lambda ref: load_model(ref, torch.float32)):
        with pytest.raises(SourceError, match=r"pickles \(pytorch_model.bin\)"):
            use(tiny(models))
    (models / "tiny" / "pytorch_model.bin").unlink()
    with pytest.raises(SourceError, match="holds no weights"):
        model_fingerprint(tiny(models))


def test_code_in_a_folder_never_runs(models: Path) -> None:
    ran = models / "ran"
    code = models / "tiny" / "modeling_own.py"
    code.write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    own = {"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    # transformers has the architecture: its own code serves.
    edit(models, auto_map=own)
    load_model(tiny(models), torch.float32)
    edit(models, model_type="own-thing")
    with pytest.raises(SourceError, match=r"auto_map.*never run.*'own-thing'"):
        load_model(tiny(models), torch.float32)
    assert not ran.exists()


def test_missing_weights_are_not_made_up(models: Path) -> None:
    edit(models, num_hidden_layers=3)
    with pytest.raises(SourceError, match=r"lack 9 tensors.*model\.layers\.2"):
        load_model(tiny(models), torch.float32)


@pytest.mark.parametrize("text", ["{ damaged", "[" * 100_000, '{"hidden_size": ' + "1" * 5000])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_damaged_files_are_named(models: Path, file: str, text: str) -> None:
    (models / "tiny" / file).write_text(text)
    with pytest.raises(SourceError, match="tiny"):
        load_model(tiny(models), torch.float32)


REFUSED: list[dict[str, Any]] = [
    {"num_attention_heads": 5},
    {"num_attention_heads": "four"},
    {"num_attention_heads": 0},
    {"hidden_size": -1},
    {"vocab_size": None},
    {"hidden_act": "none of torch's"},
    {"rope_parameters": {"rope_type": "unknown"}},
    {"rope_parameters": 5},
    {"pad_token_id": 99_999},
    {"text_config": 5},
    {"layer_types": ["a"]},
    {"model_type": ["llama"]},
]


@pytest.mark.parametrize("changes", REFUSED, ids=str)
def test_a_configuration_that_makes_no_model_is_named(
    models: Path, changes: dict[str, Any]
) -> None:
    edit(models, **changes)
    for use in (
        lambda: load_model(tiny(models), torch.float32),
        lambda: meta_model(f"local:{models / 'tiny'}"),
    ):
        with pytest.raises((SourceError, UsageError), match=r"models.tiny"):
            use()


def test_a_tokenizer_of_another_model_is_refused(models: Path) -> None:
    file = models / "tiny" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] |= {f"word{place}": place for place in range(5, 20)}
    file.write_text(json.dumps(content))
    with pytest.raises(SourceError, match="belongs to another model"):
        load_model(tiny(models), torch.float32)


def test_an_absent_model_points_at_the_near_one(models: Path) -> None:
    with pytest.raises(SourceError, match="Did you mean 'tiny'"):
        model_fingerprint(tiny(models, "tinny"))
    with pytest.raises(SourceError, match="points outside"):
        model_fingerprint(tiny(models, "../models/tiny"))


def test_a_hub_model_is_a_folder_like_any_other(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options["revision"]))
        return str(models / "tiny")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    loaded = load_model(ModelRef("owner/tiny", "hub", "abc"), torch.float32)
    assert asked == [("owner/tiny", "abc")]
    assert loaded.description == "owner/tiny at abc"


# --- what a folder may hold and ask for ---------------------------------------------------------


def test_a_checkpoint_with_more_layers_than_its_configuration_is_refused(models: Path) -> None:
    edit(models, num_hidden_layers=1)
    with pytest.raises(SourceError, match=r"hold 9 tensors.*does not have.*model\.layers\.1"):
        load_model(tiny(models), torch.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation": "evil/kernel"},
        {"attn_implementation": "evil/kernel:forward"},
        {"attn_implementation": {"": "sdpa", "text_config": "evil/kernel"}},
        {"text_config": {"_attn_implementation": "evil/kernel"}},
        {"_experts_implementation": "evil/experts"},
        {"attn_implementation": "flash_attention_2"},
    ],
)
def test_a_folder_does_not_choose_code(models: Path, changes: dict[str, Any]) -> None:
    edit(models, **changes)
    for use in (
        model_fingerprint,
        lambda ref: load_model(ref, torch.float32),
        lambda ref: load_classifier(ref, torch.float32, outputs=2, seed=0),
        lambda ref: meta_model(f"local:{models / ref.name}"),
        lambda ref: layers_of(f"local:{models / ref.name}"),
    ):
        with pytest.raises(SourceError, match=r"config\.json names .*does not choose code"):
            use(tiny(models))


def test_a_folder_may_name_what_torch_has(models: Path) -> None:
    edit(models, attn_implementation="eager", _experts_implementation=None)
    assert load_model(tiny(models), torch.float32).base_parameters


def shard(models: Path, **names: str) -> None:
    """Put the tiny model's weights into one shard of an index, with other names for some."""
    from safetensors.torch import load_file

    weights = models / "tiny" / "model.safetensors"
    held = dict.fromkeys(load_file(weights), "model-00001-of-00001.safetensors")
    weights.rename(weights.with_name("model-00001-of-00001.safetensors"))
    index = {"metadata": {}, "weight_map": held | names}
    (models / "tiny" / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_load(models: Path) -> None:
    before = load_model(tiny(models), torch.float32).model.state_dict()
    shard(models)
    after = load_model(tiny(models), torch.float32).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "sub/model-x.safetensors", "other.safetensors", "/x", "..\\x"],
)
def test_shards_lie_in_the_folder_and_are_fingerprinted(models: Path, name: str) -> None:
    shutil.copy(models / "tiny" / "model.safetensors", models / "outside.safetensors")
    shutil.copy(models / "tiny" / "model.safetensors", models / "tiny" / "other.safetensors")
    shard(models, **{"lm_head.weight": name})
    for use in (model_fingerprint, lambda ref: load_model(ref, torch.float32)):
        with pytest.raises(SourceError, match="not one of the model's own files"):
            use(tiny(models))


def test_no_other_file_is_loaded_in_place_of_the_weights(models: Path) -> None:
    other = models / "tiny" / "other.safetensors"
    shutil.copy(models / "tiny" / "model.safetensors", other)
    edit(models, transformers_weights=other.name)
    with pytest.raises(SourceError, match=r"names 'other\.safetensors'"):
        load_model(tiny(models), torch.float32)


def test_an_adapter_beside_the_model_does_not_take_its_place(models: Path) -> None:
    adapter = {"base_model_name_or_path": str(models / "elsewhere"), "peft_type": "LORA"}
    (models / "tiny" / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(SourceError, match="holds an adapter beside the model"):
        load_model(tiny(models), torch.float32)


# --- what is not a causal language model ------------------------------------------------------


def save(models: Path, made: Any) -> None:
    for old in (models / "tiny").glob("model*"):
        old.unlink()
    made.save_pretrained(models / "tiny")


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "xlm-roberta"])
def test_an_encoder_is_no_causal_language_model(models: Path, kind: str) -> None:
    from transformers import AutoModelForMaskedLM

    # With the usual 0.02 a token's effect on the others may be near the probe's tolerance.
    config = tiny_config(kind, initializer_range=0.2)
    save(models, AutoModelForMaskedLM.from_config(config))
    with pytest.raises(SourceError, match=r"it is bidirectional.*protocol head"):
        load_model(tiny(models), torch.float32)


@pytest.mark.parametrize("kind", ["bart", "t5", "pegasus", "marian"])
def test_an_encoder_decoder_is_called_one(models: Path, kind: str) -> None:
    from transformers import AutoModelForSeq2SeqLM

    config = tiny_config(kind, decoder_start_token_id=1)
    save(models, AutoModelForSeq2SeqLM.from_config(config))
    with pytest.raises(SourceError, match=f"is an encoder-decoder .type '{kind}'"):
        load_model(tiny(models), torch.float32)
