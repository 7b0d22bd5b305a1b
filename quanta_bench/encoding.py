"""From an item's text to token ids, with one boundary for training and scoring alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quanta_bench.errors import BenchError
from quanta_bench.task import Example, Prompt


@dataclass(frozen=True)
class Encoded:
    """An item in token ids.

    Attributes:
        example: the item itself.
        task: position of its task in the list that is being run.
        contexts: one context per candidate. They are the same list where the candidates leave the
            boundary token alone, which is nearly always.
        candidates: token ids of each continuation, none empty.
        sizes: length of each continuation in UTF-8 bytes.
        gold: index of the right candidate, or 0 for a single continuation.
        cut: number of tokens cut from the left of the context.
    """

    example: Example
    task: int
    contexts: tuple[tuple[int, ...], ...]
    candidates: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    gold: int
    cut: int

    @property
    def shared(self) -> bool:
        """Whether all candidates continue the same tokens."""
        return all(context == self.contexts[0] for context in self.contexts[1:])

    @property
    def length(self) -> int:
        """Tokens of the longest context plus continuation."""
        return max(len(a) + len(b) for a, b in zip(self.contexts, self.candidates, strict=True))


def start_token(tokenizer: Any) -> int:
    """The token that stands in for an empty context.

    Raises:
        BenchError: the tokenizer has neither a start nor an end token.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise BenchError("The tokenizer has no start or end token to stand for an empty context.")


def encode_pair(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Token ids of a context and of what continues it.

    The two are tokenised as one text and split where the context alone ends: tokenised apart,
    a sentencepiece vocabulary would put a second space mark in front of the continuation, and
    " A" and "A" are different tokens. Spaces at the end of the context belong to the
    continuation for the same reason.
    """
    kept = context.rstrip(" ")
    continuation = context[len(kept) :] + continuation
    if not kept:
        ids = list(tokenizer.encode(continuation, add_special_tokens=False))
        return [start_token(tokenizer)], ids
    start = list(tokenizer.encode(kept))
    whole = list(tokenizer.encode(kept + continuation))
    if tokenizer.eos_token_id is not None and start[-1:] == [tokenizer.eos_token_id]:
        # Some tokenizers close every text; an end mark between context and answer is wrong.
        start, whole = start[:-1], whole[:-1]
    return whole[: len(start)], whole[len(start) :]


def encode(
    tokenizer: Any,
    example: Example,
    prompt: Prompt,
    *,
    max_length: int,
    task: int = 0,
    target_only: bool = False,
) -> Encoded:
    """Encode an item's candidates, or its target alone.

    Args:
        tokenizer: a ``transformers`` tokenizer.
        example: the item.
        prompt: the item as its task puts it.
        max_length: bound in tokens; contexts are cut from the left, continuations never.
        task: position of the task in the list that is being run.
        target_only: encode the target as the one continuation, for language modelling.

    Raises:
        BenchError: a continuation has no token, or is longer than ``max_length``.
    """
    texts: Sequence[str] = prompt.candidates
    gold = example.gold or 0
    if target_only or not texts:
        texts, gold = (prompt.target,), 0
    contexts, candidates, cut = [], [], 0
    for text in texts:
        context, continuation = encode_pair(tokenizer, prompt.context, text)
        room = max_length - len(continuation)
        if not continuation or room < 1:
            raise BenchError(
                f"Item {example.id}: the answer {text[:60]!r} is {len(continuation)} tokens long; "
                f"it needs at least 1 and at most {max_length - 1}."
            )
        cut = max(cut, len(context) - room)
        contexts.append(tuple(context[-room:]))
        candidates.append(tuple(continuation))
    return Encoded(
        example,
        task,
        tuple(contexts),
        tuple(candidates),
        tuple(len(text.encode()) for text in texts),
        gold,
        max(cut, 0),
    )
