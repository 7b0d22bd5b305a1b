"""Prompts in a model's own chat template: the item is the user's turn, the answer the assistant's.

The template is the tokenizer's, rendered by ``transformers`` in Jinja's sandbox. Scoring, training
and generation read the same context: all that the template writes before an answer. A template that
opens a block of thoughts only where an answer is to be generated is read as it writes a finished
answer, which is what is trained and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from quanta_bench.errors import UsageError
from quanta_bench.models.special_tokens import special_ids
from quanta_bench.task import Example, Prompt, Task

ANSWER = "\u241f"
"""Stands for the answer in a rendered template; a symbol that none uses and no trimming removes."""

DATE = {"%Y": "2024", "%m": "07", "%d": "26", "%b": "Jul", "%B": "July", "%y": "24", "%A": "Friday"}
"""The date on which every prompt is rendered, Llama 3's own default. Some templates write today's,
by which a run could not be repeated."""


@dataclass(frozen=True)
class ChatPrompt(Prompt):
    """An item in a chat template.

    Attributes:
        head: the beginning of the context, which is never cut and brings its own start tokens.
        closing: what the template writes after an answer, to the special token that ends the turn;
            empty where it has none.
    """

    head: str = ""
    closing: str = ""


def prompts_of(
    tokenizer: Any, task: Task, examples: Sequence[Example], protocol: str, *, chat: bool
) -> list[Prompt]:
    """The prompts of a task's items, as a model reads them.

    Args:
        tokenizer: the model's tokenizer.
        task: the task. One that asks for the template by itself has ``chat_template``.
        examples: its items.
        protocol: registered name of the protocol.
        chat: whether the run puts all tasks in the template. Texts to predict are never part of a
            conversation.

    Raises:
        UsageError: the tokenizer has no chat template, or one that alters texts.
    """
    prompts = [task.prompt(example, protocol) for example in examples]
    if not uses_chat(task, chat):
        return prompts
    return [in_chat(tokenizer, prompt) for prompt in prompts]


def uses_chat(task: Task, chat: bool) -> bool:
    """Whether a task's prompts are put in the chat template, in a run that does so or not."""
    return task.kind != "perplexity" and (chat or task.chat_template)


def in_chat(tokenizer: Any, prompt: Prompt) -> ChatPrompt:
    """A prompt in the tokenizer's chat template.

    Texts lose their outer white space, as most templates remove it: the template itself writes what
    stands between a turn's mark and its text.

    Raises:
        UsageError: the tokenizer has no chat template, or one that alters texts.
    """
    asked = prompt.context.strip()
    context, closing = _around(tokenizer, asked)
    begin = context.rfind(asked)
    if begin < 0:
        raise UsageError(
            "The model's chat template does not show a question as it is, so its answers could not "
            f"be compared with others: {asked[:60]!r}. Leave chat_template out."
        )
    after = context[begin + len(asked) :]
    tail = prompt.tail.rstrip()
    return ChatPrompt(
        context,
        candidates=tuple(candidate.strip() for candidate in prompt.candidates),
        target=prompt.target.strip(),
        tail=tail + after if tail and asked.endswith(tail) else "",
        head=context[:begin],
        closing=closing,
    )


def closing_token(tokenizer: Any, prompt: Prompt) -> int | None:
    """The special token by which a prompt's chat template ends an answer, or ``None``."""
    if not isinstance(prompt, ChatPrompt) or not prompt.closing:
        return None
    return int(tokenizer.encode(prompt.closing, add_special_tokens=False)[-1])


def _around(tokenizer: Any, asked: str) -> tuple[str, str]:
    """What a template writes before an answer, and after it to the end of the turn."""
    template = template_of(tokenizer)
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": ANSWER}]
    try:
        whole = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    except Exception as error:  # a template raises what it likes
        reason = " ".join(str(error).split())
        raise UsageError(
            f"The model's chat template cannot be filled: {type(error).__name__}: {reason}. Leave "
            "chat_template out."
        ) from error
    context, found, after = whole.rpartition(ANSWER)
    if not found:
        raise UsageError(
            "The model's chat template does not show an answer as it is. Leave chat_template out."
        )
    return context, _turn_end(tokenizer, after)


def template_of(tokenizer: Any) -> str:
    """The tokenizer's template, on a fixed date.

    Raises:
        UsageError: it has none.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError(
            "The model's tokenizer has no chat template. Leave chat_template out, or take a model "
            "that was tuned for chats, whose folder has a chat_template.jinja or names it in "
            "tokenizer_config.json."
        )
    template = str(tokenizer.get_chat_template())
    if "strftime_now" not in template:
        return template
    filters = "".join(f"|replace('{code}', '{text}')" for code, text in DATE.items())
    return f"{{%- macro strftime_now(form) -%}}{{{{ form{filters} }}}}{{%- endmacro -%}}{template}"


@lru_cache(maxsize=64)
def _turn_end(tokenizer: Any, after: str) -> str:
    """A text up to its first special token; empty where it has none."""
    marks = [tokenizer.convert_ids_to_tokens(number) for number in special_ids(tokenizer)]
    ends = [after.find(mark) + len(mark) for mark in marks if mark in after]
    return after[: min(ends)] if ends else ""
