"""Greedy generation in batches, right whatever the padding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache, partial
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
    StopStringCriteria,
)

from quanta_bench.data.chat import ChatPrompt, closing_token
from quanta_bench.data.encoding import cut_context, encode_context
from quanta_bench.errors import UsageError
from quanta_bench.evaluation.decoding import decode
from quanta_bench.evaluation.graphs import graph_or_calls, record_graph
from quanta_bench.evaluation.steps import Recorder
from quanta_bench.models.attention import is_sdpa
from quanta_bench.models.capabilities import Decoding, decoding_of
from quanta_bench.models.special_tokens import end_tokens, pad_token
from quanta_bench.task import Prompt

RECORDERS: Mapping[str, tuple[Recorder, Recorder]] = {"cuda": (record_graph, graph_or_calls)}
"""What records a step of decoding, by type of device: to find out whether it can be, and after."""

RECORDED_FROM = 16
"""Shortest bound on answers, in tokens, with which steps are recorded, which takes four of them."""


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop string in it."""
    ends = [at for at in (text.find(mark) for mark in stop) if at >= 0]
    return text[: min(ends)] if ends else text


def read_context(
    tokenizer: Any, prompt: Prompt, *, max_length: int, max_new_tokens: int
) -> tuple[list[int], int]:
    """The tokens that a model reads before it answers, and how many the context lost.

    Args:
        tokenizer: the model's tokenizer.
        prompt: what is to be continued.
        max_length: bound on context plus answer, in tokens.
        max_new_tokens: bound on the answer, in tokens.

    Raises:
        UsageError: the answer alone takes all of ``max_length``.
    """
    room = max_length - max_new_tokens
    if room < 1:
        raise UsageError(
            f"max_length={max_length} leaves no token for a prompt beside the {max_new_tokens} of "
            "its answer. Raise evaluation.max_length or lower evaluation.max_new_tokens."
        )
    opened = isinstance(prompt, ChatPrompt)
    whole = encode_context(tokenizer, prompt.context, prompt.target, opened=opened)
    kept = cut_context(tokenizer, whole, room, prompt)
    return kept, len(whole) - len(kept)


@lru_cache(maxsize=8)
def _stop_strings(tokenizer: Any, size: int, stop: tuple[str, ...]) -> StopStringCriteria:
    """The criterion that ends rows at stop strings; cached, as building it scans the vocabulary."""
    return StopStringCriteria(tokenizer, list(stop))


class NonFiniteLogitsError(ArithmeticError):
    """The largest logit of a token to be generated is NaN or infinite.

    Attributes:
        prompt: index of the prompt among those of the batch.
        value: the logit.
    """

    def __init__(self, prompt: int, value: float) -> None:
        super().__init__(f"the largest logit after prompt {prompt} is {value}")
        self.prompt = prompt
        self.value = value


class _CheckLogits(LogitsProcessor):
    """Refuses logits that decide nothing; minus infinity in some places forbids tokens, as it may.

    Args:
        prompts: (prompts, width) token ids of the prompts with their padding.
    """

    def __init__(self, prompts: Tensor) -> None:
        self._prompts = prompts

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        largest = scores.amax(-1)
        undecided = ~largest.isfinite()
        if undecided.any():
            row = int(undecided.nonzero()[0])
            # Rows that have ended may be gone, so the row's number is not the prompt's.
            begin = input_ids[row, : self._prompts.shape[1]]
            prompt = int((self._prompts == begin).all(1).nonzero()[0])
            raise NonFiniteLogitsError(prompt, float(largest[row]))
        return scores


def fastest_decoding(
    model: Any, *, max_new_tokens: int, length: int, cacheable: bool = True
) -> Decoding:
    """The fastest way to generate that gives each prompt the same answer as alone.

    Args:
        model: a causal language model, adapted or not.
        max_new_tokens: bound on an answer, in tokens.
        length: tokens of the longest prompt with its answer.
        cacheable: whether the method that adapted the model works with a cache.

    Raises:
        BenchError: the model cannot generate.
    """
    recorders = _recorders(model, max_new_tokens)
    return decoding_of(
        model,
        decode,
        recording=None if recorders is None else partial(decode, record=recorders[0]),
        cacheable=cacheable,
        length=length,
    )


def _recorders(model: Any, max_new_tokens: int) -> tuple[Recorder, Recorder] | None:
    """Those of the model's device, where recording pays and a step is this device's alone."""
    if max_new_tokens < RECORDED_FROM or not is_sdpa(model):
        return None
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return None
    return RECORDERS.get(model.device.type)


