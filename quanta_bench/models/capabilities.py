"""Probe a model's capabilities on a few tokens instead of trusting its architecture's name.

A configuration gives a model's name but seldom what it computes. So each capability that the suite
relies on is tested against the plain forward pass of one row: whether logits are independent of
later tokens, whether candidates may share a row, whether rows may be generated in a batch, and
whether a cache may be used. What fails is refused with a reason or computed the slow way. Two
properties that a few tokens cannot show are read from the model's layers: attention windows, which
are longer than any probe, and frequencies that depend on the length
(:mod:`quanta_bench.models.rope`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from quanta_bench.errors import BenchError
from quanta_bench.models.attention import is_sdpa
from quanta_bench.models.rope import unscaled_length

ROUNDINGS = 16
"""Tolerance between two computations, in units in the last place of the largest logit."""

WINDOWS = (
    "sliding_window",
    "window_size",
    "local_window_size",
    "attention_window",
    "attention_window_size",
    "attention_chunk_size",
)
"""Names of the attention window's length in configurations."""

_ERRORS = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError)
"""What models raise for inputs that they do not support."""


# --- read from the configuration ---------------------------------------------------------------


def positions(model: Any) -> int | None:
    """The maximum length that a model was made for, in tokens; ``None`` if unbounded.

    For learned positions this is the size of their table without padding entries, otherwise the
    configuration's value, extended by "dynamic" scaling if it has that.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa numbers positions starting after the padding token's index.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - offset
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    scaling = getattr(config, "rope_parameters", None) or {}
    if scaling.get("rope_type") == "dynamic":
        return int(limit * scaling.get("factor", 1.0))
    return limit


def virtual_tokens(model: Any) -> int:
    """Number of trained vectors that an adapter prepends to every text; each takes a position."""
    adapters = getattr(model, "peft_config", {}).values()
    return max((a.num_virtual_tokens for a in adapters if a.is_prompt_learning), default=0)


def has_windows(model: Any) -> bool:
    """Whether layers use local attention, or cache less than all keys and values."""
    config = model.config.get_text_config()
    named = set(WINDOWS)
    if not getattr(config, "use_sliding_window", True):
        named.discard("sliding_window")
    if any(getattr(config, name, None) for name in named):
        return True
    return bool(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})


# --- is it a causal language model? ---------------------------------------------------------------


@torch.no_grad()
def why_not_causal(model: Any) -> str | None:
    """Why a model is not a causal language model; ``None`` if it is one.

    Args:
        model: a model in evaluation mode that takes ``input_ids`` and gives ``logits``.
    """
    row = _tokens(model, 8)
    other = torch.cat([row[:-1], row[:1]])
    try:
        plain, moved = (_plain(model, ids)[:-1] for ids in (row, other))
        if not _agree(model, moved, plain):
            return "a later token changes its predictions for earlier ones: it is bidirectional"
        padded = torch.stack([torch.cat([row[:5], row[:3]]), row])
        mask = torch.ones_like(padded)
        mask[0, 5:] = 0
        together = model(input_ids=padded, attention_mask=mask, use_cache=False).logits[0, :5]
    except _ERRORS as error:
        return f"it cannot run on token ids and an attention mask alone ({_short(error)})"
    if not _agree(model, together, plain[:5]):
        return "its predictions for a text depend on padding and on the other rows of the batch"
    return None


# --- may candidates share a row? ------------------------------------------------------------------


@torch.no_grad()
def can_pack(model: Any) -> bool:
    """Whether candidates of one item may share a row (see :mod:`quanta_bench.data.batches`).

    Packing passes a custom mask between all pairs of positions. It would replace sliding windows,
    recurrent and convolutional layers would ignore it, and not every attention implementation
    accepts it. With length-dependent frequencies, a candidate would get those of its longest
    neighbour.
    """
    if not is_sdpa(model) or has_windows(model) or unscaled_length(model) is not None:
        return False
    tokens = _tokens(model, 24)
    context, first, second = tokens[:12], tokens[12:17], tokens[17:]
    segment = torch.tensor([0] * 12 + [1] * 5 + [2] * 7, device=tokens.device)
    visible = (segment == 0) | (segment == segment[:, None])
    mask = (visible & torch.ones_like(visible).tril())[None, None]
    position_ids = torch.tensor([*range(12), *range(12, 17), *range(12, 19)], device=tokens.device)
    with _evaluating(model):
        try:
            packed = model(
                input_ids=tokens[None],
                attention_mask=mask,
                position_ids=position_ids[None],
                use_cache=False,
            ).logits[0]
            first_alone = _plain(model, torch.cat([context, first]))
            second_alone = _plain(model, torch.cat([context, second]))
        except _ERRORS:
            return False
        apart = torch.cat([first_alone, second_alone[12:]])
        return packed.shape == apart.shape and _agree(model, packed, apart)


# --- how are answers generated? -------------------------------------------------------------------


@dataclass(frozen=True)
class Decoding:
    """How a model can generate so that each prompt gets the same answer as alone.

    Attributes:
        joined: prompts read in different batches may be continued in one batch.
        batched: prompts of different lengths may share a left-padded batch.
        cached: a key/value cache may be used.
        token_bytes: size of the cache per token; 0 without a cache.
        recorded: rows may be joined, and a step may be recorded and replayed.
    """

    joined: bool
    batched: bool
    cached: bool
    token_bytes: int = 0
    recorded: bool = False


_decoding: WeakKeyDictionary[nn.Module, dict[Any, Decoding]] = WeakKeyDictionary()
"""Probe results by model, because answers are generated in many calls."""


def decoding_of(
    model: Any,
    joint: Callable[..., Tensor],
    *,
    recording: Callable[..., Tensor] | None = None,
    cacheable: bool = True,
    length: int = 0,
) -> Decoding:
    """The fastest way to generate that gives each prompt the same answer as alone.

    Args:
        model: the model, adapted or not.
        joint: continues rows that were read separately; a ``custom_generate`` of ``transformers``.
        recording: as ``joint``, by replays of a recorded step; tried first if given.
        cacheable: whether the method that adapted the model works with a cache.
        length: tokens of the longest prompt with its answer.

    Raises:
        BenchError: even a single prompt without a cache does not match the forward pass.
    """
    known = _decoding.setdefault(model, {})
    limit = unscaled_length(model)
    # Cached keys have the frequencies of the length at which they were computed.
    cacheable = cacheable and (limit is None or length <= limit)
    asked = cacheable, recording is not None
    if asked not in known:
        with _evaluating(model):
            known[asked] = _probe_decoding(model, joint, recording, cacheable)
    return known[asked]


def _probe_decoding(
    model: Any,
    joint: Callable[..., Tensor],
    recording: Callable[..., Tensor] | None,
    cacheable: bool,
) -> Decoding:
    prompts, answer = _prompts(model)
    plain = [_plain(model, torch.cat([prompt, answer]))[len(prompt) - 1 : -1] for prompt in prompts]
    apart = not virtual_tokens(model) and not has_windows(model)
    # Padding would push prepended trained vectors out of a window.
    padded = not virtual_tokens(model) or not has_windows(model)
    loops = (recording, joint) if apart and cacheable else ()
    options_to_try = [
        *((loop, True, True) for loop in loops if loop is not None),
        *(
            (None, batched, cached)
            # A method's claim about the cache may be wrong, so the opposite is tried as well.
            for cached in (cacheable, not cacheable)
            for batched in ((True, False) if padded else (False,))
        ),
    ]
    for loop, batched, cached in options_to_try:
        options = {} if loop is None else {"custom_generate": loop}
        try:
            groups = [prompts] if batched else [[prompt] for prompt in prompts]
            logits = [
                row
                for group in groups
                for row in _continue(model, group, answer, use_cache=cached, **options)
            ]
        except _ERRORS:
            continue
        if all(
            _agree(model, generated, expected)
            for generated, expected in zip(logits, plain, strict=True)
        ):
            return Decoding(
                joined=loop is not None,
                batched=batched,
                cached=cached,
                token_bytes=_kept_bytes(model) if cached else 0,
                recorded=loop is not None and loop is recording,
            )
    raise BenchError(
        f"{_name(model)} cannot generate answers: `generate` of transformers does not continue "
        "even a single prompt as the model's own forward pass does. Use a protocol that compares "
        "candidates."
    )


def _prompts(model: Any) -> tuple[list[Tensor], Tensor]:
    tokens = _tokens(model, 14)
    return [tokens[:3], tokens[3:11]], tokens[11:]


def _continue(
    model: Any, prompts: Sequence[Tensor], answer: Tensor, **options: Any
) -> list[Tensor]:
    """Logits of each step while ``generate`` is forced to write ``answer``.

    Returns:
        (steps, vocabulary) for each prompt.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    recorded: list[Tensor] = []

    def force(ids: Tensor, logits: Tensor) -> Tensor:
        forced = torch.full_like(logits, float("-inf"))
        forced[:, answer[len(recorded)]] = 0.0
        recorded.append(logits.detach().clone())
        return forced

    width = max(map(len, prompts))
    pad = int(answer[0])
    ids = torch.stack([nn.functional.pad(row, (width - len(row), 0), value=pad) for row in prompts])
    mask = torch.stack(
        [nn.functional.pad(torch.ones_like(row), (width - len(row), 0)) for row in prompts]
    )
    plain = GenerationConfig(pad_token_id=pad)  # type: ignore[no-untyped-call]
    with _generation_config(model, plain), torch.no_grad():
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=len(answer),
            do_sample=False,
            logits_processor=LogitsProcessorList([force]),
            **options,
        )
    return list(torch.stack(recorded, dim=1))


