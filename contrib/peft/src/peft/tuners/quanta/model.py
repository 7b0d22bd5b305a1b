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

import torch
from transformers.pytorch_utils import Conv1D

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import (
    TRANSFORMERS_MODELS_TO_QUANTA_TARGET_MODULES_MAPPING,
    get_quantization_kwargs,
    resolve_quantization_backend,
)

from .layer import Linear, QuantaLayer


class QuantaModel(BaseTuner):
    """
    Creates a QuanTA model (Quantum-informed Tensor Adaptation) from a pretrained model.

    The method is described in https://huggingface.co/papers/2406.00132.

    Args:
        model ([`torch.nn.Module`]): The model to be adapted.
        config ([`QuantaConfig`]): The configuration of the QuanTA model.
        adapter_name (`str`): The name of the adapter, defaults to `"default"`.
        low_cpu_mem_usage (`bool`, `optional`, defaults to `False`):
            Create empty adapter weights on meta device. Useful to speed up the loading process.

    Returns:
        `torch.nn.Module`: The QuanTA model.

    Example:

        ```py
        >>> from transformers import AutoModelForCausalLM
        >>> from peft import QuantaConfig, get_peft_model

        >>> base_model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.1-8B")
        >>> config = QuantaConfig(dims=[16, 8, 8, 4], target_modules=["q_proj", "v_proj"])
        >>> model = get_peft_model(base_model, config)
        ```

    **Attributes**:
        - **model** ([`~torch.nn.Module`]) -- The model to be adapted.
        - **peft_config** ([`QuantaConfig`]): The configuration of the QuanTA model.
    """

    prefix: str = "quanta_"
    tuner_layer_cls = QuantaLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_QUANTA_TARGET_MODULES_MAPPING

    def _create_and_replace(
        self,
        quanta_config,
        adapter_name,
        target,
        target_name,
        parent,
        current_key,
        **optional_kwargs,
    ) -> None:
        if current_key is None:
            raise ValueError("Current Key shouldn't be `None`")

        if isinstance(target, Linear):
            target.update_layer(adapter_name, current_key, config=quanta_config)
        else:
            kwargs = get_quantization_kwargs(self)
            new_module = self._create_new_module(quanta_config, adapter_name, target, current_key, **kwargs)
            if adapter_name not in self.active_adapters:
                # adding an additional adapter: it is not automatically trainable
                new_module.requires_grad_(False)
            self._replace_module(parent, target_name, new_module, target)

    @staticmethod
    def _create_new_module(quanta_config, adapter_name, target, module_name, **kwargs):
        target_base_layer = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        quantization_backend = resolve_quantization_backend(target_base_layer, **kwargs)
        is_linear = isinstance(target_base_layer, (torch.nn.Linear, Conv1D)) or (
            quantization_backend is not None and quantization_backend.layer_type == "linear"
        )
        if not is_linear:
            raise TypeError(
                f"Target module {target} is not supported. Currently, only `torch.nn.Linear` (optionally quantized) "
                "and `transformers.pytorch_utils.Conv1D` are supported."
            )
        return Linear(target, adapter_name, module_name, config=quanta_config, **kwargs)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype=autocast_adapter_dtype)
        # only parameters are upcast, not buffers; S would be rounded on loading
        for module in self.model.modules():
            if isinstance(module, QuantaLayer):
                module.cast_frozen(adapter_name)
