"""Limits in tokens, checked against the data and the model before anything is computed.

Three limits apply: the spec's maximum length, the maximum number of answer tokens, and the model's
number of positions. What cannot fit is refused here, with the name of the setting. What fits in
part is computed, counted, and shown with the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, Literal

from quanta_bench.data.chat import prompts_of
from quanta_bench.data.encoding import Encoded
from quanta_bench.errors import UsageError
from quanta_bench.models.capabilities import positions, virtual_tokens
from quanta_bench.plugins import find_protocol
from quanta_bench.spec import EvaluationSpec
from quanta_bench.task import DEFAULT_NEW_TOKENS, Example, Prompt, Task

FEWEST_KEPT = 0.5
"""Fraction of its tokens that the median prompt must keep for scores to be meaningful."""

BY_LIKELIHOOD = "training.select=likelihood"
"""What chooses checkpoints without generating answers."""

Section = Literal["training", "evaluation"]
"""Of the settings, that whose bounds apply."""


def token_lengths(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Number of tokens of each text."""
    if not texts:
        return []
    # Not verbose: a warning about texts longer than the model would be redundant here.
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def answer_lengths(tokenizer: Any, prompts: Sequence[Prompt]) -> list[int]:
    """Number of tokens of each right answer, without the end token."""
    return token_lengths(tokenizer, [prompt.target for prompt in prompts])


def bound_on_new_tokens(task: Task, lengths: Sequence[int], chosen: int | None) -> int:
    """The bound on generated answers.

    Args:
        task: the task.
        lengths: of the right answers (:func:`answer_lengths`).
        chosen: the spec's bound, which takes precedence.
    """
    if chosen is not None:
        return chosen
    if task.max_new_tokens is not None:
        return task.max_new_tokens
    # One more than the longest, for the end token.
    return max([DEFAULT_NEW_TOKENS, *(length + 1 for length in lengths)])


def check_evaluation(
    model: Any,
    tokenizer: Any,
    spec: EvaluationSpec,
    tasks: Sequence[tuple[Task, Sequence[Example]]],
    *,
    extra: int = 0,
    section: Section = "evaluation",
) -> None:
    """Refuse to score items that the limits cannot accommodate.

    Args:
        model: the base model.
        tokenizer: its tokenizer.
        spec: the evaluation spec. If its protocol has no prompts there is nothing to check:
            texts are cut to the model's positions, and the cuts are counted.
        tasks: the tasks, each with the items that are to be scored.
        extra: trained vectors that the method prepends to every text.
        section: of the settings that the bounds come from; ``training`` where checkpoints are
            chosen by score.

    Raises:
        UsageError: no right answer fits its bound, most prompts would lose more than half of their
            tokens, or texts have more tokens than the model has positions.
    """
    protocol = find_protocol(spec.protocol)
    if not protocol.prompts:
        return
    for task, examples in tasks:
        prompts = prompts_of(tokenizer, task, examples, spec.protocol, chat=spec.chat_template)
        contexts = token_lengths(tokenizer, [prompt.context for prompt in prompts])
        if task.kind == "perplexity":
            # Read in windows of at most ``max_length``.
            texts = token_lengths(tokenizer, [prompt.target for prompt in prompts])
            longest = max((a + b for a, b in zip(contexts, texts, strict=True)), default=0)
        else:
            compares = protocol.compares(task)
            answers = (
                _longest_candidates(tokenizer, prompts)
                if compares
                else _longest_answers(tokenizer, task, spec, prompts, section)
            )
            _check_room(task, spec, contexts, answers, compares, section)
            longest = max((a + b for a, b in zip(contexts, answers, strict=True)), default=0)
        check_positions(model, longest, spec.max_length, section, task.title, extra=extra)


def _longest_candidates(tokenizer: Any, prompts: Sequence[Prompt]) -> list[int]:
    """Tokens to reserve for each item's candidates."""
    counts = [len(prompt.candidates) for prompt in prompts]
    flat = iter(token_lengths(tokenizer, [c for prompt in prompts for c in prompt.candidates]))
    return [max((next(flat) for _ in range(count)), default=0) for count in counts]


def _longest_answers(
    tokenizer: Any, task: Task, spec: EvaluationSpec, prompts: Sequence[Prompt], section: Section
) -> list[int]:
    """Tokens to reserve for each item's generated answer."""
    lengths = answer_lengths(tokenizer, prompts)
    most = bound_on_new_tokens(task, lengths, spec.max_new_tokens)
    if lengths and min(lengths) > most:
        longer = f"evaluation.max_new_tokens={max(lengths) + 1}"
        raise UsageError(
            f"{task.title}: generated answers are limited to {most} tokens, but all "
            f"{len(lengths)} right answers are longer ({min(lengths)} to {max(lengths)}). "
            f"Set {longer if section == 'evaluation' else BY_LIKELIHOOD}."
        )
    return [most] * len(prompts)


def _check_room(
    task: Task,
    spec: EvaluationSpec,
    contexts: Sequence[int],
    answers: Sequence[int],
    compares: bool,
    section: Section,
) -> None:
    kept = [
        min(1.0, (spec.max_length - answer) / max(1, context))
        for context, answer in zip(contexts, answers, strict=True)
    ]
    if not kept or (median(kept) >= FEWEST_KEPT and min(kept) > 0):
        return
    cut = sum(part < 1 for part in kept)
    needed = max(a + b for a, b in zip(contexts, answers, strict=True))
    other = "" if compares else ", or lower evaluation.max_new_tokens"
    if section == "training":
        other = f", or {BY_LIKELIHOOD}"
    raise UsageError(
        f"{task.title}: {section}.max_length={spec.max_length} leaves "
        f"{max(0, spec.max_length - max(answers))} tokens for the prompt after reserving "
        f"{max(answers)} for the answer. {cut} of {len(kept)} prompts would be truncated, the "
        f"median to {max(0.0, median(kept)):.0%}. Set {section}.max_length={needed} to truncate "
        f"none{other}."
    )


def check_training(model: Any, items: Sequence[Any], max_length: int, *, extra: int = 0) -> None:
    """Refuse to train or validate on items with more tokens than the model has positions.

    Args:
        model: the base model.
        items: encoded items, cut to ``max_length``; those for a classification head, which are cut
            to the positions, pass.
        max_length: the spec's bound.
        extra: trained vectors that the method prepends to every text.

    Raises:
        UsageError: an item has more.
    """
    longest = max((item.length for item in items if isinstance(item, Encoded)), default=0)
    what = "an item of training or validation"
    check_positions(model, longest, max_length, "training", what, extra=extra)


def check_positions(
    model: Any, longest: int, max_length: int, section: str, what: str, *, extra: int = 0
) -> None:
    """Refuse texts that have more tokens than a model has positions.

    Args:
        model: the model.
        longest: tokens of the longest text.
        max_length: bound on them.
        section: of the settings, ``training`` or ``evaluation``.
        what: whose texts, for the message.
        extra: trained vectors prepended to every text.

    Raises:
        UsageError: they have more.
    """
    most = positions(model)
    if most is None:
        return
    room = most - max(extra, virtual_tokens(model))
    tokens = min(longest, max_length)
    if tokens > room:
        raise UsageError(
            f"The model has positions for {room} tokens, and {what} takes up to {tokens}. Set "
            f"{section}.max_length={room} to cut what is longer, or use a model with more."
        )
