"""Base models and their tokenizers, from any source: safetensors only, and no foreign code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quanta_bench.errors import SourceError, UsageError, did_you_mean
from quanta_bench.models import embedded
from quanta_bench.sources.names import hub_failure, inside, read_words
from quanta_bench.utils.fingerprint import files_digest
from quanta_bench.utils.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch

# What a model is made of. Other files of a repository are neither downloaded nor hashed.
_CONTENT = (
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

_LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError)


@dataclass(frozen=True)
class ModelRef:
    """A base model by name and source.

    Attributes:
        name: ``smollm2-135m`` (embedded), a hub name, or a sub-folder of a local folder
            (``.`` for the folder itself).
        source: ``embedded``, ``hub`` or ``local:DIR``.
        revision: a hub revision; other sources have none.
    """

    name: str = embedded.NAME
    source: str = "embedded"
    revision: str = "main"


@dataclass
class LoadedModel:
    """A base model in memory, shared with nobody.

    Attributes:
        model: the model, in evaluation mode.
        tokenizer: its tokenizer, with a padding token.
        description: what the model is, for captions.
        base_parameters: number of parameters, tied ones counted once.
    """

    model: Any
    tokenizer: Any
    description: str
    base_parameters: int


def load_model(
    ref: ModelRef, dtype: torch.dtype, *, attn_implementation: str | None = None
) -> LoadedModel:
    """Load a base model; each call gives an independent one.

    Args:
        ref: which model.
        dtype: of its weights.
        attn_implementation: as ``transformers`` knows it; by default what it takes for the model,
            and where that is ``sdpa``, :mod:`quanta_bench.models.attention`.

    Raises:
        UsageError: the source has no model of that name.
        SourceError: the model is not there, incomplete, held as pickles, or needs code of its own.
    """
    from transformers import AutoModelForCausalLM

    folder = _folder(ref)
    model, absent = _weights(
        ref, folder, AutoModelForCausalLM, dtype=dtype, attn_implementation=attn_implementation
    )
    _refuse_absent(folder, absent, "a causal language model")
    if attn_implementation is None:
        _use_own_attention(model)
    return _loaded(ref, folder, model)


def load_classifier(ref: ModelRef, dtype: torch.dtype, *, outputs: int, seed: int) -> LoadedModel:
    """Load a pretrained model with a new classification head; each call gives an independent one.

    The head is float32 and starts from the seed, also where the checkpoint has one of its own. The
    tokenizer's ``model_max_length`` is at most what the model has positions for.

    Args:
        ref: which model; an encoder, or any other that `transformers` can put a head on.
        dtype: of its pretrained weights.
        outputs: numbers that the head gives.
        seed: of the head's start.

    Raises:
        UsageError, SourceError: as :func:`load_model`.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    from quanta_bench.models.heads import head_of, longest_input, start_head

    folder = _folder(ref)
    with torch.random.fork_rng(devices=[]):  # transformers fills the head first, at random
        model, absent = _weights(
            ref,
            folder,
            AutoModelForSequenceClassification,
            dtype=dtype,
            num_labels=outputs,
            ignore_mismatched_sizes=True,
        )
    head = head_of(model)
    _refuse_absent(folder, [name for name in absent if name not in head], "an encoder")
    start_head(model, seed)
    _use_own_attention(model)
    loaded = _loaded(ref, folder, model)
    # A decoder reads its answer at the last token that is not padding.
    model.config.get_text_config().pad_token_id = loaded.tokenizer.pad_token_id
    model.config.pad_token_id = loaded.tokenizer.pad_token_id
    longest = longest_input(model)
    if longest is not None:
        loaded.tokenizer.model_max_length = min(loaded.tokenizer.model_max_length, longest)
    return loaded


def _weights(ref: ModelRef, folder: Path, kind: Any, **options: Any) -> tuple[Any, list[str]]:
    """A model in evaluation mode, and the names of what its checkpoint does not hold."""
    from safetensors import SafetensorError

    with quiet_libraries():
        try:
            loaded: Any = kind.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
        except (*_LOADING_ERRORS, SafetensorError) as error:
            raise _unreadable(ref, folder, "model", error) from error
    model, report = loaded
    other = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    return model.eval(), sorted(report["missing_keys"]) + sorted(other)


def _use_own_attention(model: Any) -> None:
    from quanta_bench.models.attention import use_kept_probabilities

    with quiet_libraries():  # transformers warns of architectures that cannot change theirs
        use_kept_probabilities(model)


def _refuse_absent(folder: Path, absent: Sequence[str], what: str) -> None:
    """Refuse a checkpoint that lacks weights: transformers fills them at random and only logs it.

    Raises:
        SourceError: something is absent.
    """
    if absent:
        raise SourceError(
            f"The weights in {folder} lack {len(absent)} tensors that {what} of "
            f"its configuration has, first {absent[0]}. Use a complete checkpoint."
        )


