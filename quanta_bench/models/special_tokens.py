"""The tokens around a text: what opens it, what ends an answer, what fills rows up.

Training, scoring and generation ask here and nowhere else, so that an answer is closed by the token
that generation stops at, and a context that is scored is the one that is continued.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from quanta_bench.errors import BenchError

PROBE = "a"
"""A text that any tokenizer takes, to see what is put around it."""


def opening_tokens(tokenizer: Any) -> list[int]:
    """Ids that the tokenizer puts before a text, such as ``<s>`` or ``[CLS]``; may be empty.

    What it puts after a text (``</s>``, ``[SEP]``) is for texts that have ended, and is never part
    of a context.
    """
    # A tokenizer can be told to open texts or not to.
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
    """Ids that stand in for an empty context; at least one.

    Raises:
        BenchError: the tokenizer opens no text and has neither a start nor an end token.
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

    It is the tokenizer's end token, or its separator where it has no end token (as BERT's).
    """
    for token in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        if token is not None:
            return int(token)
    return None


def end_tokens(tokenizer: Any, model: Any) -> list[int]:
    """All ids that end a generated answer, sorted.

    These are :func:`end_token` and those end tokens of the model's generation configuration that
    are special to the tokenizer. Chat models name several there (``<|eot_id|>``); an id that the
    tokenizer takes for text is a mistake of the configuration, and would end answers anywhere.
    """
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    named = configured if isinstance(configured, list) else [configured]
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = {int(token) for token in named if token is not None and token in special}
    own = end_token(tokenizer)
    return sorted(ends if own is None else ends | {own})


def pad_token(tokenizer: Any) -> int:
    """The id that fills rows up. It is masked everywhere, so any would do."""
    pad = tokenizer.pad_token_id
    return start_tokens(tokenizer)[0] if pad is None else int(pad)


def set_pad_token(tokenizer: Any) -> None:
    """Give a tokenizer without a padding token one of its other tokens; LLaMA's bring none."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = (
            tokenizer.unk_token or tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        )
