"""A linear layer with adapters, each a module that computes an update from the layer's input."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from baselines.tuners.config import AdapterConfig
from baselines.tuners.initial import generator_for
from baselines.tuners.merging import MergingLayer, linear_features

Position: TypeAlias = Literal["parallel", "input", "output"]
"""Where an adapter acts: ``y = W(x + input(x)) + parallel(x)``, and then ``y + output(y)``."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # supported for computation


class AdapterModule(nn.Module, ABC):
    """The computation of one adapter at one linear layer.

    It is created with uninitialised tensors on the current default device; `reset` initialises
    them. Its parameters are trained; fixed tensors that need saving are buffers.

    Attributes:
        in_features: Input width.
        position: Where it acts.
        not_linear: Why it is not a matrix and can't be merged; empty if it is a matrix.
    """

    in_features: int
    position: Position = "parallel"
    not_linear: ClassVar[str] = ""

    @abstractmethod
    def reset(self, generator: torch.Generator) -> None:
        """Initialise the parameters from a CPU generator; see `baselines.tuners.initial`."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``; at a layer's input or output, to the width of ``x``.

        ``x`` has the dtype of the parameters; any dtype under autocast.
        """

    def matrix(self) -> Tensor:
        """The adapter as a matrix (out, in): ``forward(x) == x @ matrix().mT``.

        By default, the adapter applied to the rows of the identity.
        """
        parameter = next(self.parameters())
        identity = torch.eye(self.in_features, dtype=parameter.dtype, device=parameter.device)
        return cast(Tensor, self(identity)).mT

    def rank_bound(self) -> int | None:
        """The largest rank that `matrix` can have; ``None`` if the adapter is not a matrix."""
        return None


AdapterFactory: TypeAlias = Callable[[Any, int, int, str], AdapterModule]
"""Creates the adapter of a layer from a configuration, the layer's widths and its name."""


class AdaptedLinear(MergingLayer):
    """An `nn.Linear` or a `transformers` `Conv1D` with `peft` adapters.

    Args:
        base_layer: The layer to adapt.
        prefix: The tuner's prefix, which starts the name of the container of adapters.
        factory: Creates the adapters.
        adapter_name: Name of the first adapter.
        config: Its configuration.
        name: Name of the module in the model; it seeds the initial values.

    Raises:
        ValueError: The layer is of another type, or the configuration does not fit its widths.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        prefix: str,
        factory: AdapterFactory,
        adapter_name: str,
        config: AdapterConfig,
        name: str,
    ) -> None:
        super().__init__(base_layer)
        self.in_features, self.out_features = linear_features(self.get_base_layer(), name)
        self.prefix = prefix
        self._factory = factory
        # Files name the container "parts"; `transformers` finds it by the tuner's prefix.
        self.adapter_layer_names = (f"{prefix}parts",)
        self.add_module(self.adapter_layer_names[0], nn.ModuleDict())
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, name)

    @property
    def adapters(self) -> nn.ModuleDict:
        """The adapters by name."""
        return cast(nn.ModuleDict, self.get_submodule(self.adapter_layer_names[0]))

    def adapter(self, adapter_name: str) -> AdapterModule:
        """An adapter of this layer."""
        return cast(AdapterModule, self.adapters[adapter_name])

    def adapter_names(self) -> tuple[str, ...]:
        """Names of this layer's adapters, active or not."""
        return tuple(self.adapters)

    def update_layer(self, adapter_name: str, config: AdapterConfig, name: str) -> None:
        """Add an adapter; arguments as for the class.

        Raises:
            ValueError: The configuration does not fit the layer's widths.
        """
        weight = self._weight
        with torch.device(weight.device):
            adapter = self._factory(config, self.in_features, self.out_features, name)
        if weight.dtype == torch.float64:
            adapter.double()
        if not weight.is_meta:
            adapter.reset(generator_for(config.seed, name))
        self.adapters[adapter_name] = adapter
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def cast_adapter(self, adapter_name: str, autocast: bool) -> None:
        """Cast an adapter from half precision to float32, or to the base layer's dtype."""
        if adapter_name not in self.adapters:
            return
        adapter = self.adapters[adapter_name]
        if autocast:
            half = {value.dtype for value in adapter.parameters()} - {torch.float32, torch.float64}
            if half:
                adapter.to(torch.float32)
        elif self._weight.dtype in DTYPES:
            adapter.to(self._weight.dtype)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        # peft's method also casts to the base layer's dtype, which would round a loaded adapter.
        if adapter_name in self.adapters:
            adapter = self.adapters[adapter_name]
            if not any(tensor.is_meta for tensor in adapter.state_dict().values()):
                adapter.to(self._weight.device if device is None else device)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the layer to ``(..., in_features)``; the dtype is that of the base layer's output.

        An adapter computes in its own dtype, or in autocast's.
        """
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged:
            return self._base(x, *args, **kwargs)
        active = [self.adapter(name) for name in self.active_adapters if name in self.adapters]
        adapted = x
        for adapter in active:
            if adapter.position == "input":
                adapted = adapted + _apply(adapter, x).to(x.dtype)
        result = self._base(adapted, *args, **kwargs)
        total = result
        for adapter in active:
            if adapter.position == "parallel":
                total = total + _apply(adapter, x)
        output = total
        for adapter in active:
            if adapter.position == "output":
                total = total + _apply(adapter, output)
        return total.to(result.dtype)

    def update_matrix(self, adapter_name: str, dtype: torch.dtype) -> Tensor:
        """An adapter's update of the weight: shape (out, in), computed in ``dtype``.

        Raises:
            ValueError: The adapter is not a matrix; the message says why.
        """
        adapter = self.adapter(adapter_name)
        if adapter.not_linear:
            raise ValueError(adapter.not_linear)
        return copy.deepcopy(adapter).to(dtype).matrix()

    def _base(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return cast(Tensor, self.base_layer(x, *args, **kwargs))

    def __repr__(self) -> str:
        return self.prefix.rstrip("_") + "." + super().__repr__()


def _apply(adapter: AdapterModule, x: Tensor) -> Tensor:
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):  # unsupported on meta
        x = x.to(next(adapter.parameters()).dtype)
    return cast(Tensor, adapter(x))
