"""Which layers QuanTA adapts, and the circuit of each."""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D

from baselines.quanta.config import QuantaConfig
from baselines.quanta.rectangular import WeightCircuit, fit_circuit
from baselines.tuners.merging import linear_features


def plan_layer(layer: nn.Module, config: QuantaConfig, name: str) -> WeightCircuit:
    """The circuit that a configuration specifies for a layer.

    Raises:
        ValueError: The layer has an unsupported type, or the sizes do not fit it.
    """
    in_features, out_features = linear_features(layer, name)
    return fit_circuit(
        in_features,
        out_features,
        config.dims_for(name),
        config.rectangular,
        config.parameter_budget,
        name,
    )


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer is just a frozen weight and bias, so that one product can replace it.

    Not if it overrides forward (quantised layers, other adapters, offloading), has hooks, which
    would not run, or a trainable weight or bias, which would get no gradient.
    """
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    return (
        type(layer).forward in (nn.Linear.forward, Conv1D.forward)
        and "forward" not in vars(layer)
        and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
        and type(weight) is nn.Parameter
        and weight.is_floating_point()
        and not weight.requires_grad
        and not (bias is not None and bias.requires_grad)
    )
