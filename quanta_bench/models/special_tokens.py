"""Special tokens: those that open a text, end an answer and pad rows.

Training, scoring and generation all use this module, so that answers are trained to end with the
token that stops generation, and scoring and generation see the same context.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from quanta_bench.errors import BenchError

PROBE = "a"
"""A text that any tokenizer accepts, used to detect the special tokens around it."""


def opening_tokens(tokenizer: Any) -> list[int]:
    """Ids that the tokenizer puts before a text, such as ``<s>`` or ``[CLS]``; may be empty.

    Tokens that it puts after a text (``</s>``, ``[SEP]``) mark its end and are never part of a
    context.
    """
    # This can be switched on and off on a tokenizer.
    switch = getattr(tokenizer, "add_bos_token", None)
    return list(_opening_tokens(tokenizer, switch))


@lru_cache(maxsize=8)
def _opening_tokens(tokenizer: Any, switch: bool | None) -> tuple[int, ...]:
    plain = list(tokenizer.encode(PROBE, add_special_tokens=False))
    whole = list(tokenizer.encode(PROBE))
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start])
    return ()


def start_tokens(tokenizer: Any) -> list[int]:
    """Ids that replace an empty context; at least one.

    Raises:
        BenchError: the tokenizer adds no opening token and has no start or end token.
    """
    opening = opening_tokens(tokenizer)
    if opening:
        return opening
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return [int(token)]
    raise BenchError("The tokenizer has no start or end token to stand for an empty context.")


def end_token(tokenizer: Any) -> int | None:
    """The id that closes an answer in training and ends it in generation, or ``None``.

    This is the tokenizer's end token, or its separator if it has none (as with BERT).
    """
    for token in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if token is not None:
            return int(token)
    return None


def special_ids(tokenizer: Any) -> set[int]:
    """The ids that are no plain text to the tokenizer."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return set(tokenizer.all_special_ids) | added


def end_tokens(tokenizer: Any, model: Any) -> list[int]:
    """All ids that end a generated answer, sorted.

    These are :func:`end_token` and those end tokens of the model's generation configuration that
    are special to the tokenizer. Chat models list several there (``<|eot_id|>``). An id that is
    plain text to the tokenizer is a configuration error and would end answers anywhere.
    """
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    named = configured if isinstance(configured, list) else [configured]
    special = special_ids(tokenizer)
    ends = {int(token) for token in named if token is not None and token in special}
    own = end_token(tokenizer)
    return sorted(ends if own is None else ends | {own})


def pad_token(tokenizer: Any) -> int:
    """The padding id. It is masked everywhere, so any id would do."""
    pad = tokenizer.pad_token_id
    return start_tokens(tokenizer)[0] if pad is None else int(pad)


def set_pad_token(tokenizer: Any) -> None:
    """Reuse another token for padding if a tokenizer, such as LLaMA's, has no padding token."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = (
            tokenizer.unk_token or tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        )
