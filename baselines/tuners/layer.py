"""A linear layer with adapters, each a part that computes something of the layer's input."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from baselines.tuners.initial import generator_for
from baselines.tuners.merging import MergingLayer, linear_features

if TYPE_CHECKING:
    from baselines.tuners.config import AdapterConfig
    from baselines.tuners.tuner import AdapterTuner

Place: TypeAlias = Literal["beside", "before", "after"]
"""Where a part stands: ``y = W(x + before(x)) + beside(x)``, and then ``y + after(y)``."""


class Part(nn.Module, ABC):
    """What one adapter computes at one linear layer.

    A part is made with its tensors uninitialised, on whatever device is the default then, and
    `reset` gives them their start. Its parameters are the adapter's; what it keeps fixed and wants
    saved is a buffer.

    Attributes:
        in_features: Length of the vectors that the part takes.
        place: Where the part stands.
        why_no_matrix: Why the part is not a matrix and so can't be merged; empty if it is one.
    """

    in_features: int
    place: Place = "beside"
    why_no_matrix: ClassVar[str] = ""

    @abstractmethod
    def reset(self, generator: torch.Generator) -> None:
        """Fill the parameters, from a CPU generator; see `baselines.tuners.initial`."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``; before and after a layer, to the width of ``x``.

        ``x`` has the part's own dtype, or any under autocast.
        """

    def matrix(self) -> Tensor:
        """The part as a matrix (out, in): ``forward(x) == x @ matrix().mT``.

        By default, the part applied to the rows of the identity.
        """
        parameter = next(self.parameters())
        identity = torch.eye(self.in_features, dtype=parameter.dtype, device=parameter.device)
        return cast(Tensor, self(identity)).mT

    def rank_bound(self) -> int | None:
        """The largest rank that `matrix` can have; ``None`` if the part is not a matrix."""
        return None


class AdaptedLinear(MergingLayer):
    """A `nn.Linear` or a `transformers` `Conv1D` with adapters, as `peft` has them.

    Args:
        base_layer: The layer to adapt.
        tuner: The tuner, which makes the parts; its prefix begins the name of their container.
        adapter_name: Name of the first adapter.
        config: Its configuration.
        name: Name of the module in the model; it seeds the start.

    Raises:
        ValueError: The layer is of another type, or the configuration does not fit its widths.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        tuner: type[AdapterTuner],
        adapter_name: str,
        config: AdapterConfig,
        name: str,
    ) -> None:
        super().__init__(base_layer)
        self.in_features, self.out_features = linear_features(self.get_base_layer(), name)
        self._tuner = tuner
        # `peft` finds what to save and to count by the tuner's prefix.
        self.adapter_layer_names = (f"{tuner.prefix}parts",)
        self.add_module(self.adapter_layer_names[0], nn.ModuleDict())
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, name)

    @property
    def parts(self) -> nn.ModuleDict:
        """The adapters' parts by name."""
        return cast(nn.ModuleDict, self.get_submodule(self.adapter_layer_names[0]))

    def part(self, adapter_name: str) -> Part:
        """The part of an adapter that this layer has."""
        return cast(Part, self.parts[adapter_name])

    def adapter_names(self) -> tuple[str, ...]:
        """Names of the adapters that this layer has, active or not."""
        return tuple(self.parts)

    def update_layer(self, adapter_name: str, config: AdapterConfig, name: str) -> None:
        """Add an adapter; arguments as for the class.

        Raises:
            ValueError: The configuration does not fit the layer's widths.
        """
        weight = self._weight
        with torch.device(weight.device):
            part = self._tuner.make_part(config, self.in_features, self.out_features, name)
        if weight.dtype == torch.float64:
            part.double()
        if not weight.is_meta:
            part.reset(generator_for(config.seed, name))
        self.parts[adapter_name] = part
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        # peft's own also casts to the base layer's dtype, which would round a loaded adapter.
        if adapter_name in self.parts:
            part = self.parts[adapter_name]
            if not any(tensor.is_meta for tensor in part.state_dict().values()):
                part.to(self._weight.device if device is None else device)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the layer to ``(..., in_features)``; the dtype is that of the base layer's output.

        A part computes in its own dtype, or autocast's.
        """
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged:
            return self._base(x, *args, **kwargs)
        active = [self.part(name) for name in self.active_adapters if name in self.parts]
        adapted = x
        for part in active:
            if part.place == "before":
                adapted = adapted + _apply(part, x).to(x.dtype)
        result = self._base(adapted, *args, **kwargs)
        total = result
        for part in active:
            if part.place == "beside":
                total = total + _apply(part, x)
        output = total
        for part in active:
            if part.place == "after":
                total = total + _apply(part, output)
        return total.to(result.dtype)

    def update_matrix(self, adapter_name: str, dtype: torch.dtype) -> Tensor:
        """What an adapter adds to the weight: shape (out, in), computed in ``dtype``.

        Raises:
            ValueError: The part is not a matrix; the message says why.
        """
        part = self.part(adapter_name)
        if part.why_no_matrix:
            raise ValueError(part.why_no_matrix)
        return copy.deepcopy(part).to(dtype).matrix()

    def _base(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return cast(Tensor, self.base_layer(x, *args, **kwargs))

    def __repr__(self) -> str:
        return self._tuner.prefix.rstrip("_") + "." + super().__repr__()


def _apply(part: Part, x: Tensor) -> Tensor:
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):  # which meta has not
        x = x.to(next(part.parameters()).dtype)
    return cast(Tensor, part(x))
