"""Adapted linear layers: y = W0 x + T x - S x (QuanTA paper, Eq. 8).

T is the trained circuit, S its frozen copy from the start. Both are saved, so that an adapter
loaded elsewhere is the one that was trained whatever draws random numbers there.

``quanta-bench bench layer`` times both forms against LoRA and against the bare matrix products.

On a bfloat16 base the folded form does not start at the base model: W0 - S is rounded. On
SmolLM2-135M (q_proj and v_proj, four passages of text) it moves the logits by 0.13 on average and
1.8 at most with 9-8-8, by 0.14 and 1.9 with 6-6-4-4; the unfolded form moves none, to the bit.
That is why "auto" folds on a float32 base alone.

For the backward pass T keeps its input to each matrix of its plan, or with `recompute` the layer's
input alone; S keeps nothing but its gates. Without gradients, and for few vectors, T - S is one
matrix (see `inference`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.quanta.config import Form, QuantaConfig, Recompute
from baselines.quanta.inference import KeptMatrices, as_matrix
from baselines.quanta.initial import kaiming_gates_
from baselines.quanta.rectangular import WeightCircuit
from baselines.quanta.targets import is_plain, plan_layer
from baselines.tuners.initial import generator_for
from baselines.tuners.merging import MergingLayer, exact, linear_features

RECOMPUTE: Mapping[Recompute, bool | None] = {"auto": None, "always": True, "never": False}


class FrozenGates(nn.Module):
    """Gate tensors as persistent buffers, named by their index as in a `nn.ParameterList`."""

    def __init__(self, gates: Sequence[Tensor]) -> None:
        super().__init__()
        for index, gate in enumerate(gates):
            self.register_buffer(str(index), gate)


class QuantaLinear(MergingLayer):
    """A `nn.Linear` or a `transformers` `Conv1D` with QuanTA adapters.

    The folded matrix W0 - S is a derived buffer: not saved, built at the first forward that needs
    it, and again when the active adapters, the base weight, or dtype and device change.

    Args:
        base_layer: The layer to adapt. Its weight is not touched before a merge, unless
            `fold_in_place` asks for it.
        adapter_name: Name of the first adapter.
        config: Its configuration.
        name: Name of the module in the model, which seeds the initial gates and selects `dims`.

    Raises:
        ValueError: The layer is of another type, or the configured sizes do not fit it.
    """

    # The parameters an adapter trains, as peft asks for them.
    adapter_layer_names: tuple[str, ...] = ("quanta_gates",)
    other_param_names: tuple[str, ...] = (
        "quanta_frozen",
        "quanta_dropout",
        "quanta_circuits",
        "quanta_forms",
        "quanta_recompute",
    )
    quanta_folded: Tensor | None

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, config: QuantaConfig, name: str
    ) -> None:
        super().__init__(base_layer)
        self.in_features, self.out_features = linear_features(self.get_base_layer(), name)
        self.quanta_gates = nn.ModuleDict()
        self.quanta_frozen = nn.ModuleDict()
        self.quanta_dropout = nn.ModuleDict()
        self.quanta_circuits: dict[str, WeightCircuit] = {}
        self.quanta_forms: dict[str, tuple[Form, bool]] = {}
        self.quanta_recompute: dict[str, bool | None] = {}
        self.register_buffer("quanta_folded", None, persistent=False)
        self._kept = KeptMatrices()
        self._folded_names: tuple[str, ...] = ()
        self._folded_for: tuple[tuple[str, ...], tuple[Any, ...]] | None = None
        self._subtracted: tuple[str, ...] = ()  # whose S is subtracted from the base weight
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
        self.quanta_forms[adapter_name] = (
            "unfolded" if config.dropout > 0 else config.form,
            config.fold_in_place,
        )
        self.quanta_recompute[adapter_name] = RECOMPUTE[config.recompute]
        self.quanta_dropout[adapter_name] = (
            nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
        )
        self.quanta_gates[adapter_name] = nn.ParameterList(gate.clone() for gate in frozen)
        self.quanta_frozen[adapter_name] = FrozenGates(frozen)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter; the weight of the base layer no longer holds its S."""
        self._unfold()
        super().delete_adapter(adapter_name)

    def enable_adapters(self, enabled: bool) -> None:
        """Switch all adapters on or off; off, the layer is its base layer."""
        if not enabled:
            self._unfold(keep_buffer=True)
        super().enable_adapters(enabled)

    def cast_adapter(self, adapter_name: str, dtype: torch.dtype) -> None:
        """Bring T and S of an adapter to a floating dtype."""
        if adapter_name in self.quanta_gates:
            self._unfold()
            self.quanta_gates[adapter_name].to(dtype)
            self.quanta_frozen[adapter_name].to(dtype)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        # peft's own also casts to the base layer's dtype, which would round T and S on loading.
        if adapter_name in self.quanta_gates:
            self._unfold()
            target = self._weight.device if device is None else device
            for part in (self.quanta_gates, self.quanta_frozen):
                if not any(tensor.is_meta for tensor in part[adapter_name].state_dict().values()):
                    part[adapter_name].to(target)

    # Forward.

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Apply the layer to ``(..., in_features)``; the dtype is that of the base layer's output.

        T x - S x is computed in the adapter's dtype, or autocast's, and added with one rounding.
        """
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.disable_adapters or self.merged:
            return self._base(x, *args, **kwargs)

        names = self._active_names()
        if self._fold_is_stale(names):  # also when the last active adapter has gone
            self._fold(names)
        folded, bias = None, None
        if self.quanta_folded is not None and not args and not kwargs:
            folded = self.quanta_folded.mT if self._transposed else self.quanta_folded
            bias = cast("Tensor | None", self.get_base_layer().bias)
        if folded is not None and len(names) == 1:
            return self._delta(names[0], x, folded, bias)
        if folded is None:
            result = self._base(x, *args, **kwargs)
        else:
            result = functional.linear(x, folded, bias)
        total = result
        for name in names:
            total = total + self._delta(name, x)
        return total.to(result.dtype)

    def _delta(
        self, name: str, x: Tensor, folded: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """T x, less S x unless W0 - S stands for it; with the folded layer added if given."""
        circuit, trained = self.quanta_circuits[name], self._tensors(name, "T")
        minus = None if name in self._folded_names else self._tensors(name, "S")
        gates = [*trained, *(minus or [])]
        dropped = self.quanta_dropout[name](x)
        if as_matrix(circuit, dropped, gates, 1 if minus is None else 2):
            dtype = _dtype(dropped)
            wide = torch.promote_types(dtype, torch.float32)
            matrix = self._kept.get(name, gates, dtype, lambda: self._made(name, minus, wide))
            result = functional.linear(dropped, matrix)
            return result if folded is None else result + functional.linear(x, folded, bias)
        return circuit.apply(
            dropped,
            trained,
            minus=minus,
            recompute=self.quanta_recompute[name],
            weight=folded,
            bias=bias,
        )

    def _made(self, name: str, minus: Sequence[Tensor] | None, dtype: torch.dtype) -> Tensor:
        with exact(self._weight):
            trained = self._matrix(name, "T", dtype)
            return trained if minus is None else trained - self._matrix(name, "S", dtype)

    def _base(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return cast(Tensor, self.base_layer(x, *args, **kwargs))

    def _tensors(self, name: str, which: Literal["T", "S"]) -> list[Tensor]:
        if which == "T":
            # Read one by one, not by parameters(): a gate may be computed from something else.
            return list(cast(nn.ParameterList, self.quanta_gates[name]))
        return list(self.quanta_frozen[name].buffers())

    def _active_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.active_adapters if name in self.quanta_gates)

    # Folding.

    def is_folded(self, adapter_name: str) -> bool:
        """Whether W0 - S stands for this adapter's S, by its form and by what the weight allows."""
        form, _ = self.quanta_forms[adapter_name]
        if form == "unfolded" or not is_plain(self.base_layer):
            return False
        return form == "folded" or self._weight.dtype in (torch.float32, torch.float64)

    def _fold_is_stale(self, names: tuple[str, ...]) -> bool:
        if self._folded_for is None or self._folded_for[0] != names:
            return True
        # A compiled graph can't see the weight change under it; nothing in training changes it.
        return not torch.compiler.is_compiling() and self._folded_for[1] != self._weight_state()

    def _weight_state(self) -> tuple[Any, ...]:
        """What must stay the same for W0 - S to stay right."""
        if not is_plain(self.base_layer):
            return ()
        weight = self._weight
        version = 0 if weight.is_inference() else weight._version
        return (weight.data_ptr(), version, weight.dtype)

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def _fold(self, names: tuple[str, ...]) -> None:
        """Build what the active adapters need: W0 minus the sum of their S, with one rounding."""
        self._unfold()
        folded = tuple(name for name in names if self.is_folded(name))
        if folded:
            weight = self._weight.data
            with exact(weight):
                result = self._plus(weight, -self._frozen_sum(folded))
            if any(self.quanta_forms[name][1] for name in folded):
                self._weight.data = result
                self._subtracted = folded
            else:
                self.quanta_folded = result
        self._folded_names = folded
        self._folded_for = (names, self._weight_state())

    def _unfold(self, *, keep_buffer: bool = False) -> None:
        """Give the base weight back its S, where folded in place, and forget the buffer.

        To be called while S still is what was subtracted.
        """
        self._kept.clear()
        if self._subtracted:
            weight = self._weight.data
            with exact(weight):
                self._weight.data = self._plus(weight, self._frozen_sum(self._subtracted))
            self._subtracted = ()
            keep_buffer = False
        if not keep_buffer:
            self.quanta_folded = None
            self._folded_names = ()
            self._folded_for = None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._unfold()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._unfold(keep_buffer=True)  # a saved base weight is W0 (nn.Module saves it after this)
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._unfold()
        super()._load_from_state_dict(*args, **kwargs)

    # Merging.

    def adapter_names(self) -> tuple[str, ...]:
        """Names of the adapters that this layer has, active or not."""
        return tuple(self.quanta_gates)

    def update_matrix(self, adapter_name: str, dtype: torch.dtype) -> Tensor:
        """T - S of an adapter as a matrix (out, in), computed in ``dtype``."""
        return self._matrix(adapter_name, "T", dtype) - self._matrix(adapter_name, "S", dtype)

    def _before_merge(self) -> None:
        self._unfold()

    def _frozen_sum(self, names: tuple[str, ...]) -> Tensor:
        """The sum of S of adapters: in double for a weight in single precision, else in single."""
        return cast(Tensor, sum(self._matrix(name, "S", self._precision) for name in names))

    def _matrix(self, name: str, which: Literal["T", "S"], dtype: torch.dtype) -> Tensor:
        """T or S as (out, in)."""
        gates = [gate.to(self._weight.device, dtype) for gate in self._tensors(name, which)]
        return self.quanta_circuits[name].matrix(gates)

    def __repr__(self) -> str:
        return "quanta." + super().__repr__()


def _dtype(x: Tensor) -> torch.dtype:
    """The dtype that a linear layer computes in, autocast's if that is on."""
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