@torch.no_grad()
def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    max_length: int,
    use_cache: bool = True,
    device: torch.device | str = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> list[tuple[str, int]]:
    """Continue each prompt's context greedily until a stop string, the end token or the bound.

    Contexts are padded on the left and the padding is masked, so that an answer does not depend
    on what else is in its batch. (LLM-Adapters pads without a mask, and its batches of more than
    one give garbage.) Where the model allows it, they are read in smaller batches than answers are
    written in (:mod:`quanta_bench.evaluation.decoding`); where it does not even allow padding, each
    is answered alone (:func:`fastest_decoding`).

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: what to continue; a context that does not leave room within ``max_length`` is cut
            (:func:`quanta_bench.data.encoding.cut_context`).
        max_new_tokens: bound on the answer, in tokens.
        stop: strings that end an answer and are cut off.
        max_length: bound on prompt plus answer, in tokens.
        use_cache: keep keys and values of earlier positions, if the model can.
        device: where the model is.
        advance: called with the number of prompts that are done since the last call.

    Returns:
        For each prompt the answer's text, without stop strings and special tokens, and the
        number of tokens that the context lost.

    Raises:
        UsageError: ``max_length`` leaves no room for a prompt.
        BenchError: the model cannot generate.
        NonFiniteLogitsError: the model's logits are NaN or infinite.
    """
    bounds = {"max_length": max_length, "max_new_tokens": max_new_tokens}
    contexts = [read_context(tokenizer, prompt, **bounds) for prompt in prompts]
    longest = max(len(row) for row, _ in contexts) + max_new_tokens
    mode = fastest_decoding(
        model, max_new_tokens=max_new_tokens, length=longest, cacheable=use_cache
    )
    closings = [closing_token(tokenizer, prompt) for prompt in prompts]
    turn_ends = {token for token in closings if token is not None}
    options = _options(tokenizer, model, stop, turn_ends) | {"max_new_tokens": max_new_tokens}
    options |= {"use_cache": mode.cached}
    if mode.joined:
        recorders = _recorders(model, max_new_tokens) if mode.recorded else None
        record = None if recorders is None else recorders[1]
        options["custom_generate"] = partial(decode, advance=advance, record=record)
    rows = [row for row, _ in contexts]
    texts: list[str] = []
    for group in [rows] if mode.batched else [[row] for row in rows]:
        try:
            texts += _continue(model, tokenizer, group, device, options)
        except NonFiniteLogitsError as error:
            raise NonFiniteLogitsError(len(texts) + error.prompt, error.value) from None
        if not mode.joined:
            advance(len(group))
    return [(cut_at(text, stop), cut) for text, (_, cut) in zip(texts, contexts, strict=True)]


def _options(
    tokenizer: Any, model: Any, stop: Sequence[str], turn_ends: Collection[int] = ()
) -> dict[str, Any]:
    """Arguments of ``generate``: greedy, up to an end token, a turn's end or a stop string."""
    options: dict[str, Any] = {
        "do_sample": False,
        "num_beams": 1,
        "pad_token_id": pad_token(tokenizer),
        # A chat model's own sampling settings would only raise warnings here.
        "temperature": None,
        "top_p": None,
        "top_k": None,
    }
    ends = sorted({*end_tokens(tokenizer, model), *turn_ends})
    if ends:
        options["eos_token_id"] = ends
    if stop:
        # As stop_strings these would need the tokenizer, which a custom loop is not handed on.
        marks = _stop_strings(tokenizer, len(tokenizer), tuple(stop))
        options |= {"stopping_criteria": StoppingCriteriaList([marks]), "stop_strings": None}
    return options


def _continue(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    device: torch.device | str,
    options: dict[str, Any],
) -> list[str]:
    """The answers to prompts, given as token ids, in one batch."""
    pad = options["pad_token_id"]
    width = max(map(len, rows))
    input_ids = torch.tensor([[pad] * (width - len(row)) + [*row] for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    check = LogitsProcessorList([_CheckLogits(input_ids)])
    output = model.generate(
        input_ids=input_ids, attention_mask=mask, logits_processor=check, **options
    )
    ends = set(options.get("eos_token_id", ()))
    answers = [_before(row, ends) for row in output[:, width:].tolist()]
    return list(tokenizer.batch_decode(answers, skip_special_tokens=True))


def _before(ids: Sequence[int], ends: Collection[int]) -> list[int]:
    """Ids before the first end token; what follows is padding, which any token may serve as."""
    return list(takewhile(lambda token: token not in ends, ids))
