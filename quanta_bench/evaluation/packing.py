"""Whether a model gives packed candidates the numbers that they have one by one."""

from __future__ import annotations

from typing import Any

import torch

from quanta_bench.data.batches import collate
from quanta_bench.data.encoding import Encoded
from quanta_bench.evaluation.likelihood import log_likelihoods
from quanta_bench.models.attention import is_sdpa
from quanta_bench.task import Example


def can_pack(model: Any) -> bool:
    """Whether candidates of one item may share a row (see :mod:`quanta_bench.data.batches`).

    Packing hands the model a mask of its own between all pairs of positions. Sliding windows would
    be replaced by it, recurrent and convolutional layers would not know it, and not every
    attention implementation takes it. What the configuration does not tell, a probe does: one
    small item, packed and flat, has to get the same likelihoods.
    """
    config = model.config.get_text_config()
    if not is_sdpa(model):
        return False
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return False
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        return False
    low, high = 3, max(4, config.vocab_size - 1)
    tokens = [low + (7 * n) % (high - low) for n in range(24)]
    context, first, second = tuple(tokens[:12]), tuple(tokens[12:17]), tuple(tokens[17:])
    probe = Encoded(Example("", "", {}), 0, (context,) * 2, (first, second), (1, 1), 0, 0)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed, flat = (
                log_likelihoods(model, collate([probe], 0, packed=layout).to(model.device))
                for layout in (True, False)
            )
    except (TypeError, ValueError, RuntimeError):
        # A model that takes no positions or no such mask.
        return False
    finally:
        model.train(was_training)
    lengths = torch.tensor([len(first), len(second)], device=packed.device)
    # Nats a token: eight times the rounding of half precision, or next to nothing.
    tolerance = max(1e-3, 8 * torch.finfo(model.dtype).eps)
    return bool(((packed - flat).abs() / lengths).max() < tolerance)
