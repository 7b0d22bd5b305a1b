"""What a batch takes: torch's own run with content, and the operations of a layer by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

from quanta_bench.costs.footprints import Shape, measure
from quanta_bench.data.batches import collate
from quanta_bench.data.encoding import Encoded
from quanta_bench.errors import UsageError
from quanta_bench.evaluation.likelihood import token_log_likelihoods
from quanta_bench.plugins import build_method
from quanta_bench.task import Example

LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


def really(folder: Path, method: str, settings: dict[str, object], shape: Shape) -> list[int]:
    """Operations forward and backward, and bytes kept, of a step with weights."""
    made = build_method(method, settings)
    dtype = torch.float32 if made.base_precision == "float32" else torch.bfloat16
    model = LlamaForCausalLM.from_pretrained(folder, dtype=dtype)
    model = made.adapt(model, 0).train()
    own = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    item = Encoded(
        Example("", "", {}), 0, (tuple(range(2, 2 + shape.context)),) * shape.candidates,
        (tuple(range(2, 2 + shape.answer)),) * shape.candidates, (1,) * shape.candidates, 0, 0,
    )  # fmt: skip
    batch = collate([item] * shape.items, 0, packed=shape.packed)
    if not shape.packed:
        # As in nearly all batches something is padding; without any, no mask would be made.
        batch.attention_mask[0, -1] = 0
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    forward, backward = (FlopCounterMode(display=False) for _ in range(2))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with forward, hooks, torch.autocast("cpu", torch.bfloat16):
        total = token_log_likelihoods(model, batch).sum()
    with backward:
        total.backward()
    return [
        forward.get_total_flops(),
        backward.get_total_flops(),
        sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
    ]


@pytest.mark.parametrize(
    ("method", "settings"),
    [("lora", LORA), ("full", {}), ("quanta", {"dims": [4, 4, 4], "rectangular": "pad"})],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_step_without_content_is_the_step_with_it(
    method: str, settings: dict[str, object], packed: bool, tiny_model: Path
) -> None:
    shape = Shape(3, 40, 2, 5, packed)
    found, _ = measure(f"local:{tiny_model}", build_method(method, settings), shape)
    forward, backward, kept = really(tiny_model, method, settings, shape)
    # torch's counter leaves out the processor's attention: of 4 x tokens x width a token, and
    # two and a half times as much backward.
    attended = 2 * sum(4 * length**2 * 64 for length in ([48] * 3 if packed else [44] * 6))
    assert found.forward - attended == pytest.approx(forward, rel=0.01)
    # Without content QuanTA goes gate by gate; with it, its plan may merge gates.
    assert found.backward - 2.5 * attended == pytest.approx(
        backward, rel=0.06 if method == "quanta" else 0.01
    )
    assert found.kept == pytest.approx(kept, rel=0.05)


def test_each_further_layer_of_llama2_by_hand() -> None:
    """Frozen, a layer costs as much backward as forward; trained, twice as much."""
    shape = Shape(2, 100, 1, 1)
    weights = 4 * 4096**2 + 3 * 4096 * 11008
    attended = 2 * 4 * 100**2 * 4096
    _, full = measure("llama2-7b", build_method("full", {}), shape)
    assert full.forward == 2 * 200 * weights + attended
    assert full.backward == 2 * full.forward + attended / 2
    adapter = 2 * 8 * (4096 + 4096)
    _, lora = measure("llama2-7b", build_method("lora", {"r": 8}), shape)
    assert lora.forward == full.forward + 2 * 200 * adapter
    # The adapter's own weights have gradients, the base's have none.
    assert lora.backward == full.forward + 1.5 * attended + 2 * 2 * 200 * adapter


def test_what_a_frozen_llama_layer_keeps_by_hand() -> None:
    shape = Shape(2, 100, 1, 1)
    _, lora = measure(
        "llama2-7b", build_method("lora", {"r": 8, "target_modules": ["q_proj"]}), shape
    )
    width, inner, tokens = 4096, 11008, 200
    half = 2 * (
        4 * width  # queries, keys, values and what attention makes of them
        + 3 * inner  # both halves of the gate, and its nonlinearity
        + width  # the input of the adapter
    )
    wide = 4 * 2 * width  # the input of each of two norms, in float32
    assert lora.kept == pytest.approx(tokens * (half + wide), rel=0.05)


def test_recomputation_keeps_the_input_of_a_layer_alone_and_costs_a_pass() -> None:
    method, shape = build_method("lora", {"r": 8}), Shape(2, 100, 1, 1)
    _, plain = measure("llama2-7b", method, shape)
    _, again = measure("llama2-7b", method, shape, recomputed=True)
    assert again.kept == pytest.approx(2 * 100 * 4096 * 2, rel=0.05)
    # It stops where nothing more is needed, before the layer's last product.
    assert 0.7 < (again.backward - plain.backward) / plain.forward <= 1


def test_nothing_is_kept_where_nothing_trains() -> None:
    whole, _ = measure("llama2-7b", build_method("none", {}), Shape(1, 10))
    assert whole.kept == whole.backward == 0


def test_an_encoder_reads_and_says_no_words() -> None:
    method = build_method("lora", {"r": 8, "target_modules": ["query", "value"]})
    whole, each = measure("roberta-base", method, Shape(8, 70, 0, 0))
    weights = 12 * 768**2 + 2 * 8 * (768 + 768)
    assert each.forward == 2 * 560 * weights + 8 * 4 * 70**2 * 768
    assert whole.kept > 12 * each.kept * 0.9


def test_a_method_that_does_not_fit_says_why() -> None:
    with pytest.raises(UsageError, match="dims"):
        measure("llama2-7b", build_method("quanta", {"dims": [3, 5, 7]}), Shape(1, 10))
