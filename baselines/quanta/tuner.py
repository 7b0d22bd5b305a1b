"""QuanTA as a `peft` tuner."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from baselines.quanta.layer import QuantaLinear
from baselines.quanta.targets import plan_layer
from baselines.tuners.tuner import LinearTuner


class QuantaModel(LinearTuner):
    """A model whose targeted linear layers have QuanTA adapters (arXiv:2406.00132).

    Made by `peft.get_peft_model(model, QuantaConfig(...))`; see `peft`'s `BaseTuner`.

    Raises:
        ValueError: A target is not a linear layer, or its sizes do not fit. All targets are checked
            before the first is replaced, so the model is left unchanged.
    """

    prefix: str = "quanta_"
    tuner_layer_cls = QuantaLinear

    def check_target(self, layer: nn.Module, config: Any, name: str) -> None:
        """Raise `ValueError` if a layer can't be adapted as configured."""
        plan_layer(layer, config, name)

    def new_layer(
        self, target: nn.Module, adapter_name: str, config: Any, name: str
    ) -> QuantaLinear:
        """The adapted layer that replaces a target."""
        return QuantaLinear(target, adapter_name, config, name)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        # T and S are created in float32, so peft's upcast matters only after loading. Without it,
        # the user asked for the adapter in the base model's dtype.
        for module in self.model.modules():
            if not isinstance(module, QuantaLinear) or adapter_name not in module.quanta_gates:
                continue
            base = cast(Tensor, module.get_base_layer().weight).dtype
            gates = {gate.dtype for gate in module.quanta_gates[adapter_name].parameters()}
            if autocast_adapter_dtype:
                if gates & {torch.float16, torch.bfloat16}:
                    module.cast_adapter(adapter_name, torch.float32)
            elif base.is_floating_point:
                module.cast_adapter(adapter_name, base)
