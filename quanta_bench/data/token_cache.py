"""An on-disk cache of tokenised items, keyed by everything that their token ids depend on.

COMMONSENSE170K takes minutes to tokenise, and every row and seed of a table needs it. The key is
made from content rather than from where it was read: the digest of every prompt, the tokenizer with
its special tokens and its library's version, the length limits, and the source code that makes ids.
A changed template, data file or tokenizer therefore gets a new entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from quanta_bench.data import encoding
from quanta_bench.data.encoding import Encoded, encode
from quanta_bench.models import special_tokens
from quanta_bench.models.special_tokens import opening_tokens
from quanta_bench.spec import canonical
from quanta_bench.task import Example, Prompt
from quanta_bench.utils.cache import cache_folder, keep
from quanta_bench.utils.fingerprint import text_digest

FOLDER = "tokens"
"""Subfolder of the cache that holds the entries; safe to delete at any time."""

MIN_ITEMS = 1000
"""Smallest number of items worth caching: fewer take a fraction of a second to tokenise."""

_ARRAYS = ("gold", "cut", "together", "counts", "sizes", "lengths", "ids")


def encode_all(
    tokenizer: Any,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    *,
    task: int = 0,
    **options: Any,
) -> list[Encoded]:
    """Encode items, or read them from the cache of an earlier call with the same inputs.

    Args:
        tokenizer: a ``transformers`` tokenizer. Only those backed by the ``tokenizers`` library can
            be serialised into a key; others are never cached.
        examples: the items.
        prompts: the prompt of each item.
        task: index of their task in the run's list of tasks.
        options: passed to :func:`quanta_bench.data.encoding.encode`.

    Raises:
        BenchError: raised by :func:`quanta_bench.data.encoding.encode`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if len(examples) < MIN_ITEMS or backend is None:
        return _encode(tokenizer, examples, prompts, task, options)
    path = cache_folder() / FOLDER / f"{_key(tokenizer, examples, prompts, options)}.safetensors"
    cached = _read(path, examples, task)
    if cached is not None:
        return cached
    items = _encode(tokenizer, examples, prompts, task, options)
    _write(path, items)
    return items


def _encode(
    tokenizer: Any,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    task: int,
    options: dict[str, Any],
) -> list[Encoded]:
    return [
        encode(tokenizer, example, prompt, task=task, **options)
        for example, prompt in zip(examples, prompts, strict=True)
    ]


def _key(
    tokenizer: Any,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    options: dict[str, Any],
) -> str:
    from tokenizers import __version__ as tokenizers_version
    from transformers import __version__ as transformers_version

    content = hashlib.sha256()
    for example, prompt in zip(examples, prompts, strict=True):
        content.update(canonical([example.gold, astuple(prompt)]).encode() + b"\n")
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    ids = {name: getattr(tokenizer, f"{name}_id", None) for name in special}
    opening = opening_tokens(tokenizer)
    return text_digest(
        # The source code that makes ids, so that nobody has to remember to bump a version.
        *(Path(str(module.__file__)).read_text("utf-8") for module in (encoding, special_tokens)),
        tokenizers_version,
        transformers_version,
        type(tokenizer).__name__,
        tokenizer.backend_tokenizer.to_str(),
        canonical([special, ids, opening]),
        canonical(options),
        content.hexdigest(),
    )[:32]


def _write(path: Path, items: Sequence[Encoded]) -> None:
    from safetensors.numpy import save

    # An item's candidates nearly always share one context; stored once, the file is a quarter of
    # the size.
    rows = [[*item.contexts[: 1 if item.shared else None], *item.candidates] for item in items]
    sequences = [sequence for row in rows for sequence in row]
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "gold": np.array([item.gold for item in items], np.int64),
        "cut": np.array([item.cut for item in items], np.int64),
        "together": np.array([item.shared for item in items], np.uint8),
        "counts": np.array([len(item.candidates) for item in items], np.int64),
        "sizes": np.array([size for item in items for size in item.sizes], np.int64),
        "lengths": np.array([len(sequence) for sequence in sequences], np.int64),
        "ids": np.fromiter((token for sequence in sequences for token in sequence), np.int32),
    }
    keep(path, save(arrays, metadata={"sha256": _digest(arrays)}))


def _read(path: Path, examples: Sequence[Example], task: int) -> list[Encoded] | None:
    """The cached items, or ``None`` if there is no entry or it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as stored:
            arrays = {name: stored.get_tensor(name) for name in _ARRAYS}
            if (stored.metadata() or {}).get("sha256") != _digest(arrays):
                return None
    except (OSError, SafetensorError):
        return None
    sequences = _split(arrays["ids"].tolist(), arrays["lengths"].tolist())
    sizes = iter(arrays["sizes"].tolist())
    columns = [arrays[name].tolist() for name in ("gold", "cut", "together", "counts")]
    items = []
    for example, gold, cut, together, count in zip(examples, *columns, strict=True):
        contexts = (next(sequences),) * count if together else _take(sequences, count)
        items.append(
            Encoded(
                example, task, contexts, _take(sequences, count), _take(sizes, count), gold, cut
            )
        )
    return items


def _take(values: Iterator[Any], count: int) -> tuple[Any, ...]:
    return tuple(next(values) for _ in range(count))


def _split(ids: list[int], lengths: list[int]) -> Iterator[tuple[int, ...]]:
    start = 0
    for length in lengths:
        yield tuple(ids[start : start + length])
        start += length


def _digest(arrays: dict[str, np.ndarray[Any, Any]]) -> str:
    digest = hashlib.sha256()
    for name in _ARRAYS:
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
