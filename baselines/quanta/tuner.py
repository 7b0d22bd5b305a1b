"""QuanTA as a `peft` tuner."""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn

from baselines.quanta.layer import QuantaLayer, QuantaLinear
from baselines.quanta.register import PREFIX
from baselines.quanta.targets import plan_layer


class QuantaModel(BaseTuner):
    """A model whose targeted linear layers have QuanTA adapters (arXiv:2406.00132).

    Made by `peft.get_peft_model(model, QuantaConfig(...))`; see `peft`'s `BaseTuner`.

    Raises:
        ValueError: A target is not a linear layer, or its sizes do not fit. All targets given by
            name are checked before the first is replaced, so the model is left as it was.
    """

    prefix: str = PREFIX
    tuner_layer_cls = QuantaLayer
    # The paper adapts the query and value projections, as LoRA does by default.
    target_module_mapping: dict[str, list[str]] = {
        kind: list(names)
        for kind, names in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.items()
    }

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        inside: tuple[str, ...] = ()
        for name, module in model.named_modules():
            if name.startswith(inside):  # a part of another adapter
                continue
            if isinstance(module, BaseTunerLayer):
                inside = (*inside, f"{name}.")
            if name and self._check_target_module_exists(peft_config, name):
                plan_layer(_base(module), peft_config, name)

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, QuantaLinear):
            target.update_layer(adapter_name, peft_config, current_key)
            return
        layer = QuantaLinear(target, adapter_name, peft_config, current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)  # an additional adapter does not train until it is set
        self._replace_module(parent, target_name, layer, target)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        # T and S are made in float32, so peft's upcast has work to do only after a load, and its
        # opposite means what the user asked for: the adapter in the base model's dtype.
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


def _base(module: Any) -> nn.Module:
    return cast(
        nn.Module, module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    )
