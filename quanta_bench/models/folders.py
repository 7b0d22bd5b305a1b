"""Validate a model's folder: safetensors weights, only files inside it, and no code.

A folder from elsewhere is data. Whatever would make ``transformers`` load anything but the
fingerprinted files is refused here, before a library reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from quanta_bench.errors import SourceError
from quanta_bench.utils.json_text import parse_json

CONTENT = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template.jinja",
)
"""The files that make up a model. Other files are neither downloaded nor hashed."""

IMPLEMENTATIONS = frozenset({"eager", "sdpa", "flex_attention", "batched_mm", "grouped_mm"})
"""Names of implementations that are part of ``transformers`` and torch themselves. Others are
downloaded as compiled code from the hub."""


QUANTIZATIONS = ("bitsandbytes", "torchao", "gptq", "awq", "compressed-tensors")
"""Quantisations whose code is an installed package's."""

SIZES = frozenset(
    {
        *("hidden_size", "n_embd", "d_model", "intermediate_size", "vocab_size"),
        *("num_attention_heads", "n_head", "max_position_embeddings", "n_positions"),
    }
)
LAYERS = frozenset({"num_hidden_layers", "n_layer", "n_layers", "num_layers"})
MOST_LAYERS = 1_000
"""Keys of sizes, of numbers of layers, and the most layers: each is built before it is compared
with the weights."""

MAY_BE_INFINITE = frozenset({"time_step_limit"})
"""Keys whose values are infinite in published models."""

TOKENIZER_FILES = frozenset({"tokenizer_file", "vocab_file", "merges_file", "spm_file"})
"""Keys of ``tokenizer_config.json`` by which transformers would read another file."""


