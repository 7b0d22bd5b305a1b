"""Log-likelihoods of candidates, and the losses made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quanta_bench.data.batches import CandidateBatch
from quanta_bench.models import chunked_log_softmax as vocabulary
from quanta_bench.models.attention import padded_on_the_right
from quanta_bench.models.output_layer import hidden_at, outputs_at
from quanta_bench.spec import Loss, Normaliser


def token_log_likelihoods(model: nn.Module, batch: CandidateBatch) -> Tensor:
    """Log-probability of each predicted token, (tokens,), float32 or wider.

    No logits are kept where the model's output layer is linear and its outputs are the logits;
    otherwise they are made at the predicted positions.
    """
    inputs: dict[str, Tensor] = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
    }
    if batch.position_ids is not None:
        inputs["position_ids"] = batch.position_ids
    with padded_on_the_right():
        return _token_log_likelihoods(model, inputs, batch)


def _token_log_likelihoods(
    model: nn.Module, inputs: dict[str, Tensor], batch: CandidateBatch
) -> Tensor:
    hidden_and_head = hidden_at(model, inputs, batch.where)
    if hidden_and_head is not None:
        hidden, head = hidden_and_head
        return vocabulary.token_log_likelihoods(hidden, head.weight, head.bias, batch.targets)
    with outputs_at(model, batch.where) as selected:
        logits: Tensor = model(**inputs, use_cache=False).logits
    if not selected:
        logits = logits.flatten(0, 1)[batch.where]
    # Half-precision logits are widened; float64 ones, which tests use, stay as they are.
    wide = torch.promote_types(logits.dtype, torch.float32)
    return -F.cross_entropy(logits.to(wide), batch.targets, reduction="none")


def log_likelihoods(model: nn.Module, batch: CandidateBatch) -> Tensor:
    """Log-likelihood of each candidate given its context, (candidates,), float64."""
    return candidate_sums(token_log_likelihoods(model, batch), batch)


def candidate_sums(tokens: Tensor, batch: CandidateBatch) -> Tensor:
    """The sums over each candidate's tokens, (candidates,), float64.

    In float64 a sum of float32 terms depends neither on their order nor, for equal terms, on how
    they round: a model that gives every token the same likelihood gives candidates of any length
    the same mean.
    """
    tokens = tokens.double()
    return tokens.new_zeros(len(batch.lengths)).index_add(0, batch.candidate, tokens)


def normalise(sums: Tensor, batch: CandidateBatch, normaliser: Normaliser) -> Tensor:
    """Candidates' log-likelihoods made comparable across lengths, (candidates,)."""
    if normaliser == "sum":
        return sums
    return sums / (batch.lengths if normaliser == "token_mean" else batch.sizes)


def by_item(scores: Tensor, batch: CandidateBatch) -> Tensor:
    """Scores as an (items, most candidates) table, minus infinity where an item has fewer."""
    # Counted on the host: a device would have to be waited for.
    width = max(len(item.candidates) for item in batch.items)
    table = scores.new_full((len(batch.gold), width), float("-inf"))
    return table.index_put((batch.example, batch.slot), scores)


def loss(model: nn.Module, batch: CandidateBatch, kind: Loss) -> Tensor:
    """The training loss of a batch, a scalar, float32 or float64; see `loss_of`."""
    return loss_of(token_log_likelihoods(model, batch), batch, kind)


def loss_of(tokens: Tensor, batch: CandidateBatch, kind: Loss) -> Tensor:
    """The training loss of a batch by the log-likelihoods of its tokens.

    ``candidates`` is the cross-entropy of the right one among an item's candidates, with their
    length-normalised log-likelihoods as logits, as in the public code of the QuanTA paper; its
    mean is over items. The other two are language modelling on the batch's continuations; their
    mean is over tokens.
    """
    if kind == "candidates":
        sums = candidate_sums(tokens, batch)
        return F.cross_entropy(by_item(normalise(sums, batch, "token_mean"), batch), batch.gold)
    return -tokens.mean()
