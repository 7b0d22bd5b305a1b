"""Texts of any length, read in windows of a model's length.

A text that does not fit is read in several windows. Each of its tokens is predicted in exactly one
of them; a later window begins with the end of the one before, which is context there and is not
predicted again. Where the tokenizer has a start token, every window begins with it, as the first
one does: some models are of no use without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quanta_bench.data.encoding import Encoded, cut_left, encode_pair
from quanta_bench.errors import BenchError
from quanta_bench.models.special_tokens import end_token
from quanta_bench.task import Example, Prompt

TRAINING_OVERLAP = 2
"""Tokens that a window of training text has in common with the one before.

Enough for a start token and the token that predicts the window's first; what overlaps is computed
again and trains nothing.
"""


def scoring_overlap(max_length: int) -> int:
    """Tokens that a window of scored text has in common with the one before: half of them.

    Predicting each token from as many as fit would take a window a token. This way every token but
    the first of a text has half a window before it, at twice the cost of windows that do not
    overlap.
    """
    return max_length - max_length // 2


def spans(context: int, target: int, max_length: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Which tokens of a text each window predicts.

    Args:
        context: tokens before the text.
        target: tokens of the text.
        max_length: tokens of a window, those predicted included.
        overlap: tokens of each window but the first that the window before holds too; at least 1
            and less than ``max_length``.

    Yields:
        First token and end of each window's part of the text, in order and without gaps. Of a long
        context, the first window keeps what a short text leaves room for, and at least half of
        its tokens.
    """
    kept = min(context, max_length - min(target, max_length // 2))
    start, end = 0, min(target, max_length - kept)
    yield start, end
    while end < target:
        start, end = end, min(target, end + max_length - overlap)
        yield start, end


def encode_windows(
    tokenizer: Any,
    example: Example,
    prompt: Prompt,
    *,
    max_length: int,
    overlap: int,
    task: int = 0,
    closed: bool = False,
) -> list[Encoded]:
    """Encode a prompt's target, in as many windows as it takes.

    Args:
        tokenizer: a ``transformers`` tokenizer.
        example: the item.
        prompt: the item as its task puts it. Without a context the first token is predicted from
            a start token.
        max_length: bound in tokens on each window.
        overlap: tokens of a window that the one before holds too.
        task: position of the task in the list that is being run.
        closed: end the text with the end token.

    Returns:
        One encoded item a window. The first counts the tokens that the prompt's context lost; the
        ``sizes`` of each are those of the whole text.

    Raises:
        BenchError: there is no text.
    """
    before, tokens = encode_pair(tokenizer, prompt.context, prompt.target)
    if not tokens:
        raise BenchError(f"Item {example.id} has no text to predict.")
    end = end_token(tokenizer)
    if closed and end is not None:
        tokens = [*tokens, end]
    whole = before + tokens
    windows = []
    for start, end in spans(len(before), len(tokens), max_length, overlap):
        seen = whole[: len(before) + start]
        context = cut_left(tokenizer, seen, overlap if start else max_length - end)
        windows.append(
            Encoded(
                example,
                task,
                (tuple(context),),
                (tuple(tokens[start:end]),),
                (len(prompt.target.encode()),),
                gold=0,
                cut=0 if start else len(before) - len(context),
            )
        )
    return windows
