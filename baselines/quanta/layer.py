"""Adapted linear layers: y = W0 x + T x - S x (QuanTA paper, Eq. 8).

T is the trained circuit, S a frozen copy of its initial state. Both are saved, so that a loaded
adapter does not depend on the random number generator.

T and S are applied in one pass, and equal gates give exact zeros: the adapted layer initially
equals its base layer in every dtype, bit for bit. Replacing W0 by W0 - S would save the computation
of S, but lose this: rounded to bfloat16 it changes the logits of SmolLM2-135M by 0.13 on average
(q_proj and v_proj, dims 9-8-8).

Each pass is computed from the current weights. For the backward pass T keeps its input to each
matrix of its plan, or with `recompute` only the layer's input; S keeps only its gates. Inside
`baselines.tuners.frozen.frozen`, passes without gradients use cached matrices.

``quanta-bench bench layer`` times the layer against LoRA and against the bare matrix products.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.quanta.config import QuantaConfig, Recompute
from baselines.quanta.initial import kaiming_gates_
from baselines.quanta.planning import product_cost
from baselines.quanta.rates import rates_of
from baselines.quanta.rectangular import WeightCircuit
from baselines.quanta.targets import is_plain, plan_layer
from baselines.tuners.frozen import DerivedTensors
from baselines.tuners.initial import generator_for
from baselines.tuners.merging import MergingLayer, exact, linear_features

RECOMPUTE: Mapping[Recompute, bool | None] = {"auto": None, "always": True, "never": False}

MOST_BYTES = 1 << 23
"""Maximum size of a T - S that is cached next to a base weight of lower precision."""


class FrozenGates(nn.Module):
    """Gate tensors as persistent buffers, named by their index as in a `nn.ParameterList`."""

    def __init__(self, gates: Sequence[Tensor]) -> None:
        super().__init__()
        for index, gate in enumerate(gates):
            self.register_buffer(str(index), gate)


class QuantaLinear(MergingLayer):
    """An `nn.Linear` or a `transformers` `Conv1D` with QuanTA adapters.

    Args:
        base_layer: The layer to adapt. Its weight is unchanged until a merge.
        adapter_name: Name of the first adapter.
        config: Its configuration.
        name: Name of the module in the model, which seeds the initial gates and selects `dims`.

    Raises:
        ValueError: The layer has an unsupported type, or the configured sizes do not fit it.
    """

    # The trainable parameters of an adapter, by peft's convention.
    adapter_layer_names: tuple[str, ...] = ("quanta_gates",)
    other_param_names: tuple[str, ...] = (
        "quanta_frozen",
        "quanta_dropout",
        "quanta_circuits",
        "quanta_recompute",
    )

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, config: QuantaConfig, name: str
    ) -> None:
        super().__init__(base_layer)
        self.in_features, self.out_features = linear_features(self.get_base_layer(), name)
        self.quanta_gates = nn.ModuleDict()
        self.quanta_frozen = nn.ModuleDict()
        self.quanta_dropout = nn.ModuleDict()
        self.quanta_circuits: dict[str, WeightCircuit] = {}
        self.quanta_recompute: dict[str, bool | None] = {}
        self.derived = DerivedTensors()
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, name)

    # Adapters.

    def update_layer(self, adapter_name: str, config: QuantaConfig, name: str) -> None:
        """Add an adapter; arguments as for the class.

        Raises:
            ValueError: The configured sizes do not fit the layer.
        """
        circuit = plan_layer(self.get_base_layer(), config, name)
        weight = self._weight
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        shapes = circuit.circuit.gate_shapes
        frozen = [torch.empty(shape, device=weight.device, dtype=dtype) for shape in shapes]
        if not weight.is_meta:
            kaiming_gates_(frozen, generator_for(config.seed, name))
        self.quanta_circuits[adapter_name] = circuit
        self.quanta_recompute[adapter_name] = RECOMPUTE[config.recompute]
        self.quanta_dropout[adapter_name] = (
            nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
        )
        self.quanta_gates[adapter_name] = nn.ParameterList(gate.clone() for gate in frozen)
        self.quanta_frozen[adapter_name] = FrozenGates(frozen)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def cast_adapter(self, adapter_name: str, dtype: torch.dtype) -> None:
        """Cast T and S of an adapter to a floating dtype."""
        if adapter_name in self.quanta_gates:
            self.quanta_gates[adapter_name].to(dtype)
            self.quanta_frozen[adapter_name].to(dtype)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        # peft's method also casts to the base layer's dtype, which would round T and S on loading.
        if adapter_name in self.quanta_gates:
            target = self._weight.device if device is None else device
            for gates in (self.quanta_gates, self.quanta_frozen):
                if not any(tensor.is_meta for tensor in gates[adapter_name].state_dict().values()):
                    gates[adapter_name].to(target)

    # Forward.

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the layer to ``(..., in_features)``; the dtype is that of the base layer's output.

        T x - S x is computed in the adapter's dtype, or in autocast's, and added with one rounding.
        """
        if self.disable_adapters and self.merged:
            self.unmerge()
        names = () if self.disable_adapters or self.merged else self._active_names()
        if not names:
            return self._base(x, *args, **kwargs)
        plain = not args and not kwargs and is_plain(self.base_layer)
        if self._uses_cache(names):
            if plain and _dtype(x) == self._weight.dtype in (torch.float32, torch.float64):
                return functional.linear(x, self._cached_weight(names), self._bias)
            if self._cached_update_is_faster(names, x):
                result = self._base(x, *args, **kwargs)
                return result + functional.linear(x, self._cached_update(names, _dtype(x)))
        if plain and len(names) == 1 and not self._drops(names[0]):
            trained, frozen = self._tensors(names[0], "T"), self._tensors(names[0], "S")
            if _one_dtype(x, [self._weight, *trained, *frozen]):
                return self.quanta_circuits[names[0]].apply(
                    x,
                    trained,
                    minus=frozen,
                    recompute=self.quanta_recompute[names[0]],
                    weight=self._weight.mT if self._transposed else self._weight,
                    bias=self._bias,
                )
        result = total = self._base(x, *args, **kwargs)
        for name in names:
            total = total + self.quanta_circuits[name].apply(
                self.quanta_dropout[name](x),
                self._tensors(name, "T"),
                minus=self._tensors(name, "S"),
                recompute=self.quanta_recompute[name],
            )
        return total.to(result.dtype)

    def _drops(self, name: str) -> bool:
        return self.training and isinstance(self.quanta_dropout[name], nn.Dropout)

    def _base(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return cast(Tensor, self.base_layer(x, *args, **kwargs))

    def _tensors(self, name: str, which: Literal["T", "S"]) -> list[Tensor]:
        if which == "S":
            return cast("list[Tensor]", list(self.quanta_frozen[name]._buffers.values()))
        gates = cast(nn.ParameterList, self.quanta_gates[name])
        parameters = cast("list[Tensor]", list(gates._parameters.values()))
        # A parametrized gate is not among the list's own parameters.
        return parameters if len(parameters) == len(gates) else list(gates)

    def _active_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.active_adapters if name in self.quanta_gates)

    @property
    def _bias(self) -> Tensor | None:
        return cast("Tensor | None", self.get_base_layer().bias)

    # While weights are frozen.

    def _uses_cache(self, names: Sequence[str]) -> bool:
        """Whether a pass may use tensors cached across passes."""
        return (
            self.derived.kept
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not self._weight.is_meta
            and not any(map(self._drops, names))
        )

    def _cached_weight(self, names: tuple[str, ...]) -> Tensor:
        """W0 + T - S, shape ``(out_features, in_features)``: one product serves both."""
        weight = self._weight

        def make() -> Tensor:
            with exact(weight):
                return self._plus(weight, self._update(names))

        total = self.derived.get((names, weight.dtype, weight.device), make)
        return total.mT if self._transposed else total

    def _cached_update(self, names: tuple[str, ...], dtype: torch.dtype) -> Tensor:
        """T - S in a dtype, separate from W0, in which rounding would lose it."""

        def make() -> Tensor:
            with exact(self._weight):
                return self._update(names).to(dtype).contiguous()

        return self.derived.get((names, dtype, self._weight.device), make)

    def _update(self, names: Sequence[str]) -> Tensor:
        updates = (self.update_matrix(name, self._precision) for name in names)
        return functools.reduce(torch.add, updates)

    def _cached_update_is_faster(self, names: Sequence[str], x: Tensor) -> bool:
        """Whether a product with T - S is cheaper than the circuits, by the planner's estimate."""
        size = self.in_features * self.out_features
        vectors = x.numel() // x.shape[-1]
        if size * x.element_size() > MOST_BYTES or not vectors:
            return False
        circuits = 0.0
        for name in names:
            plan = self.quanta_circuits[name].circuit.plan(vectors, device=x.device)
            circuits += 2 * plan.cost * vectors / plan.tokens
        shape = self.out_features, self.in_features
        return product_cost(vectors, *shape, rates_of(x.device.type)) < circuits

    # Merging.

    def adapter_names(self) -> tuple[str, ...]:
        """Names of this layer's adapters, active or not."""
        return tuple(self.quanta_gates)

    def update_matrix(self, adapter_name: str, dtype: torch.dtype) -> Tensor:
        """T - S of an adapter as a matrix (out, in), computed in ``dtype``."""
        return self._matrix(adapter_name, "T", dtype) - self._matrix(adapter_name, "S", dtype)

    def _matrix(self, name: str, which: Literal["T", "S"], dtype: torch.dtype) -> Tensor:
        """T or S as (out, in)."""
        gates = [gate.to(self._weight.device, dtype) for gate in self._tensors(name, which)]
        return self.quanta_circuits[name].matrix(gates)

    def __repr__(self) -> str:
        return "quanta." + super().__repr__()


def _one_dtype(x: Tensor, others: Sequence[Tensor]) -> bool:
    """Whether a base layer and an adapter compute in one dtype."""
    dtypes = {x.dtype, *(other.dtype for other in others)}
    if not x.is_meta and torch.is_autocast_enabled(x.device.type):
        return torch.float64 not in dtypes
    return len(dtypes) == 1


def _dtype(x: Tensor) -> torch.dtype:
    """The dtype that a linear layer computes in: autocast's if enabled."""
    if not x.is_meta and torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
