"""Model folders with something wrong in them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bad_inputs.cases import Case, Material, edit_json

NAN, INF = float("nan"), float("inf")
NUMBERS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "vocab_size", "max_position_embeddings"),
)
JUNK: tuple[Any, ...] = (0, -1, 1.5, NAN, INF, "x", [], {}, True, 10**9, 10**30)
REFUSED = (1, 2)


def cases(made: Material) -> Iterator[Case]:
    """Every kind of bad model folder, given to ``run`` and, where it reads them, ``params``."""
    for number, (name, spoil) in enumerate(_spoilt()):
        folder = made.model_copy(f"m{number}")
        spoil(folder)
        words = (
            *("run", "--method", "none", "--task", f"file:{made.data}"),
            *("--model", f"local:{folder}", "--results", f"{made.root / 'results'}"),
        )
        yield Case(f"model: {name}", words, REFUSED)
    for number, (name, changes) in enumerate(_configurations()):
        folder = made.root / "models" / f"c{number}"
        folder.mkdir(parents=True)
        content = json.loads((made.model / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(content | changes), encoding="utf-8")
        words = ("params", "--method", "lora", "--model", f"local:{folder}")
        yield Case(f"params: {name}", words, REFUSED)


def _configurations() -> Iterator[tuple[str, dict[str, Any]]]:
    for key in NUMBERS:
        for junk in JUNK:
            if key == "max_position_embeddings" or (junk == 10**9 and key != "num_hidden_layers"):
                continue  # no weights depend on it
            yield f"{key} is {junk}", {key: junk}
    for key, values in _FIELDS.items():
        for junk in values:
            yield f"{key} is {str(junk)[:30]}", {key: junk}


_FIELDS: dict[str, tuple[Any, ...]] = {
    "model_type": ("nothing-such", 5, None, [], "../llama", "t5", "bert", "clip"),
    "_attn_implementation": ("evil/kernel", "flash_attention_2", 5, ["sdpa"], {"": "evil/kernel"}),
    "attn_implementation": ("evil/kernel", "evil/kernel:function", "kernels-community/x"),
    "experts_implementation": ("evil/kernel",),
    "_attn_implementation_internal": ("evil/kernel",),
    "text_config": ({"_attn_implementation": "evil/kernel"},),
    "hidden_act": ("evil", 5, []),
    "rope_parameters": ({"rope_type": "evil"}, "x", {"rope_theta": INF}),
}


def _spoilt() -> Iterator[tuple[str, Any]]:
    for name, changes in _configurations():
        yield name, lambda folder, changes=changes: edit_json(folder / "config.json", changes)
    for key, values in _LOADED.items():
        for junk in values:
            yield (
                f"{key} is {str(junk)[:30]}",
                lambda folder, c={key: junk}: edit_json(folder / "config.json", c),
            )
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        for text in (
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff\xfe",
            b"[" * 200_000,
            b"9" * 5000,
            b"\0" * 100,
        ):
            if file == "tokenizer_config.json" and text in (b"",):
                continue
            yield f"{file} holds {text[:4]!r}", lambda f, n=file, t=text: (f / n).write_bytes(t)
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        yield f"no {file}", lambda folder, n=file: (folder / n).unlink()
        yield f"{file} is a folder", lambda folder, n=file: _made_folder(folder / n)
        yield f"{file} is a link to itself", lambda folder, n=file: _made_loop(folder / n)
    for share in (0.1, 0.5, 0.99):
        yield (
            f"weights cut at {share}",
            lambda folder, s=share: _cut(folder / "model.safetensors", s),
        )
    for name, header in _HEADERS.items():
        yield name, lambda folder, h=header: _with_header(folder / "model.safetensors", h)
    for target in (
        "../../model/model.safetensors",
        "/etc/passwd",
        "x/../model.safetensors",
        "",
        5,
        None,
        "model.bin",
        "model-1.safetensors",
        "\0",
        "x" * 300,
    ):
        yield f"weights in {str(target)[:20]!a}", lambda folder, t=target: _indexed(folder, t)
    yield "an index without a map", lambda folder: _index(folder, {})
    yield "an index with a list", lambda folder: _index(folder, {"weight_map": []})
    yield "an index of nothing", lambda folder: _index(folder, {"weight_map": {}})
    yield "a pickle", lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin")
    yield "an adapter beside it", lambda f: (f / "adapter_config.json").write_text("{}")
    for layers in (1, 3):
        yield (
            f"weights of 2 layers, configuration of {layers}",
            lambda folder, n=layers: edit_json(folder / "config.json", {"num_hidden_layers": n}),
        )
    yield (
        "untied weights that are not there",
        lambda folder: edit_json(folder / "config.json", {"tie_word_embeddings": False}),
    )
    for key, junk in (
        ("tokenizer_class", 5),
        ("tokenizer_file", "/etc/passwd"),
        ("vocab_file", "../vocab.json"),
        ("fast_tokenizer_files", ["../../x.json"]),
        ("eos_token", 5),
        ("pad_token", [1]),
        ("model_max_length", "long"),
        ("bos_token", {"content": 5}),
    ):
        yield (
            f"tokenizer: {key} is {junk}",
            lambda folder, k=key, j=junk: edit_json(folder / "tokenizer_config.json", {k: j}),
        )
    yield "a tokenizer of more tokens than the model", _larger_tokenizer
    for text in (
        "{",
        "[]",
        '{"eos_token_id": "x"}',
        '{"eos_token_id": [1.5]}',
        '{"eos_token_id": true}',
        "9" * 5000,
    ):
        yield (
            f"generation_config.json holds {text[:30]}",
            lambda folder, t=text: (folder / "generation_config.json").write_text(t),
        )


_LOADED: dict[str, tuple[Any, ...]] = {
    "quantization_config": (
        {"quant_method": "evil"},
        {"quant_method": 5},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq"},
        {"quant_method": "bitsandbytes", "load_in_4bit": "yes"},
        "x",
        [],
    ),
    "transformers_weights": ("../x.safetensors", "/etc/passwd", 5),
    "dtype": ("evil", "float99", "os"),
    "max_position_embeddings": (0, -1, "x", 1.5, True, [], NAN, 10**30),
    "eos_token_id": ("x", 1.5, [[1]]),
    "rms_norm_eps": ("x", NAN, []),
    "is_encoder_decoder": (True,),
}
_HEADERS: dict[str, Any] = {
    "a header of another length": b"\xff" * 8,
    "a header without tensors": {},
    "a tensor outside the file": {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 10**12]}},
    "a tensor of negative size": {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    "a tensor of no type": {"a": {"dtype": "EVIL", "shape": [1], "data_offsets": [0, 4]}},
    "a header that is a list": [],
}


def _made_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _made_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def _with_header(path: Path, header: Any) -> None:
    if isinstance(header, bytes):
        path.write_bytes(header + path.read_bytes()[8:])
        return
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 64)


def _index(folder: Path, content: Any) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")


def _indexed(folder: Path, target: Any) -> None:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
    own = dict.fromkeys(names, "model-00001-of-00001.safetensors")
    _index(folder, {"metadata": {}, "weight_map": {**own, names[0]: target}})


def _larger_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary.update({f"<more{n}>": len(vocabulary) + n for n in range(50)})
    path.write_text(json.dumps(content), encoding="utf-8")
