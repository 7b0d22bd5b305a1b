"""An item of a task as a model reads it: what ``quanta-bench tasks NAME --show`` adds to a page."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from quanta_bench.cli.page import Entry, Page, Section
from quanta_bench.errors import UsageError
from quanta_bench.plugins import find_protocol, find_task
from quanta_bench.spec import ModelSpec
from quanta_bench.task import Example, Prompt, Task

LONGEST = 3000
"""Characters of a context that are shown."""


def add_prompts(page: Page, reference: str, source: str, model: str, *, chat: bool) -> Page:
    """The page with an item under each protocol of its task, word for word.

    The item is the first of the test split in the order in which a run draws them.

    Args:
        page: the page.
        reference: the task, as on the command line.
        source: where its data come from.
        model: whose chat template it is, as on the command line.
        chat: put prompts in it, whether or not the task does so by itself.

    Raises:
        UsageError: the task has no prompts, or the model no chat template.
        SourceError: the source does not have the task's data.
    """
    from quanta_bench.data.chat import prompts_of, uses_chat
    from quanta_bench.data.pools import Pools, draw
    from quanta_bench.models.loading import ModelRef, load_tokenizer

    task = find_task(reference)
    names = [name for name in task.protocols if find_protocol(name).prompts]
    if not names:
        raise UsageError(f"The task {reference!r} has texts for a classification head, no prompts.")
    (example,) = draw(Pools().get(reference, source, "test").examples, 1, 0)
    tokenizer = None
    if uses_chat(task, chat):
        base = ModelSpec.from_reference(model)
        tokenizer = load_tokenizer(ModelRef(base.name, base.source, base.revision))
    entries: list[Entry] = []
    data: list[dict[str, Any]] = []
    for name in names:
        (prompt,) = prompts_of(tokenizer, task, [example], name, chat=chat)
        template = f", in the chat template of {model}" if tokenizer else ""
        entries.append(Entry(name, f"item {example.id}{template}", _shortened(prompt.context)))
        right, others = _answers(task, example, prompt)
        entries.append(Entry("right answer", text=json.dumps(right, ensure_ascii=False)))
        if others:
            listed = "\n".join(json.dumps(text, ensure_ascii=False) for text in others)
            entries.append(Entry("other candidates", text=listed))
        data.append(
            {
                "protocol": name,
                "item": example.id,
                "context": prompt.context,
                "answer": right,
                "others": others,
            }
        )
    return dataclasses.replace(
        page,
        sections=[*page.sections, Section("What the model reads", entries)],
        data={**page.data, "prompts": data},
    )


def _answers(task: Task, example: Example, prompt: Prompt) -> tuple[str, list[str]]:
    """The right answer and the other candidates, with the space in front where they have one."""
    if not prompt.candidates or not task.chooses:
        return prompt.target, []
    gold = example.gold or 0
    return prompt.candidates[gold], [
        text for number, text in enumerate(prompt.candidates) if number != gold
    ]


def _shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters …]\n{text[-half:]}"
