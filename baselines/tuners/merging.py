"""Merging an adapter's update into the weight of its layer, and unmerging it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class MergingLayer(nn.Module, BaseTunerLayer):
    """An `nn.Linear` or a `transformers` `Conv1D` with adapters whose updates are matrices.

    The base weight is unchanged until a merge. A merged weight is a new parameter, so modules that
    share W0, such as a tied embedding, keep it. W0 itself is kept for `unmerge`: subtracting the
    update would leave rounding errors.

    Args:
        base_layer: The layer to adapt.
    """

    base_layer: nn.Module
    unmerged_weight: Tensor | None

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        # A buffer, so that it moves with the model; another module may share the parameter.
        self.register_buffer("unmerged_weight", None, persistent=False)
        self._unmerged_parameter: tuple[nn.Parameter, ...] = ()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._unloaded: set[str] = set()

    @abstractmethod
    def adapter_names(self) -> tuple[str, ...]:
        """Names of this layer's adapters, active or not."""

    @abstractmethod
    def update_matrix(self, adapter_name: str, dtype: torch.dtype) -> Tensor:
        """An adapter's update of the weight: shape (out, in), computed in ``dtype``.

        Raises:
            ValueError: The update is not a matrix; the message says why.
        """

    @torch.no_grad()
    def expect_values(self, adapter_name: str) -> None:
        """Declare that the values of an adapter will be loaded.

        They are NaN until then: initial values would hide tensors missing from a file, which
        `transformers` only reports.
        """
        for value in self._saved_tensors(adapter_name).values():
            if value.is_floating_point():
                value.fill_(torch.nan)
        if not self._unloaded:
            self.register_forward_pre_hook(_check_values)
        self._unloaded.add(adapter_name)

    def check_values(self, adapter_names: Iterable[str]) -> None:
        """Check that the expected values of adapters are loaded.

        Raises:
            RuntimeError: A tensor has no values.
        """
        for adapter_name in self._unloaded & set(adapter_names) & set(self.adapter_names()):
            missing = [
                name
                for name, value in self._saved_tensors(adapter_name).items()
                if value.is_meta or (value.numel() and bool(torch.isnan(value).all()))
            ]
            if missing:
                raise RuntimeError(
                    f"adapter {adapter_name!r}: {', '.join(missing)} of {type(self).__name__} have "
                    "no values. The adapter was created for inference (inference_mode=True), and "
                    "no file loaded into it had these tensors. Load the adapter with "
                    "peft.PeftModel, which also reads files of earlier versions; or set "
                    "inference_mode=False for a new adapter"
                )
            self._unloaded.discard(adapter_name)

    def _saved_tensors(self, adapter_name: str) -> dict[str, Tensor]:
        return {
            f"{container}.{name}": value
            for container, modules in self.named_children()
            if isinstance(modules, nn.ModuleDict) and adapter_name in modules
            for name, value in modules[adapter_name].state_dict().items()
        }

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter."""
        self._unloaded.discard(adapter_name)
        super().delete_adapter(adapter_name)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the updates of adapters to the base weight, in float32 or better, rounded once.

        Args:
            safe_merge: Check the merged weight; leave the layer unchanged if it is not finite.
            adapter_names: Adapters to merge; the active ones by default. Already merged
                adapters are skipped.

        Raises:
            RuntimeError: Expected values of an adapter were not loaded.
            ValueError: The weight is not a plain floating-point tensor (quantised, say), the
                merged weight is not finite, or an update is not a matrix.
        """
        names = check_adapters_to_merge(self, adapter_names)
        own = self.adapter_names()
        names = [name for name in names if name in own]
        if not names:
            return
        self.check_values(names)
        weight = self._weight
        if type(weight) is not nn.Parameter or not weight.is_floating_point():
            raise ValueError(
                f"merge: the base weight is a {type(weight).__name__} of {weight.dtype}; an "
                "adapter merges into plain floating-point weights only. Load the base model "
                "without quantisation and merge there"
            )
        first = self.unmerged_weight is None
        original = weight.data if self.unmerged_weight is None else self.unmerged_weight
        merged = [*self.merged_adapters, *names]
        with exact(original):
            total = sum(self.update_matrix(name, self._precision) for name in merged)
            result = self._plus(original, total)
        if safe_merge and not torch.isfinite(result).all():
            raise ValueError(
                f"merge: adapters {names} give a weight that is not finite; nothing was merged"
            )
        if first:
            # In a tuple, so that `nn.Module` does not register it.
            self._unmerged_parameter = (weight,)
        self._set_weight(nn.Parameter(result, requires_grad=weight.requires_grad))
        self.unmerged_weight = original
        self.merged_adapters = merged

    def unmerge(self) -> None:
        """Restore W0, bit for bit. Without merged adapters, do nothing."""
        if self.unmerged_weight is not None:
            (parameter,) = self._unmerged_parameter
            kept = self.unmerged_weight
            if (parameter.dtype, parameter.device) != (kept.dtype, kept.device):
                parameter.data = kept  # the model was moved or cast in the meantime
            parameter.requires_grad_(self._weight.requires_grad)
            self._set_weight(parameter)
        self._forget_unmerged()
        self.merged_adapters = []

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """Return the base layer, with adapters merged or without (called by `peft`)."""
        if merge:
            self.merge(safe_merge=safe_merge, adapter_names=adapter_names)
        self._forget_unmerged()
        return self.get_base_layer()

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """An adapter's update in the layout of the base weight, in float32 or float64."""
        with exact(self._weight):
            update = self.update_matrix(adapter_name, self._precision)
        return update.mT if self._transposed else update

    def _forget_unmerged(self) -> None:
        self.unmerged_weight = None
        self._unmerged_parameter = ()

    def _set_weight(self, parameter: nn.Parameter) -> None:
        cast(Any, self.get_base_layer()).weight = parameter

    @property
    def _weight(self) -> Tensor:
        return cast(Tensor, self.get_base_layer().weight)

    @property
    def _transposed(self) -> bool:
        return isinstance(self.get_base_layer(), Conv1D)

    @property
    def _precision(self) -> torch.dtype:
        """The dtype of updates: float64 for a float32 or float64 weight, else float32."""
        weight = self._weight
        # Apple's devices do not support float64.
        double = weight.dtype in (torch.float32, torch.float64) and weight.device.type != "mps"
        return torch.float64 if double else torch.float32

    def _plus(self, weight: Tensor, matrix: Any) -> Tensor:
        """The weight plus a matrix (out, in), rounded once."""
        if self._transposed:
            matrix = matrix.mT
        return cast(Tensor, (weight.to(matrix.dtype) + matrix).to(weight.dtype))


def _check_values(layer: MergingLayer, args: Any) -> None:
    # After the first pass there is nothing to check.
    if layer._unloaded and not layer.disable_adapters and not torch.compiler.is_compiling():
        layer.check_values(layer.active_adapters)


@contextmanager
def exact(weight: Tensor) -> Iterator[None]:
    """No autograd, no autocast, and no inference tensors, which later training could not use."""
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        # The meta device has no autocast.
        torch.autocast("cpu" if weight.is_meta else weight.device.type, enabled=False),
    ):
        yield


def linear_features(layer: nn.Module, name: str) -> tuple[int, int]:
    """Input and output width of an adaptable layer.

    Raises:
        ValueError: The layer is of another type.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, Conv1D):
        rows, columns = layer.weight.shape
        return int(rows), int(columns)
    raise ValueError(
        f"module {name!r} is a {type(layer).__name__}; adapters here go on torch.nn.Linear and "
        "transformers' Conv1D. Leave it out of target_modules, or name it in exclude_modules"
    )
