"""Load base models and tokenizers from any source: safetensors only, no foreign code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quanta_bench.errors import SourceError, UsageError, did_you_mean
from quanta_bench.models import embedded
from quanta_bench.models.folders import CONTENT, check_folder, content_files, read_configuration
from quanta_bench.models.special_tokens import set_pad_token
from quanta_bench.sources.names import hub_failure, inside, read_words
from quanta_bench.spec import Quantization
from quanta_bench.utils.fingerprint import files_digest
from quanta_bench.utils.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch


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
    """A base model in memory, not shared.

    Attributes:
        model: the model, in evaluation mode.
        tokenizer: its tokenizer, with a padding token.
        description: the model's description for captions.
        base_parameters: number of parameters, tied ones counted once.
    """

    model: Any
    tokenizer: Any
    description: str
    base_parameters: int


def load_model(
    ref: ModelRef,
    dtype: torch.dtype,
    *,
    attn_implementation: str | None = None,
    quantization: Quantization = "none",
) -> LoadedModel:
    """Load a base model; each call returns an independent copy.

    Args:
        ref: which model.
        dtype: of its weights.
        attn_implementation: a name known to ``transformers``; by default its choice for the model,
            with ``sdpa`` replaced by :mod:`quanta_bench.models.attention`.
        quantization: of its linear layers; a model with any lies where this machine computes.

    Raises:
        UsageError: the source has no model of that name, or it cannot be quantised.
        SourceError: the model does not exist, does not match its configuration, is stored as
            pickles, needs its own code, or is not a causal language model.
    """
    from transformers import AutoModelForCausalLM

    from quanta_bench.models.capabilities import why_not_causal
    from quanta_bench.models.quantised import why_not_causal as quantised_why_not_causal
    from quanta_bench.models.rope import use_own_lengths

    folder = _folder(ref)
    _refuse_encoder_decoder(folder)
    model, report = _weights(
        ref,
        folder,
        AutoModelForCausalLM,
        dtype=dtype,
        attn_implementation=attn_implementation,
        **_quantized(quantization, dtype),
    )
    _refuse_missing(folder, report.missing, "a causal language model")
    _refuse_unused(folder, report.unused)
    if quantization != "none":
        _check_quantized(model)
    use_own_lengths(model)
    if attn_implementation is None:
        _use_own_attention(model)
    reason = why_not_causal(model)
    if reason is not None and (quantised := quantised_why_not_causal(model)):
        raise SourceError(
            f"The predictions of the model in {folder} cannot be scored: {quantised}."
        )
    if reason is not None:
        raise SourceError(
            f"The model in {folder}, a {type(model).__name__}, is not a causal language model: "
            f"{reason}. An encoder can be fine-tuned with a classification head (protocol head)."
        )
    return _loaded(ref, folder, model)


def load_classifier(ref: ModelRef, dtype: torch.dtype, *, outputs: int, seed: int) -> LoadedModel:
    """Load a pretrained model with a new classification head; each call returns a new copy.

    The head is float32 and initialised from the seed, even if the checkpoint has one. The
    tokenizer's ``model_max_length`` is bounded by the model's number of positions.

    Args:
        ref: which model; an encoder, or any other that `transformers` can put a head on.
        dtype: of its pretrained weights.
        outputs: number of outputs of the head.
        seed: seed of the head's initialisation.

    Raises:
        UsageError, SourceError: see :func:`load_model`.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    from quanta_bench.models.capabilities import positions
    from quanta_bench.models.heads import head_of, start_head
    from quanta_bench.models.rope import use_own_lengths

    folder = _folder(ref)
    with torch.random.fork_rng(devices=[]):  # transformers first initialises the head at random
        model, report = _weights(
            ref,
            folder,
            AutoModelForSequenceClassification,
            dtype=dtype,
            num_labels=outputs,
            ignore_mismatched_sizes=True,
        )
    head = head_of(model)
    _refuse_missing(folder, [name for name in report.missing if name not in head], "an encoder")
    # A checkpoint of a masked language model has another head, which is not needed.
    _refuse_unused(folder, [name for name in report.unused if _is_in_body(model, name)])
    start_head(model, seed)
    use_own_lengths(model)
    _use_own_attention(model)
    loaded = _loaded(ref, folder, model)
    # A decoder reads its answer at the last token that is not padding.
    model.config.get_text_config().pad_token_id = loaded.tokenizer.pad_token_id
    model.config.pad_token_id = loaded.tokenizer.pad_token_id
    longest = positions(model)
    if longest is not None:
        loaded.tokenizer.model_max_length = min(loaded.tokenizer.model_max_length, longest)
    return loaded


