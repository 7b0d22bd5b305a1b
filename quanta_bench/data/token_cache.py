"""Items in token ids, kept on disk between runs by a fingerprint of all that they depend on.

COMMONSENSE170K takes minutes to tokenise, and every row and seed of a table needs it. What
is kept is found by the words themselves and not by where they came from: by the digest of every
prompt, the tokenizer with its library's version, the bounds, and the code that encodes. So a
template, a data file or a tokenizer that changes asks for another entry, and none is out of date.
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
from quanta_bench.spec import canonical
from quanta_bench.task import Example, Prompt
from quanta_bench.utils.cache import cache_folder, keep
from quanta_bench.utils.fingerprint import text_digest

FOLDER = "tokens"
"""Folder of the cache that holds the entries; it may be deleted at any time."""

FEWEST = 1000
"""Items from which on they are kept: fewer are tokenised in a fraction of a second."""

_ARRAYS = ("gold", "cut", "together", "counts", "sizes", "lengths", "ids")


def encode_all(
    tokenizer: Any,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    *,
    task: int = 0,
    **options: Any,
) -> list[Encoded]:
    """Encode items, or read what an earlier call with the same prompts and tokenizer kept.

    Args:
        tokenizer: a ``transformers`` tokenizer; only those of the ``tokenizers`` library, which can
            be written down, have anything kept.
        examples: the items.
        prompts: what each is put as.
        task: position of their task in the list that is being run.
        options: as of :func:`quanta_bench.data.encoding.encode`.

    Raises:
        BenchError: as :func:`quanta_bench.data.encoding.encode`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if len(examples) < FEWEST or backend is None:
        return _encoded(tokenizer, examples, prompts, task, options)
    path = cache_folder() / FOLDER / f"{_key(tokenizer, examples, prompts, options)}.safetensors"
    kept = _read(path, examples, task)
    if kept is not None:
        return kept
    made = _encoded(tokenizer, examples, prompts, task, options)
    _write(path, made)
    return made


def _encoded(
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

    words = hashlib.sha256()
    for example, prompt in zip(examples, prompts, strict=True):
        words.update(canonical([example.gold, astuple(prompt)]).encode() + b"\n")
    marks = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    return text_digest(
        # What turns words into ids, as it stands: nobody has to remember to raise a version.
        Path(encoding.__file__).read_text(encoding="utf-8"),
        tokenizers_version,
        transformers_version,
        type(tokenizer).__name__,
        tokenizer.backend_tokenizer.to_str(),
        canonical(marks),
        canonical(options),
        words.hexdigest(),
    )[:32]


def _write(path: Path, items: Sequence[Encoded]) -> None:
    from safetensors.numpy import save

    # The contexts of an item are nearly always one; written once, they are a quarter of the size.
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
    """What is kept, or ``None`` where nothing is or where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as stored:
            arrays = {name: stored.get_tensor(name) for name in _ARRAYS}
            if (stored.metadata() or {}).get("sha256") != _digest(arrays):
                return None
    except (OSError, SafetensorError):
        return None
    sequences = _cut(arrays["ids"].tolist(), arrays["lengths"].tolist())
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


def _cut(ids: list[int], lengths: list[int]) -> Iterator[tuple[int, ...]]:
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
