"""The context of an item as a model saw it: whole, or truncated if it was too long."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from quanta_bench.data.chat import prompts_of, uses_chat
from quanta_bench.data.encoding import encode
from quanta_bench.errors import BenchError
from quanta_bench.evaluation.generation import read_context
from quanta_bench.models.loading import ModelRef, is_here, load_tokenizer
from quanta_bench.plugins import find_protocol
from quanta_bench.results.records import Result
from quanta_bench.task import DEFAULT_NEW_TOKENS, Example, Task


def context_seen(
    result: Result, reference: str, task: Task, example: Example
) -> tuple[str, int | None]:
    """The context of an item as a run presented it.

    Args:
        result: the run.
        reference: the task, as on the command line.
        task: the task.
        example: the item.

    Returns:
        The context and the number of tokens cut from it; if the tokenizer is not available
        locally, the whole context without a chat template and ``None``.
    """
    spec = result.evaluation
    chat = uses_chat(task, spec.chat_template)
    cut_items = result.tasks[reference].cut_items
    if not chat and not cut_items:
        return task.prompt(example, spec.protocol).context, 0
    model = result.training.spec.model
    tokenizer = tokenizer_of(ModelRef(model.name, model.source, model.revision))
    if tokenizer is None:
        return task.prompt(example, spec.protocol).context, None if cut_items else 0
    (prompt,) = prompts_of(tokenizer, task, [example], spec.protocol, chat=chat)
    if not cut_items:
        return prompt.context, 0
    if find_protocol(spec.protocol).compares(task):
        encoded = encode(tokenizer, example, prompt, max_length=spec.max_length)
        kept, cut = list(encoded.contexts[0]), encoded.cut
    else:
        limit = result.tasks[reference].max_new_tokens or task.max_new_tokens or DEFAULT_NEW_TOKENS
        kept, cut = read_context(
            tokenizer, prompt, max_length=spec.max_length, max_new_tokens=limit
        )
    if not cut:
        return prompt.context, 0
    return str(tokenizer.decode(kept, skip_special_tokens=not chat)), cut


@lru_cache(maxsize=4)
def tokenizer_of(ref: ModelRef) -> Any:
    """A model's tokenizer, or ``None`` if it is not available locally."""
    try:
        return load_tokenizer(ref) if is_here(ref) else None
    except BenchError:
        return None
