# Copyright 2026-present the HuggingFace Inc. team.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import math
import warnings
from typing import Any, Optional

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils import quantization_extra_repr, resolve_quantization_backend
from peft.utils.other import transpose

from .circuit import WeightCircuit
from .config import QuantaConfig
from .dims import fit_circuit


class QuantaLayer(BaseTunerLayer):
    # All names of layers that may contain (trainable) adapter weights
    adapter_layer_names = ("quanta_gates",)
    # All names of other parameters that may contain adapter-related parameters
    other_param_names = ("quanta_frozen", "quanta_dropout", "quanta_circuits")

    def __init__(self, base_layer: nn.Module, **kwargs) -> None:
        self.base_layer = base_layer
        # T, the trained circuit, and S, the frozen copy of its start, are both saved: S could otherwise not be known
        # after loading, as it is random
        self.quanta_gates = nn.ModuleDict({})
        self.quanta_frozen = nn.ModuleDict({})
        self.quanta_dropout = nn.ModuleDict({})
        self.quanta_circuits: dict[str, WeightCircuit] = {}
        # Mark the weight as unmerged
        self._disable_adapters = False
        self.merged_adapters = []

        base_layer = self.get_base_layer()
        self.in_features, self.out_features = _get_in_out_features(base_layer)
        self.quantization_backend = resolve_quantization_backend(base_layer, **kwargs)
        self.kwargs = kwargs

    def update_layer(self, adapter_name: str, module_name: str, config: QuantaConfig) -> None:
        circuit = fit_circuit(
            self.in_features,
            self.out_features,
            config.dims_for(module_name),
            config.rectangular,
            config.parameter_budget,
            module_name,
        )
        shapes = [gate.shape for gate in circuit.circuit.gates]
        self.quanta_circuits[adapter_name] = circuit
        self.quanta_dropout[adapter_name] = nn.Dropout(config.dropout) if config.dropout > 0.0 else nn.Identity()
        self.quanta_gates[adapter_name] = nn.ParameterList([torch.empty(shape) for shape in shapes])
        # pairs, as the order of a dictionary's keys would not be kept
        self.quanta_frozen[adapter_name] = BufferDict(
            [(str(index), torch.empty(shape)) for index, shape in enumerate(shapes)],
            persistent=True,
        )
        self.reset_quanta_parameters(adapter_name, config.init_weights)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @torch.no_grad()
    def reset_quanta_parameters(self, adapter_name: str, init_weights: bool) -> None:
        for gate, frozen in zip(self.quanta_gates[adapter_name], self.quanta_frozen[adapter_name].values()):
            # as a matrix, the gate maps the two axes before it to those after it
            rows = gate.shape[0] * gate.shape[1]
            nn.init.kaiming_uniform_(frozen.view(rows, -1), a=math.sqrt(5))
            if init_weights:
                gate.copy_(frozen)
            else:
                nn.init.kaiming_uniform_(gate.view(rows, -1), a=math.sqrt(5))

    def cast_frozen(self, adapter_name: str) -> None:
        """Give S the dtype of T, from which it is subtracted."""
        if adapter_name in self.quanta_gates:
            self.quanta_frozen[adapter_name].to(self.quanta_gates[adapter_name][0].dtype)


class Linear(nn.Module, QuantaLayer):
    # QuanTA implemented in a dense layer
    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        module_name: str,
        config: QuantaConfig,
        **kwargs,
    ) -> None:
        super().__init__()
        QuantaLayer.__init__(self, base_layer, **kwargs)
        # Conv1D stores its weight as (in_features, out_features)
        self.fan_in_fan_out = isinstance(self.get_base_layer(), Conv1D)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, module_name, config=config)

    def merge(self, safe_merge: bool = False, adapter_names: Optional[list[str]] = None) -> None:
        """
        Merge the active adapter weights into the base weights

        Args:
            safe_merge (`bool`, *optional*):
                If True, the merge operation will be performed in a copy of the original weights and check for NaNs
                before merging the weights. This is useful if you want to check if the merge operation will produce
                NaNs. Defaults to `False`.
            adapter_names (`list[str]`, *optional*):
                The list of adapter names that should be merged. If None, all active adapters will be merged. Defaults
                to `None`.
        """
        adapter_names = check_adapters_to_merge(self, adapter_names)
        if not adapter_names:
            # no adapter to merge
            return

        for active_adapter in adapter_names:
            if active_adapter in self.quanta_gates:
                weight = self.get_base_weight()
                merged = (weight + self.get_delta_weight(active_adapter)).to(weight.dtype)
                if safe_merge and not torch.isfinite(merged).all():
                    raise ValueError(
                        f"NaNs detected in the merged weights. The adapter {active_adapter} seems to be broken"
                    )
                self.set_base_weight(merged)
                self.merged_adapters.append(active_adapter)

    def unmerge(self) -> None:
        """
        This method unmerges all merged adapter layers from the base weights.
        """
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.")
            return

        while len(self.merged_adapters) > 0:
            active_adapter = self.merged_adapters.pop()
            if active_adapter in self.quanta_gates:
                weight = self.get_base_weight()
                self.set_base_weight((weight - self.get_delta_weight(active_adapter)).to(weight.dtype))

    @torch.no_grad()
    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """
        Compute the delta weight for the given adapter, in float32 or float64 and in the layout of the base weight.

        Args:
            adapter (str):
                The name of the adapter for which the delta weight should be computed.
        """
        gate = self.quanta_gates[adapter][0]
        dtype = torch.promote_types(gate.dtype, torch.float32)
        rows = torch.eye(self.in_features, device=gate.device, dtype=dtype)
        return transpose(self._get_update(adapter, rows), not self.fan_in_fan_out)

    def _get_update(self, adapter: str, x: torch.Tensor) -> torch.Tensor:
        # T x - S x, exactly zero as long as T equals S
        circuit = self.quanta_circuits[adapter]
        trained = [gate.to(x.dtype) for gate in self.quanta_gates[adapter]]
        frozen = [gate.to(x.dtype) for gate in self.quanta_frozen[adapter].values()]
        return circuit.apply(x, trained) - circuit.apply(x, frozen)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            result = self.base_layer(x, *args, **kwargs)
        elif self.merged:
            result = self.base_layer(x, *args, **kwargs)
        else:
            result = self.base_layer(x, *args, **kwargs)
            torch_result_dtype = result.dtype
            if self.quantization_backend is not None:
                result = self.quantization_backend.maybe_clone_base_result(result)

            for active_adapter in self.active_adapters:
                if active_adapter not in self.quanta_gates:
                    continue
                inputs = self._cast_input_dtype(x, self.quanta_gates[active_adapter][0].dtype)
                inputs = self.quanta_dropout[active_adapter](inputs)
                result = result + self._get_update(active_adapter, inputs)

            result = result.to(torch_result_dtype)

        return result

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def extra_repr(self) -> str:
        return quantization_extra_repr(self)

    def __repr__(self) -> str:
        rep = super().__repr__()
        return "quanta." + rep
