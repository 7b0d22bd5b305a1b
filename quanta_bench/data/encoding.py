"""From an item's text to token ids, with one boundary for training and scoring alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from quanta_bench.errors import BenchError
from quanta_bench.task import Example, Prompt


@dataclass(frozen=True)
class Encoded:
    """An item in token ids.

    Attributes:
        example: the item itself.
        task: position of its task in the list that is being run.
        contexts: one context per candidate. They are equal where the candidates leave the boundary
            token alone, which is nearly always.
        candidates: token ids of each continuation, none empty.
        sizes: length of each continuation in UTF-8 bytes.
        gold: index of the right candidate, or 0 for a single continuation.
        cut: number of tokens cut from the context.
    """

    example: Example
    task: int
    contexts: tuple[tuple[int, ...], ...]
    candidates: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    gold: int
    cut: int

    @cached_property
    def shared(self) -> bool:
        """Whether all candidates continue the same tokens."""
        return all(context == self.contexts[0] for context in self.contexts[1:])

    @cached_property
    def length(self) -> int:
        """Tokens of the longest context plus continuation."""
        return max(len(a) + len(b) for a, b in zip(self.contexts, self.candidates, strict=True))

    def cost(self, packed: bool) -> int:
        """Tokens that the item puts into a batch."""
        if packed and self.shared:
            return len(self.contexts[0]) + sum(len(tokens) for tokens in self.candidates)
        return self.length * len(self.candidates)


def start_token(tokenizer: Any) -> int:
    """The token that stands in for an empty context.

    Raises:
        BenchError: the tokenizer has neither a start nor an end token.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise BenchError("The tokenizer has no start or end token to stand for an empty context.")


def pad_token(tokenizer: Any) -> int:
    """The token that fills rows up. It is masked everywhere, so any would do."""
    pad = tokenizer.pad_token_id
    return start_token(tokenizer) if pad is None else int(pad)


def cut_context(tokenizer: Any, ids: list[int], room: int, prompt: Prompt) -> list[int]:
    """A context's tokens cut to ``room``: from the left, or before the prompt's tail if it has one.

    A tail that alone takes all the room is cut from the left.
    """
    if len(ids) <= room or not prompt.tail:
        return cut_left(tokenizer, ids, room)
    head = prompt.context[: len(prompt.context) - len(prompt.tail)]
    tail = len(encode_pair(tokenizer, head, prompt.tail.rstrip(" "))[1])
    if tail >= room:
        return cut_left(tokenizer, ids, room)
    return [*ids[: room - tail], *ids[len(ids) - tail :]]


def cut_left(tokenizer: Any, ids: list[int], room: int) -> list[int]:
    """The last ``room`` tokens of a context, with its start token in front if it had one."""
    if len(ids) <= room:
        return ids
    if room > 1 and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id:
        return [ids[0], *ids[len(ids) - room + 1 :]]
    return ids[len(ids) - room :]


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
    closed: bool = False,
) -> Encoded:
    """Encode an item's candidates, or its target alone.

    Args:
        tokenizer: a ``transformers`` tokenizer.
        example: the item.
        prompt: the item as its task puts it.
        max_length: bound in tokens; contexts are cut (:func:`cut_context`), continuations never.
        task: position of the task in the list that is being run.
        target_only: encode the target as the one continuation, for language modelling.
        closed: end continuations with the end token, for answers that are to be generated: a
            model that never saw an answer end goes on after it.

    Raises:
        BenchError: a continuation has no token, or is longer than ``max_length``.
    """
    texts: Sequence[str] = prompt.candidates
    gold = example.gold or 0
    if target_only or not texts:
        texts, gold = (prompt.target,), 0
    pairs = [encode_pair(tokenizer, prompt.context, text) for text in texts]
    if closed and tokenizer.eos_token_id is not None:
        pairs = [(context, [*tokens, tokenizer.eos_token_id]) for context, tokens in pairs]
    longest = max(len(continuation) for _, continuation in pairs)
    # One room for all: candidates are compared after the same context.
    room = max_length - longest
    for text, (_, continuation) in zip(texts, pairs, strict=True):
        if not continuation or room < 1:
            raise BenchError(
                f"Item {example.id}: the answer {text[:60]!r} is {len(continuation)} tokens long; "
                f"it needs at least 1 and at most {max_length - 1}."
            )
    contexts = [cut_context(tokenizer, context, room, prompt) for context, _ in pairs]
    cut = max(len(context) - len(kept) for (context, _), kept in zip(pairs, contexts, strict=True))
    return Encoded(
        example,
        task,
        tuple(map(tuple, contexts)),
        tuple(tuple(continuation) for _, continuation in pairs),
        tuple(len(text.encode()) for text in texts),
        gold,
        cut,
    )