def content_files(folder: Path) -> set[Path]:
    """The files that make up a model."""
    return {path for pattern in CONTENT for path in folder.glob(pattern) if path.is_file()}


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be loaded from its own files alone.

    Raises:
        SourceError: weights are absent or pickled, lie elsewhere, or are an adapter's; or the
            configuration is damaged, or asks for code that ``transformers`` does not have.
    """
    _refuse_pickles(folder)
    config = read_configuration(folder / "config.json")
    _refuse_code(folder, config)
    _refuse_quantizations(folder / "config.json", config)
    _refuse_generation(folder)
    _refuse_other_files(folder, config)


def read_configuration(path: Path) -> dict[str, Any]:
    """What a model's ``config.json`` says; a model is made of no other reading of it.

    Raises:
        SourceError: it is damaged, or names an implementation that would be downloaded as code.
    """
    config = read_json(path)
    _refuse_implementations(path, config)
    _refuse_numbers(path, config)
    return config


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        SourceError: the file cannot be read or holds no JSON object.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} is not a configuration: {error}.") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} is not a configuration: it holds no JSON object.")
    return content


def _refuse_pickles(folder: Path) -> None:
    if any(folder.glob("model*.safetensors")):
        return
    if (folder / "adapter_config.json").is_file():
        raise SourceError(
            f"{folder} holds an adapter and not a model. Merge it into its base and save that."
        )
    pickles = sorted(
        path.name
        for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt")
        for path in folder.glob(pattern)
    )
    if pickles:
        raise SourceError(
            f"{folder} holds its weights as pickles ({pickles[0]}), and unpickling can run foreign "
            "code. Only safetensors are read: save the model again with `save_pretrained`."
        )
    raise SourceError(f"{folder} holds no weights: no model*.safetensors is there.")


def _refuse_code(folder: Path, config: dict[str, Any]) -> None:
    from transformers import CONFIG_MAPPING

    kind = str(config.get("model_type"))
    # Where transformers has the architecture itself, the folder's own code is not needed.
    if config.get("auto_map") and kind not in CONFIG_MAPPING:
        raise SourceError(
            f"The model in {folder} needs Python code of its own (auto_map in config.json), which "
            f"is never run. Use a model whose type transformers knows; it does not know {kind!r}."
        )


def _refuse_implementations(path: Path, config: dict[str, Any]) -> None:
    for key, value in _items(config):
        if "_implementation" not in key:
            continue
        for name in value.values() if isinstance(value, dict) else [value]:
            if name is not None and not (isinstance(name, str) and name in IMPLEMENTATIONS):
                raise SourceError(
                    f"{path} names {name!r} as its {key.strip('_')}, which would be downloaded as "
                    "compiled code. A model's folder does not choose code: remove the key."
                )


def _refuse_numbers(path: Path, config: dict[str, Any]) -> None:
    """Refuse sizes that no model has, which would be built before they are compared with weights.

    Raises:
        SourceError: a number is NaN, infinite or of more than 64 bits, or a size is not positive
            or beyond `MOST_LAYERS`.
    """
    for key, value in _items(config):
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            size = key in SIZES or key in LAYERS
            reason = ""
            if number != number or (abs(number) >= 2**63 and key not in MAY_BE_INFINITE):
                reason = "no finite number of 64 bits"
            elif size and number <= 0:
                reason = "not positive"
            elif key in LAYERS and number > MOST_LAYERS:
                reason = f"more than {MOST_LAYERS}"
            if reason:
                raise SourceError(f"{path} is damaged: {key} is {number}, which is {reason}.")


def _refuse_quantizations(path: Path, config: dict[str, Any]) -> None:
    for key, value in _items(config):
        if key == "quantization_config" and value is not None:
            method = value.get("quant_method") if isinstance(value, dict) else value
            if not (isinstance(method, str) and method in QUANTIZATIONS):
                raise SourceError(
                    f"{path} names the quantisation {method!r}; supported are "
                    f"{', '.join(QUANTIZATIONS)}. Others download their code from the hub, or are "
                    "not known."
                )


def _refuse_generation(folder: Path) -> None:
    path = folder / "generation_config.json"
    if not path.is_file():
        return
    ends = read_json(path).get("eos_token_id")
    for token in ends if isinstance(ends, list) else [ends]:
        if token is not None and (isinstance(token, bool) or not isinstance(token, int)):
            raise SourceError(f"{path}: eos_token_id is {token!r}; a token is an integer.")


def _items(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys and values of a configuration and of nested ones."""
    for key, value in config.items():
        yield key, value
        if isinstance(value, dict):
            yield from _items(value)


def _refuse_other_files(folder: Path, config: dict[str, Any]) -> None:
    """Refuse names of weight and tokenizer files that are not fingerprinted."""
    if (folder / "adapter_config.json").is_file():
        raise SourceError(
            f"{folder} holds an adapter beside the model, and transformers would load the base of "
            "that in its place. Move adapter_config.json elsewhere."
        )
    named: dict[str, list[Any]] = {"config.json": [config.get("transformers_weights")]}
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():
        weights = read_json(index).get("weight_map")
        if not isinstance(weights, dict):
            raise SourceError(f"{index} has no weight_map.")
        named[index.name] = list(weights.values())
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file():
        content = read_json(tokenizer)
        # transformers reads the tokenizer from what a key such as tokenizer_file names.
        named[tokenizer.name] = [
            *(content.get("fast_tokenizer_files") or ()),
            *(name for key, name in content.items() if key in TOKENIZER_FILES),
        ]
    for source, names in named.items():
        for name in names:
            if name is not None and not _is_content(folder, name):
                raise SourceError(
                    f"{folder / source} names {name!r}, which is not one of the model's own files "
                    f"({', '.join(sorted(path.name for path in content_files(folder))[:6])}, ...)."
                )


def _is_content(folder: Path, name: Any) -> bool:
    plain = isinstance(name, str) and name == Path(name).name and "\\" not in name
    return (
        plain and any(fnmatch(name, pattern) for pattern in CONTENT) and (folder / name).is_file()
    )
