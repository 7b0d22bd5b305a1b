"""The items of several tasks in token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quanta_bench.data.chat import prompts_of
from quanta_bench.data.encoding import Encoded
from quanta_bench.data.token_cache import encode_all
from quanta_bench.data.windows import TRAINING_OVERLAP, encode_windows
from quanta_bench.task import Example, Task

Drawn = Sequence[tuple[Task, Sequence[Example]]]
"""Tasks with the items that were drawn from each."""


def encode_items(
    tokenizer: Any,
    tasks: Drawn,
    protocol: str,
    *,
    max_length: int,
    target_only: bool = False,
    closed: bool = False,
    chat: bool = False,
) -> list[Encoded]:
    """Encode the items of several tasks, in order; the words are those of :func:`encode`.

    With ``chat`` prompts are in the tokenizer's chat template
    (:func:`quanta_bench.data.chat.prompts_of`).

    A text to predict (kind ``perplexity``) becomes several items if it is too long for one.
    """
    encoded: list[Encoded] = []
    for number, (task, examples) in enumerate(tasks):
        prompts = prompts_of(tokenizer, task, examples, protocol, chat=chat)
        options: dict[str, Any] = {"max_length": max_length, "task": number, "closed": closed}
        if task.kind == "perplexity":
            options["overlap"] = TRAINING_OVERLAP
            for example, prompt in zip(examples, prompts, strict=True):
                encoded += encode_windows(tokenizer, example, prompt, **options)
        else:
            options["target_only"] = target_only
            encoded += encode_all(tokenizer, examples, prompts, **options)
    return encoded
