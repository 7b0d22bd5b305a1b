"""Base models of few bits, and the plain models that their weights stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from quanta_bench.errors import BenchError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

M = TypeVar("M", bound="nn.Module")


def is_quantised(model: nn.Module) -> bool:
    """Whether `transformers` has loaded a model with weights of few bits."""
    return bool(getattr(model, "is_quantized", False))


def quantised_weights(model: nn.Module) -> set[int]:
    """The identities of a model's weights of few bits, none of which can be trained."""
    if not is_quantised(model):
        return set()
    return {id(layer.weight) for layer in model.modules() if _backend(layer) is not None}


def keep_trainable(model: nn.Module) -> None:
    """Keep layers of 4 bits in the form through which gradients pass.

    On processors with AVX512-BF16, the first pass in evaluation mode would turn weights of
    bitsandbytes into a form for inference alone: no gradient passes it, and the scales are not
    turned back.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def why_not_causal(model: Any) -> str:
    """Why a quantised model's predictions depend on later tokens; empty for any other."""
    config = getattr(model.config, "quantization_config", None)
    if not getattr(config, "load_in_8bit", False) or not getattr(config, "llm_int8_threshold", 0):
        return ""
    return (
        "its layers of 8 bits (bitsandbytes) choose the columns that they keep in 16 bits by all "
        "tokens of a batch, so later tokens change earlier predictions. Quantise it with "
        "llm_int8_threshold=0.0, or in 4 bits"
    )


def dequantise(model: M, dtype: torch.dtype | None = None) -> M:
    """Replace quantised layers by plain ones with the weights that theirs stand for, in place.

    An adapter that was trained on the quantised model merges into the result, rounded to its dtype
    alone. A merge into the quantised layers would round the sum to their few bits.

    Args:
        model: a base model without an adapter. One that is not quantised is returned as it is.
        dtype: of the new weights; float32 by default.

    Raises:
        UsageError: the model has an adapter, whose layers are made for quantised ones, or
            bitsandbytes has turned its weights into a form for inference alone.
        BenchError: layers are of a kind that `peft` cannot dequantise.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise UsageError(
            f"This {type(model).__name__} has an adapter: dequantise the base model, then load "
            "the adapter into it."
        )
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            backend = _backend(layer)
            if backend is None:
                continue
            if not backend.supports_merge:
                raise _refusal(model, backend.backend_name)
            if getattr(getattr(layer.weight, "quant_state", None), "packing_format_for_cpu", False):
                raise UsageError(
                    f"bitsandbytes has turned the weights of this {type(model).__name__} into a "
                    "form for inference alone, in its first pass in evaluation mode on this "
                    "processor. Load the model again and dequantise it before any pass."
                )
            setattr(parent, name, _plain(layer, backend, dtype or torch.float32))
    if any(map(_is_integer, model.parameters())):
        raise _refusal(model, "")
    _forget(model)
    return model


def _backend(layer: nn.Module) -> Any:
    """`peft`'s backend of a quantised layer, which dequantises it; `None` for any other."""
    from peft.utils import resolve_quantization_backend

    # torchao's asks how to quantise again, which is not done here.
    return resolve_quantization_backend(layer, get_apply_tensor_subclass=_never)


def _never() -> None:
    raise AssertionError("nothing is quantised again")


def _plain(layer: Any, backend: Any, dtype: torch.dtype) -> nn.Linear:
    """A linear layer with the weight that a quantised one stands for."""
    from torch import nn

    weight = backend.get_base_weight(layer).detach().to(dtype)
    rows, columns = weight.shape
    bias = layer.bias is not None
    plain = nn.Linear(columns, rows, bias=bias, device="meta", dtype=dtype)
    plain.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias:
        plain.bias = nn.Parameter(layer.bias.detach().to(dtype), requires_grad=False)
    return plain.train(layer.training)


def _is_integer(parameter: torch.Tensor) -> bool:
    return not (parameter.is_floating_point() or parameter.is_complex())


def _forget(model: Any) -> None:
    """Let a model and its configuration no longer say that it is quantised."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
        # Saving would undo the steps of loading, of which quantising is one.
        model._weight_conversions = None
    for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        if getattr(model, flag, False):
            setattr(model, flag, False)


def _refusal(model: nn.Module, kind: str) -> BenchError:
    named = f" by {kind}" if kind else ""
    return BenchError(
        f"The weights of this {type(model).__name__} are quantised{named}, in a form that peft "
        "cannot dequantise, so no update can be merged into them. Keep the adapter beside the "
        "quantised model, or train on the model that it was made from."
    )
