"""Adapted layers computed with merged weights, while the weights of a model stand still.

In float32 and float64, a layer whose adapter merges computes ``y = W' x + b`` with W' the merged
weight, in as many products as its base layer. In bfloat16 and float16, W' would round away most of
a small update. There, under autocast, which rounds the adapter's own weights too, the layer
computes ``y = (W x + b) + (W' - W) x`` where that is estimated to be clearly faster than its own
pass: for few vectors, as in generation, and adapters of many operators.

The base is never written to: W' is made by the layer's own ``merge``, called on a copy of the layer
with a copy of the base weight, and kept beside it until the block ends.

Held are layers that `peft` calls tuner layers, of any method whose updates merge, over a plain
`nn.Linear` or `Conv1D`, with one active adapter, in evaluation mode and without gradients. All
others compute as they do outside of a block: bottleneck adapters and quantum networks are not
linear, and prefixes are no update of a weight; a quantised base layer is not a plain weight; a
sharded one is not whole between passes.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from quanta_bench.method import Method
from quanta_bench.models.operator_costs import estimated_seconds, rates_of
from quanta_bench.models.sharding import is_sharded

MOST_BYTES = 1 << 30
"""Bound on what is kept of all layers of a block together. Of a larger model the layers that are
called first are held; the others compute as outside."""

EXACT = (torch.float32, torch.float64)
"""Dtypes in which a merged weight keeps the update."""

LOW = (torch.bfloat16, torch.float16)
"""Dtypes of autocast in which the update is kept apart."""

LEAST = 64
"""Vectors that a pass counts as at least: its operators cost about that much however few it has."""

MARGIN = 1.5
"""How many times faster a pass with the update kept apart has to be than a layer's own: making the
update takes time too, and the estimates are not exact."""


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
        block = _Block(MOST_BYTES)
        for layer in layers:
            vars(layer)["forward"] = HeldProduct(layer, block)
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


class _Block:
    """What the layers of a block share.

    Attributes:
        left: the bytes that may still be kept.
        faster: whether a pass with the update kept apart is faster than a layer's own, by the
            layer's kind and the order of magnitude of the number of vectors.
    """

    def __init__(self, left: int) -> None:
        self.left = left
        self.faster: dict[Hashable, bool] = {}


class _Product(NamedTuple):
    """A product with a weight (out, in) and a bias (out)."""

    weight: Tensor
    bias: Tensor | None


class HeldProduct:
    """The forward pass of a tuner layer inside of a block.

    What is kept is made once the layer has seen as many vectors as it is wide, because making it
    costs about a pass of that many. A copy of the layer gets one that holds nothing.

    Args:
        layer: the layer.
        block: the block; without it, nothing is held.
    """

    def __init__(self, layer: Any, block: _Block | None = None) -> None:
        self._layer = layer
        self._block = block
        self._seen = 0
        self._products: dict[Hashable, _Product | None] = {}
        self._faster: dict[Hashable, bool] = {}

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output for ``(..., in)``."""
        block = self._block
        if block is not None and not args and not kwargs and self._holds(x):
            dtype = _dtype(x)
            if dtype in EXACT and x.dtype == dtype == self._layer.base_layer.weight.dtype:
                product = self._product(block, x, dtype)
                if product is not None:
                    return functional.linear(x, product.weight, product.bias)
            elif (
                dtype in LOW
                and torch.is_autocast_enabled(x.device.type)
                and self._is_faster(block, x, dtype)
            ):
                product = self._product(block, x, dtype)
                if product is not None:
                    return _plus(self._layer.base_layer(x), x.to(dtype), product)
        return self._own(x, *args, **kwargs)

    def _own(self, *args: Any, **kwargs: Any) -> Tensor:
        return cast(Tensor, type(self._layer).forward(self._layer, *args, **kwargs))

    def _holds(self, x: Tensor) -> bool:
        """Whether a product may replace this pass."""
        layer = self._layer
        return (
            not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not layer.training
            and not layer.disable_adapters
            and not layer.merged
            and len(layer.active_adapters) == 1
            and not x.is_meta
            and x.numel() > 0
            and _is_plain(layer.base_layer)
        )

    def _product(self, block: _Block, x: Tensor, dtype: torch.dtype) -> _Product | None:
        """What is kept for passes in a dtype; ``None`` if nothing is."""
        layer, weight = self._layer, self._layer.base_layer.weight
        if self._seen < x.shape[-1]:
            self._seen += max(x.numel() // x.shape[-1], LEAST)
            return None
        key = (layer.active_adapters[0], dtype, weight.dtype, weight.device)
        if key not in self._products:
            count = weight.numel() * dtype.itemsize
            product = _merged(layer, dtype) if count <= block.left else None
            block.left -= 0 if product is None else count
            self._products[key] = product
        return self._products[key]

    def _is_faster(self, block: _Block, x: Tensor, dtype: torch.dtype) -> bool:
        """Whether a pass with the update kept apart is estimated to be faster than the own one."""
        vectors = x.numel() // x.shape[-1]
        key = (self._layer.active_adapters[0], dtype, vectors.bit_length())
        if key not in self._faster:
            shapes = tuple(tuple(value.shape) for value in self._layer.parameters())
            kind = (type(self._layer), shapes, *key)
            if kind not in block.faster:
                block.faster[kind] = self._compare(x, dtype)
            self._faster[key] = block.faster[kind]
        return self._faster[key]

    def _compare(self, x: Tensor, dtype: torch.dtype) -> bool:
        base, rates = self._layer.base_layer, rates_of(x.device)
        own = estimated_seconds(functools.partial(self._own, x), rates)
        least = estimated_seconds(functools.partial(base, x), rates)
        rows, columns = reversed(base.weight.shape) if _is_transposed(base) else base.weight.shape
        vectors = x.numel() // x.shape[-1]
        kept_apart = least + rates.product(vectors, rows, columns, dtype.itemsize)
        return MARGIN * kept_apart < own

    def __reduce__(self) -> tuple[type[HeldProduct], tuple[Any]]:
        return HeldProduct, (self._layer,)


def _dtype(x: Tensor) -> torch.dtype:
    """The dtype that a linear layer computes in: autocast's if enabled."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


def _plus(base: Tensor, x: Tensor, update: _Product) -> Tensor:
    """A base layer's output plus the update's, added in float32 and rounded once."""
    rows = base.reshape(-1, base.shape[-1])
    total = torch.addmm(rows, x.reshape(-1, x.shape[-1]), update.weight.mT).view_as(base)
    return total if update.bias is None else total + update.bias


def _merged(layer: Any, dtype: torch.dtype) -> _Product | None:
    """A layer's merged weight and bias, in a low dtype their change; ``None`` if it can't merge."""
    base, low = _shallow(layer.base_layer), dtype in LOW
    for name, value in base._parameters.items():
        if value is not None:
            copied = value.detach().to(torch.float32 if low else value.dtype, copy=True)
            base._parameters[name] = nn.Parameter(copied, requires_grad=False)
    merging = _shallow(layer)
    merging._modules["base_layer"] = base
    autocast = torch.autocast(base.weight.device.type, enabled=False)
    with torch.inference_mode(False), torch.no_grad(), autocast:
        try:
            # Refused if it is not finite: the layer's own pass then shows what is wrong.
            merging.merge(safe_merge=True)
        except Exception:  # any error of the tuner's code; its own pass is always right
            return None
        if not merging.merged_adapters:
            return None
        merged = merging.get_base_layer()
        weight, bias = merged.weight.detach(), merged.bias
        if low:
            weight = (weight - layer.base_layer.weight).to(dtype)
            bias = None if bias is None else (bias - layer.base_layer.bias).to(dtype)
            if bias is not None and not bias.any():
                bias = None
        weight = weight.mT if _is_transposed(merged) else weight
        return _Product(weight, None if bias is None else bias.detach())


def _shallow(module: Any) -> Any:
    """A copy of a module with the same tensors and submodules in containers of its own."""
    copied = copy.copy(module)
    attributes = vars(copied)
    attributes.pop("forward", None)
    for name, value in attributes.items():
        if isinstance(value, (dict, list, set)):
            attributes[name] = copy.copy(value)
    return copied


def _is_transposed(layer: nn.Module) -> bool:
    """Whether a plain layer's weight is (in, out)."""
    return not isinstance(layer, nn.Linear)


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
