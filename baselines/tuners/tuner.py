"""`peft` tuners of linear layers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn

from baselines.tuners import checkpoint
from baselines.tuners.layer import AdaptedLinear, AdapterModule
from baselines.tuners.merging import MergingLayer, linear_features


class LinearTuner(BaseTuner):
    """Base class of the tuners of linear layers.

    Targets are checked before any is replaced. An adapter's tensors are found through the modules,
    not by name, so an adapter may have any name; a file with missing or extra tensors is rejected.

    Raises:
        ValueError: A target is not a linear layer, or its sizes do not fit; the model is left
            unchanged.
    """

    # The query and value projections, or their equivalents, as in LoRA's defaults.
    target_module_mapping: dict[str, list[str]] = {
        kind: list(names)
        for kind, names in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.items()
    }

    @abstractmethod
    def check_target(self, layer: nn.Module, config: Any, name: str) -> None:
        """Raise `ValueError` if a layer can't be adapted as configured."""

    @abstractmethod
    def new_layer(
        self, target: nn.Module, adapter_name: str, config: Any, name: str
    ) -> MergingLayer:
        """The adapted layer that replaces a target."""

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        inside: tuple[str, ...] = ()
        for name, module in model.named_modules():
            if name.startswith(inside):  # belongs to another adapter
                continue
            if isinstance(module, BaseTunerLayer):
                inside = (*inside, f"{name}.")
            if name and self._check_target_module_exists(peft_config, name):
                self.check_target(base_layer_of(module), peft_config, name)

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
        if isinstance(target, self.tuner_layer_cls):
            layer = cast(Any, target)
            layer.update_layer(adapter_name, peft_config, current_key)
        else:
            layer = self.new_layer(target, adapter_name, peft_config, current_key)
            if adapter_name not in self.active_adapters:
                layer.requires_grad_(False)  # an additional adapter trains only once activated
            self._replace_module(parent, target_name, layer, target)
        if peft_config.inference_mode:
            layer.expect_values(adapter_name)

    def _check_merge_allowed(self) -> None:
        """Allow merging: it does not change other modules that share the layer's weight."""

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        return checkpoint.select(state_dict, model, cls.prefix, adapter_name)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        return checkpoint.without_adapter_name(key, cls.prefix, adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        return checkpoint.rename_for_model(state_dict, model, cls.prefix, adapter_name)


class AdapterTuner(LinearTuner):
    """A tuner that puts one `AdapterModule` at each targeted linear layer.

    A subclass sets `prefix`, the prefix of its containers' names, and creates the modules.
    """

    prefix: str
    tuner_layer_cls = AdaptedLinear

    @staticmethod
    @abstractmethod
    def make_adapter(config: Any, in_features: int, out_features: int, name: str) -> AdapterModule:
        """The adapter of a layer of these widths, with uninitialised tensors.

        Args:
            config: the tuner's configuration.
            in_features: width of the layer's input.
            out_features: width of its output.
            name: name of the module in the model, for messages and for per-module settings.

        Raises:
            ValueError: the configuration does not fit these widths; the message names both.
        """

    def check_target(self, layer: nn.Module, config: Any, name: str) -> None:
        """Raise `ValueError` if a layer can't be adapted as configured."""
        with torch.device("meta"):
            self.make_adapter(config, *linear_features(layer, name), name)

    def new_layer(
        self, target: nn.Module, adapter_name: str, config: Any, name: str
    ) -> MergingLayer:
        """The adapted layer that replaces a target."""
        return AdaptedLinear(target, self.prefix, self.make_adapter, adapter_name, config, name)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        # Adapters are created in float32. `peft` expects the base layer's dtype, and therefore does
        # nothing when asked not to autocast.
        for module in self.model.modules():
            if isinstance(module, AdaptedLinear) and module.prefix == self.prefix:
                module.cast_adapter(adapter_name, autocast_adapter_dtype)


def base_layer_of(module: Any) -> nn.Module:
    """The layer under all adapters of a module."""
    return cast(
        nn.Module, module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    )
