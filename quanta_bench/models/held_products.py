"""Adapted layers computed as one product, while the weights of a model stand still.

A layer whose adapter merges computes ``y = W' x + b`` with W' the merged weight, in as many
products as its base layer. The base is never written to: W' is made by the layer's own ``merge``,
called on a copy of the layer with a copy of the base weight, and kept beside it until the block
ends.

Held are layers that `peft` calls tuner layers, of any method whose updates merge, over a plain
`nn.Linear` or `Conv1D` that computes in float32 or float64, with one active adapter, in evaluation
mode and without gradients. All others compute as they do outside of a block:

- In bfloat16 and float16, W' would round away most of a small update. Kept apart, as a second
  product, the update would be rounded otherwise than in the layer's own pass: a model would score
  differently before and after it is held.
- Bottleneck adapters and quantum networks are not linear, and prefixes are no update of a weight.
- A quantised base layer is not a plain weight; a sharded one is not whole between passes.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from quanta_bench.method import Method
from quanta_bench.models.sharding import is_sharded
from quanta_bench.utils.device import may_wait

MOST_BYTES = 1 << 30
"""Bound on all merged weights of a block together. Of a larger model the layers that are called
first are held; the others compute as outside."""

LEAST = 64
"""Vectors that a pass counts as at least: its operators cost about that much however few it has."""

EXACT = (torch.float32, torch.float64)
"""Dtypes in which a merged weight keeps the update."""


@contextmanager
def still(method: Method[Any], model: nn.Module) -> Iterator[None]:
    """A block in which no weight of a model changes, for validation, scoring and generation.

    Changes to weights inside the block may not affect outputs until it ends. Nothing that is
    derived from a weight outlives it. Blocks may be nested.

    Args:
        method: the method that adapted the model.
        model: the adapted model.
    """
    with method.frozen(model):
        layers = _layers(model) if method.mergeable and not is_sharded(model) else []
        room = _Room(MOST_BYTES)
        for layer in layers:
            vars(layer)["forward"] = HeldProduct(layer, room)
        try:
            yield
        finally:
            for layer in layers:
                del vars(layer)["forward"]


def _layers(model: nn.Module) -> list[nn.Module]:
    """The tuner layers of a model that may be held."""
    # A model without adapters needs no peft, which takes seconds to import.
    peft: Any = sys.modules.get("peft.tuners.tuners_utils")
    return [
        module
        for module in (() if peft is None else model.modules())
        if isinstance(module, peft.BaseTunerLayer)
        # A forward of its own is an enclosing block's, or that of a library that moves weights.
        and "forward" not in vars(module)
        # The layer already keeps what it needs until the method's own block ends.
        and not getattr(getattr(module, "derived", None), "kept", False)
        and _is_plain(getattr(module, "base_layer", None))
    ]


class _Room:
    """The bytes that a block may still take; none outside of a block."""

    def __init__(self, left: int = 0) -> None:
        self.left = left


class _Product(NamedTuple):
    """A merged layer: weight (out, in) and bias (out)."""

    weight: Tensor
    bias: Tensor | None


class HeldProduct:
    """The forward pass of a tuner layer inside of a block.

    The merged weight is made for the pass with which the layer has seen as many vectors as it is
    wide, because making it costs about a pass of that many. A copy of the layer gets one that holds
    nothing.

    Args:
        layer: the layer.
        room: what all layers of the block may take together.
    """

    def __init__(self, layer: Any, room: _Room | None = None) -> None:
        self._layer = layer
        self._room = room or _Room()
        self._seen = 0
        self._products: dict[tuple[str, torch.dtype, torch.device], _Product | None] = {}

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output for ``(..., in)``."""
        product = None if args or kwargs or not self._holds(x) else self._product(x)
        if product is None:
            return cast(Tensor, type(self._layer).forward(self._layer, x, *args, **kwargs))
        return functional.linear(x, product.weight, product.bias)

    def _holds(self, x: Tensor) -> bool:
        """Whether this pass may be one product."""
        layer = self._layer
        return (
            not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not layer.training
            and not layer.disable_adapters
            and not layer.merged
            and len(layer.active_adapters) == 1
            and _is_plain(layer.base_layer)
            and not x.is_meta
            and x.dtype in EXACT
            and x.dtype == layer.base_layer.weight.dtype
            and not torch.is_autocast_enabled(x.device.type)
        )

    def _product(self, x: Tensor) -> _Product | None:
        layer, weight = self._layer, self._layer.base_layer.weight
        self._seen += max(x.numel() // x.shape[-1], LEAST)
        if self._seen < x.shape[-1]:
            return None
        key = (layer.active_adapters[0], weight.dtype, weight.device)
        if key not in self._products:
            if not may_wait(x.device):
                return None  # checking the weight would: a later pass makes it
            self._products[key] = self._make(weight.numel() * weight.element_size())
        return self._products[key]

    def _make(self, count: int) -> _Product | None:
        """The layer merged, if as many bytes are left and it merges."""
        product = _merged(self._layer) if count <= self._room.left else None
        if product is not None:
            self._room.left -= count
        return product

    def __reduce__(self) -> tuple[type[HeldProduct], tuple[Any]]:
        return HeldProduct, (self._layer,)


def _merged(layer: Any) -> _Product | None:
    """A layer's merged weight and bias; ``None`` if it does not merge."""
    base = _shallow(layer.base_layer)
    for name, value in base._parameters.items():
        if value is not None:
            base._parameters[name] = nn.Parameter(value.detach().clone(), requires_grad=False)
    merging = _shallow(layer)
    merging._modules["base_layer"] = base
    device = base.weight.device.type
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
        try:
            # Refused if it is not finite: the layer's own pass then shows what is wrong.
            merging.merge(safe_merge=True)
        except Exception:  # any error of the tuner's code; its own pass is always right
            return None
    if not merging.merged_adapters:
        return None
    base = merging.get_base_layer()
    weight = base.weight.detach()
    bias = None if base.bias is None else base.bias.detach()
    return _Product(weight if isinstance(base, nn.Linear) else weight.mT, bias)


def _shallow(module: Any) -> Any:
    """A copy of a module with the same tensors and submodules in containers of its own."""
    copied = copy.copy(module)
    attributes = vars(copied)
    attributes.pop("forward", None)
    for name, value in attributes.items():
        if isinstance(value, (dict, list, set)):
            attributes[name] = copy.copy(value)
    return copied


def _is_plain(layer: Any) -> bool:
    """Whether a layer is just a weight and a bias, so that one product can replace it.

    Not if it overrides forward (quantised layers, other adapters, offloading) or has hooks, which
    would not run.
    """
    from transformers.pytorch_utils import Conv1D

    return (
        isinstance(layer, (nn.Linear, Conv1D))
        and type(layer).forward in (nn.Linear.forward, Conv1D.forward)
        and "forward" not in vars(layer)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and type(layer._parameters.get("weight")) is nn.Parameter
        and layer.weight.is_floating_point()
        and not layer.weight.is_meta
    )