@contextmanager
def _generation_config(model: Any, config: Any) -> Iterator[None]:
    """Temporarily replace a model's own generation configuration."""
    owners = [model, *([model.get_base_model()] if hasattr(model, "peft_config") else [])]
    kept = [(owner, owner.generation_config) for owner in owners]
    try:
        for owner, _ in kept:
            owner.generation_config = config
        yield
    finally:
        for owner, own in kept:
            owner.generation_config = own


@torch.no_grad()
def _kept_bytes(model: Any) -> int:
    """Bytes of keys and values that a model caches per token; 0 if it caches something else."""
    tokens = _tokens(model, 4)
    try:
        kept = model(input_ids=tokens[None], use_cache=True).past_key_values
        tensors = [t for layer in kept.layers for t in (layer.keys, layer.values)]
        return int(sum(t.numel() * t.element_size() for t in tensors)) // len(tokens)
    except _ERRORS:
        return 0


# --- comparison -----------------------------------------------------------------------------------


def _tokens(model: Any, count: int) -> Tensor:
    """Non-special tokens, (count,) int64, distinct if the vocabulary is large enough."""
    config = model.config.get_text_config()
    special: set[Any] = set()
    for name in ("bos", "eos", "pad", "sep"):
        named = getattr(config, f"{name}_token_id", None)
        special |= set(named) if isinstance(named, (list, tuple)) else {named}
    plain = [token for token in range(3, config.vocab_size) if token not in special]
    step = max(1, len(plain) // (count + 1))
    return torch.tensor([plain[(n * step) % len(plain)] for n in range(count)], device=model.device)


def _plain(model: Any, ids: Tensor) -> Tensor:
    """(length, vocabulary) logits of a single row, without a cache."""
    logits: Tensor = model(
        input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], use_cache=False
    ).logits[0]
    # Virtual tokens come before the row's own.
    return logits[len(logits) - len(ids) :]


def _agree(model: Any, logits: Tensor, expected: Tensor) -> bool:
    """Whether logits are equal up to rounding; true if non-finite, to be checked later."""
    logits, expected = logits.float(), expected.float()
    if not (logits.isfinite().all() and expected.isfinite().all()):
        return True
    device = expected.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
    tolerance = max(1e-3, ROUNDINGS * torch.finfo(dtype).eps)
    return bool((logits - expected).abs().max() <= tolerance * expected.abs().max())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _name(model: Any) -> str:
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return type(base).__name__


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())[:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