def _quantized(quantization: Quantization, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for a quantisation.

    Raises:
        UsageError: bitsandbytes is not installed.
    """
    if quantization == "none":
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UsageError(
            f"training.quantization={quantization} needs the package bitsandbytes, which is not "
            "installed: pip install 'quanta-bench[gpu]', or set training.quantization=none."
        )
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_compute_dtype=dtype,
        # Floating-point storage can be spread over devices (quanta_bench.models.sharding).
        bnb_4bit_quant_storage=dtype,
    )
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": device}}


QUANTIZED_TOGETHER = 64
"""Weights that share a scale; bitsandbytes computes only with rows that are multiples of it."""


def _check_quantized(model: Any) -> None:
    """Refuse a quantised model whose rows do not divide into blocks.

    Raises:
        UsageError: names a layer.
    """
    for name, layer in model.named_modules():
        if hasattr(getattr(layer, "weight", None), "quant_state"):
            width = layer.in_features
            if width % QUANTIZED_TOGETHER:
                raise UsageError(
                    f"training.quantization needs layers whose width is a multiple of "
                    f"{QUANTIZED_TOGETHER}, and {name} has {width}: set training.quantization=none."
                )


@dataclass(frozen=True)
class _Report:
    """How a checkpoint differs from a model of its configuration.

    Attributes:
        missing: tensors of the model that the checkpoint lacks or has in another shape.
        unused: tensors of the checkpoint that the model does not have.
    """

    missing: list[str]
    unused: list[str]


def _weights(ref: ModelRef, folder: Path, kind: Any, **options: Any) -> tuple[Any, _Report]:
    """A model in evaluation mode, and how its checkpoint differs from it."""
    from quanta_bench.models.quantised import keep_trainable

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
        except MemoryError:
            raise
        except Exception as error:  # a configuration's own checks raise what they like
            raise _unreadable(ref, folder, "model", error) from error
    model, report = loaded
    other = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    missing = sorted(report["missing_keys"]) + sorted(other)
    keep_trainable(model)
    return model.eval(), _Report(missing, sorted(report["unexpected_keys"]))


def _use_own_attention(model: Any) -> None:
    from quanta_bench.models.attention import use_kept_probabilities

    with quiet_libraries():  # transformers warns of architectures that cannot change theirs
        use_kept_probabilities(model)


def _refuse_missing(folder: Path, missing: Sequence[str], what: str) -> None:
    """Refuse a checkpoint that lacks weights, which transformers would initialise at random.

    Raises:
        SourceError: a tensor is missing.
    """
    if missing:
        raise SourceError(
            f"The weights in {folder} lack {len(missing)} tensors of {what} with its "
            f"config.json, such as {missing[0]}. Use a complete checkpoint."
        )


def _refuse_unused(folder: Path, unused: Sequence[str]) -> None:
    """Refuse a checkpoint with tensors that the model lacks: it belongs to another configuration,
    for example one with more layers.

    Raises:
        SourceError: a tensor is unused.
    """
    if unused:
        raise SourceError(
            f"The weights in {folder} hold {len(unused)} tensors that a model with its "
            f"config.json does not have, such as {unused[0]}. The weights belong to another model."
        )


def _is_in_body(model: Any, name: str) -> bool:
    """Whether a checkpoint's tensor belongs, by its name, to the model's pretrained body."""
    prefix = f"{model.base_model_prefix}."
    first = name.removeprefix(prefix).partition(".")[0]
    return first in dict(model.base_model.named_children())


def _refuse_encoder_decoder(folder: Path) -> None:
    """Refuse an encoder-decoder checkpoint: its decoder alone would be half a model.

    Raises:
        SourceError: the checkpoint is an encoder-decoder.
    """
    config = read_configuration(folder / "config.json")
    kind = str(config.get("model_type"))
    flag = config.get("is_encoder_decoder")
    if flag is None:
        from transformers import CONFIG_MAPPING

        flag = kind in CONFIG_MAPPING and getattr(CONFIG_MAPPING[kind], "is_encoder_decoder", False)
    if flag is True:
        raise SourceError(
            f"The model in {folder} is an encoder-decoder (type {kind!r}). Only decoder-only "
            "(causal) language models are supported."
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
            f"The tokenizer in {folder} has {len(tokenizer)} tokens, but the model's embedding "
            f"only {rows}. The tokenizer belongs to another model."
        )
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        description=describe_model(ref),
        base_parameters=model.num_parameters(),  # several of 4 bits are one element
    )


def load_tokenizer(ref: ModelRef) -> Any:
    """Load the tokenizer of a base model, with a padding token.

    Raises:
        UsageError, SourceError: see :func:`load_model`.
    """
    return _tokenizer(ref, _folder(ref))


def model_fingerprint(ref: ModelRef) -> str:
    """Content hash of a base model, without loading it.

    Raises:
        UsageError, SourceError: see :func:`load_model`.
    """
    if read_words(ref.source)[0] == "embedded":
        _check_embedded(ref)
        return embedded.fingerprint()
    return _fingerprint(ref, _folder(ref))


def unchecked_fingerprint(ref: ModelRef) -> str:
    """Content hash of a base model, whether or not its folder could be loaded.

    That of `model_fingerprint`, which checks the folder first, by `transformers`.

    Raises:
        UsageError, SourceError: there is no such model.
        OSError: a file cannot be read.
    """
    if read_words(ref.source)[0] == "embedded":
        return model_fingerprint(ref)
    return _fingerprint(ref, _find(ref))


def describe_model(ref: ModelRef) -> str:
    """A description of a model for captions."""
    kind, folder = read_words(ref.source)
    if kind == "embedded":
        return embedded.DESCRIPTION
    if kind == "hub":
        return ref.name if ref.revision == "main" else f"{ref.name} at {ref.revision}"
    return f"{folder.resolve().name if ref.name == '.' else ref.name} (local folder)"


def _folder(ref: ModelRef) -> Path:
    """A model's folder, downloaded or converted if necessary, and checked to be safe to load."""
    if read_words(ref.source)[0] == "embedded":
        _check_embedded(ref)
        return embedded.model_folder()
    folder = _find(ref)
    check_folder(folder)
    return folder


def _find(ref: ModelRef) -> Path:
    """The folder of a model that is not embedded, downloaded if necessary."""
    kind, root = read_words(ref.source)
    folder = _snapshot(ref) if kind == "hub" else inside(root, ref.name)
    if not (folder / "config.json").is_file():
        known = sorted(path.parent.name for path in root.glob("*/config.json"))
        raise SourceError(
            f"There is no model {ref.name!r} in {ref.source}: {folder}/config.json is missing."
            + (f" {did_you_mean(ref.name, known)}" if kind == "local" and known else "")
        )
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
        # The client raises many types of error; all mean that a file is missing.
        return False
    return True


def _download(ref: ModelRef, *, local_files_only: bool = False) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            ref.name,
            revision=ref.revision,
            allow_patterns=list(CONTENT),
            # The patterns' * also matches slashes; this skips copies in subfolders.
            ignore_patterns=["*/*"],
            local_files_only=local_files_only,
        )
    )


def _snapshot(ref: ModelRef) -> Path:
    try:
        return _download(ref)
    except Exception as error:
        # The client raises errors from several HTTP libraries; all mean the same to the user.
        raise hub_failure(f"The model {ref.name!r} (revision {ref.revision})", error) from error


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
    set_pad_token(tokenizer)
    return tokenizer


def _fingerprint(ref: ModelRef, folder: Path) -> str:
    if read_words(ref.source)[0] == "embedded":
        return embedded.fingerprint()
    return files_digest(folder, content_files(folder))


def _unreadable(ref: ModelRef, folder: Path, what: str, error: Exception) -> SourceError:
    reason = " ".join(str(error).split())[:300]
    return SourceError(
        f"The {what} {ref.name!r} in {folder} cannot be loaded: {type(error).__name__}: {reason}"
    )
