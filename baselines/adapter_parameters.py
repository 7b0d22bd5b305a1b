"""The parameters that `peft` adapters declare as their own."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn


def adapter_parameters(model: PeftModel) -> dict[str, nn.Parameter]:
    """The trainable parameters of the active adapters, by name.

    A tuner layer lists its containers in ``adapter_layer_names``, and so do the wrappers around
    modules that train fully (``modules_to_save``) or partly (trainable tokens); prompt learning
    has its prompt encoders. Parameters that the tuner keeps frozen (``requires_grad``) are
    excluded. Biases of the base model are included if the configuration's ``bias`` trains them.

    Args:
        model: a model that `peft` has adapted.

    Returns:
        Each parameter under its first name in ``model.named_parameters()``.
    """
    own = {id(parameter) for parameters in _parameters(model) for parameter in parameters}
    biases = any(
        getattr(model.peft_config[adapter], "bias", "none") != "none"
        for adapter in model.active_adapters
    )
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (id(parameter) in own or (biases and name.endswith(".bias")))
    }


def _parameters(model: PeftModel) -> Iterator[Iterator[nn.Parameter]]:
    """The parameters of the active adapters, container by container."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    active = set(model.active_adapters)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            for path in module.adapter_layer_names:
                yield from _of_active(attrgetter(path)(module), active)
    if hasattr(model, "prompt_encoder"):
        yield from _of_active(model.prompt_encoder, active)


def _of_active(container: nn.Module, active: set[str]) -> Iterator[Iterator[nn.Parameter]]:
    """The parameters of the active adapters in one container, a dictionary by adapter name."""
    from torch import nn

    if not isinstance(container, nn.ModuleDict | nn.ParameterDict):
        yield container.parameters()  # shared by all adapters
        return
    for adapter in active & set(container.keys()):
        entry = container[adapter]
        yield iter((entry,)) if isinstance(entry, nn.Parameter) else entry.parameters()
