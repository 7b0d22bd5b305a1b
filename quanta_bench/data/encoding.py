"""From an item's text to token ids, with one boundary for training and scoring alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from quanta_bench.data.chat import ChatPrompt
from quanta_bench.errors import BenchError
from quanta_bench.models.special_tokens import end_token, opening_tokens, start_tokens
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


def cut_context(tokenizer: Any, ids: list[int], room: int, prompt: Prompt) -> list[int]:
    """A context's tokens cut to ``room``: from the left, or before the prompt's tail if it has one.

    A tail that alone takes all the room is cut from the left. In a chat template what stands before
    the user's text is kept.
    """
    if len(ids) > room and isinstance(prompt, ChatPrompt) and not prompt.tail:
        head = tokenizer.encode(prompt.head, add_special_tokens=False)
        if head and len(head) < room and ids[: len(head)] == head:
            return [*head, *ids[len(ids) - room + len(head) :]]
    if len(ids) <= room or not prompt.tail:
        return cut_left(tokenizer, ids, room)
    head = prompt.context[: len(prompt.context) - len(prompt.tail)]
    opened = isinstance(prompt, ChatPrompt)
    tail = len(encode_pair(tokenizer, head, prompt.tail.rstrip(" "), opened=opened)[1])
    if tail >= room:
        return cut_left(tokenizer, ids, room)
    return [*ids[: room - tail], *ids[len(ids) - tail :]]


def cut_left(tokenizer: Any, ids: list[int], room: int) -> list[int]:
    """The last ``room`` tokens of a context, with its start tokens in front if it had them."""
    if len(ids) <= room:
        return ids
    starts = [opening_tokens(tokenizer)]
    if tokenizer.bos_token_id is not None:
        starts.append([tokenizer.bos_token_id])
    for start in starts:
        if start and len(start) < room and ids[: len(start)] == start:
            return [*start, *ids[len(ids) - room + len(start) :]]
    return ids[len(ids) - room :]


def split_spaces(context: str, continuation: str) -> tuple[str, str]:
    """Move the spaces between a context and its continuation to where they are tokenised.

    A tokenizer attaches a space to the word that follows: " A" and "A" are different tokens. So
    spaces at the end of a context belong to the continuation, unless that brings one itself.
    """
    if continuation.startswith(" ") and context.strip(" "):
        return context, continuation
    kept = context.rstrip(" ")
    return kept, context[len(kept) :] + continuation


def encode_context(
    tokenizer: Any, context: str, continuation: str = "", *, opened: bool = False
) -> list[int]:
    """Token ids of a context that is to be continued; at least one.

    Args:
        tokenizer: a ``transformers`` tokenizer.
        context: the context.
        continuation: what may follow. Only whether it begins with a space is looked at.
        opened: the context brings its own start tokens, as a chat template does.

    Raises:
        BenchError: the context is empty and the tokenizer has no token to replace it.
    """
    kept, _ = split_spaces(context, continuation[:1])
    if not kept:
        return start_tokens(tokenizer)
    opening = [] if opened else opening_tokens(tokenizer)
    return [*opening, *tokenizer.encode(kept, add_special_tokens=False)]


def encode_pair(
    tokenizer: Any,
    context: str,
    continuation: str,
    *,
    generated: bool = False,
    opened: bool = False,
) -> tuple[list[int], list[int]]:
    """Token ids of a context and of what continues it.

    The two are tokenised as one text and split where the context ends. If they were
    tokenised separately, a sentencepiece vocabulary would put a second space mark in front of the
    continuation.

    Args:
        tokenizer: a ``transformers`` tokenizer.
        context: the context.
        continuation: what follows it.
        generated: keep the context as :func:`encode_context` gives it, as generation reads it, even
            where its last token would merge with the first of the continuation; the continuation
            is then tokenised separately.
        opened: the context brings its own start tokens.
    """
    start = encode_context(tokenizer, context, continuation, opened=opened)
    kept, continuation = split_spaces(context, continuation)
    if not kept:
        return start, list(tokenizer.encode(continuation, add_special_tokens=False))
    opening = [] if opened else opening_tokens(tokenizer)
    whole = [*opening, *tokenizer.encode(kept + continuation, add_special_tokens=False)]
    if generated and whole[: len(start)] != start:
        return start, list(tokenizer.encode(continuation, add_special_tokens=False))
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
        prompt: the item as its task phrases it.
        max_length: bound in tokens; contexts are cut (:func:`cut_context`), continuations never.
        task: position of the task in the list that is being run.
        target_only: encode the target as the one continuation, for language modelling.
        closed: the answers will be generated. Continuations then end with the end token, because a
            model that never saw an answer end would not stop, and contexts are those that
            generation reads. In a chat template they end as it ends a turn.

    Raises:
        BenchError: a continuation has no token, or is longer than ``max_length``.
    """
    texts: Sequence[str] = prompt.candidates
    gold = example.gold or 0
    if target_only or not texts:
        texts, gold = (prompt.target,), 0
    opened = isinstance(prompt, ChatPrompt)
    closing = prompt.closing if closed and isinstance(prompt, ChatPrompt) else ""
    pairs = [
        encode_pair(tokenizer, prompt.context, text + closing, generated=closed, opened=opened)
        for text in texts
    ]
    end = end_token(tokenizer)
    if closed and not closing and end is not None:
        pairs = [(context, [*tokens, end]) for context, tokens in pairs]
    sizes = [len(continuation) for _, continuation in pairs]
    for text, size in zip(texts, sizes, strict=True):
        if not size:
            raise BenchError(f"Item {example.id}: the answer {text[:60]!r} has no token.")
    # One room for all: candidates are compared after the same context.
    room = max_length - max(sizes)
    if room < 1:
        text = texts[sizes.index(max(sizes))]
        raise BenchError(
            f"Item {example.id}: the answer {text[:60]!r} is {max(sizes)} tokens long and leaves "
            f"none of max_length={max_length} for what comes before it. Raise max_length above "
            f"{max(sizes)}."
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