def _loaded(ref: ModelRef, folder: Path, model: Any) -> LoadedModel:
    """A model with its tokenizer.

    Raises:
        SourceError: the tokenizer cannot be read, or is another model's.
    """
    tokenizer = _tokenizer(ref, folder)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise SourceError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens, the model only {rows}: "
            "they do not belong together."
        )
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        description=describe_model(ref),
        base_parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def load_tokenizer(ref: ModelRef) -> Any:
    """Load the tokenizer of a base model, with a padding token.

    Raises:
        UsageError, SourceError: as :func:`load_model`.
    """
    return _tokenizer(ref, _folder(ref))


def model_fingerprint(ref: ModelRef) -> str:
    """Content hash of a base model, without loading it.

    Raises:
        UsageError, SourceError: as :func:`load_model`.
    """
    if read_words(ref.source)[0] == "embedded":
        _check_embedded(ref)
        return embedded.fingerprint()
    return _fingerprint(ref, _folder(ref))


def describe_model(ref: ModelRef) -> str:
    """What a model is, for captions."""
    kind, folder = read_words(ref.source)
    if kind == "embedded":
        return embedded.DESCRIPTION
    if kind == "hub":
        return ref.name if ref.revision == "main" else f"{ref.name} at {ref.revision}"
    return f"{folder.resolve().name if ref.name == '.' else ref.name} (local folder)"


def _folder(ref: ModelRef) -> Path:
    """The folder that holds a model, fetched or converted if need be, and safe to load."""
    kind, root = read_words(ref.source)
    if kind == "embedded":
        _check_embedded(ref)
        return embedded.model_folder()
    folder = _snapshot(ref) if kind == "hub" else inside(root, ref.name)
    if not (folder / "config.json").is_file():
        held = sorted(path.parent.name for path in root.glob("*/config.json"))
        raise SourceError(
            f"There is no model {ref.name!r} in {ref.source}: {folder}/config.json is missing."
            + (f" {did_you_mean(ref.name, held)}" if kind == "local" and held else "")
        )
    _refuse_pickles(folder)
    _refuse_code(folder)
    return folder


def _check_embedded(ref: ModelRef) -> None:
    if ref.name != embedded.NAME:
        raise UsageError(
            f"The source embedded has no model {ref.name!r}, only {embedded.NAME!r}; "
            "write hub:NAME or local:DIR for others."
        )


def is_here(ref: ModelRef) -> bool:
    """Whether a model can be read without downloading it. Downloads nothing."""
    kind, _ = read_words(ref.source)
    if kind != "hub":
        return True
    try:
        _download(ref, local_files_only=True)
    except Exception:
        # The client raises errors of several kinds; all say that something is not there.
        return False
    return True


def _download(ref: ModelRef, *, local_files_only: bool = False) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            ref.name,
            revision=ref.revision,
            allow_patterns=list(_CONTENT),
            # The patterns' * also matches slashes: copies in sub-folders are not wanted.
            ignore_patterns=["*/*"],
            local_files_only=local_files_only,
        )
    )


def _snapshot(ref: ModelRef) -> Path:
    try:
        return _download(ref)
    except Exception as error:
        # The client raises errors of several HTTP libraries; all mean the same to the user.
        raise hub_failure(f"The model {ref.name!r} (revision {ref.revision})", error) from error


def _refuse_pickles(folder: Path) -> None:
    if any(folder.glob("model*.safetensors")):
        return
    pickles = sorted(
        path.name for end in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(end)
    )
    if pickles:
        raise SourceError(
            f"{folder} holds its weights as pickles ({pickles[0]}), and unpickling can run foreign "
            "code. Only safetensors are read: save the model again with `save_pretrained`."
        )
    raise SourceError(f"{folder} holds no weights: no model*.safetensors is there.")


def _refuse_code(folder: Path) -> None:
    from transformers import CONFIG_MAPPING

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, code = config.get("model_type"), config.get("auto_map")
    except (ValueError, AttributeError) as error:
        raise SourceError(f"{folder / 'config.json'} is not a configuration: {error}.") from error
    # Where transformers has the architecture itself, the folder's own code is not needed.
    if code and kind not in CONFIG_MAPPING:
        raise SourceError(
            f"The model in {folder} needs Python code of its own (auto_map in config.json), which "
            f"is never run. Use a model whose type transformers knows; it does not know {kind!r}."
        )


def _tokenizer(ref: ModelRef, folder: Path) -> Any:
    from transformers import AutoTokenizer

    with quiet_libraries():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:
            # Tokenizer files are parsed in Rust, which raises bare Exception.
            raise _unreadable(ref, folder, "tokenizer", error) from error
    if tokenizer.pad_token_id is None:
        # Padding is always masked, so any token serves; LLaMA's tokenizers bring none.
        tokenizer.pad_token = (
            tokenizer.unk_token or tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        )
    return tokenizer


def _fingerprint(ref: ModelRef, folder: Path) -> str:
    if read_words(ref.source)[0] == "embedded":
        return embedded.fingerprint()
    files = {path for pattern in _CONTENT for path in folder.glob(pattern) if path.is_file()}
    return files_digest(folder, files)


def _unreadable(ref: ModelRef, folder: Path, what: str, error: Exception) -> SourceError:
    said = " ".join(str(error).split())[:300]
    return SourceError(
        f"The {what} {ref.name!r} in {folder} cannot be loaded: {type(error).__name__}: {said}"
    )
