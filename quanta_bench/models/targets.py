"""Find a model's counterparts of LLaMA's layers, by whose names methods choose what to adapt.

Methods and tables name ``q_proj`` and ``v_proj``; GPT-2 has one layer ``c_attn`` for both. The
counterparts are looked up by the names that architectures of ``transformers`` use, and only layers
of the repeated blocks count. For the query and value projections they are those of `peft`'s own
table for LoRA, where that has the architecture; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from quanta_bench.models.meta import configuration_digest, meta_model
from quanta_bench.utils.remembered import code_here, remembered

FUSED = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "in_proj_qkv")
"""One layer that computes queries, keys and values."""
RECURRENT = ("in_proj",)
"""The input projection of layers without attention, such as Mamba's."""

COUNTERPARTS: Mapping[str, tuple[str, ...]] = {
    "q_proj": ("q_proj.linear", "query", "Wq", "q", "q_b_proj", *FUSED, "receptance", *RECURRENT),
    "k_proj": ("k_proj.linear", "key", "Wk", "k", "kv_b_proj", "kv_proj", *FUSED, *RECURRENT),
    "v_proj": ("v_proj.linear", "value", "Wv", "v", "kv_b_proj", "kv_proj", *FUSED, *RECURRENT),
    "o_proj": (
        "o_proj.linear", "out_proj", "attn.c_proj", "attn.Wo", "self_attn.dense", "attention.dense",
        "self_attention.dense", "attention.output.dense", "multi_head_attention.dense", "o_b_proj",
        "attention.output",
    ),
    "gate_proj": ("gate_up_proj", "w1", "input_linear", "proj_up_gate"),
    "up_proj": (
        "gate_up_proj", "fc1", "fc_in", "c_fc", "dense_h_to_4h", "intermediate.dense", "mlp.Wi",
        "w3", "input_linear", "proj_up", "feed_forward.key", "ffn.0",
    ),
    "down_proj": (
        "fc2", "fc_out", "mlp.c_proj", "dense_4h_to_h", "output.dense", "mlp.Wo", "w2",
        "output_linear", "proj_down", "feed_forward.value", "ffn.2",
    ),
}  # fmt: skip
"""By LLaMA's name, names of other architectures, as `peft` takes them: the last components of a
module's name. The first that a model has is taken."""


def counterparts(model: str, names: Iterable[str]) -> tuple[str, ...]:
    """The layers of a model that play the part of LLaMA's.

    Args:
        model: as :func:`quanta_bench.models.meta.meta_model` takes it.
        names: names of modules. Those that the model has, and those that are not LLaMA's, stay; a
            part that it does not have, such as the gate of an MLP without one, is dropped.

    Returns:
        Names without repetition. Where nothing is left, all linear layers of the model's blocks.

    Raises:
        BenchError: the model's configuration is not known.
    """
    modules, linear = module_names(model)
    found: list[str] = []
    for name in names:
        if name not in COUNTERPARTS or _is_named(name, modules):
            found.append(name)
            continue
        found += [other for other in COUNTERPARTS[name] if _is_named(other, linear)][:1]
    return tuple(dict.fromkeys(found)) or _last_names(linear)


def with_counterparts(model: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, also nested ones, that name LLaMA's layers and change on a model.

    Args:
        model: as :func:`quanta_bench.models.meta.meta_model` takes it.
        settings: plain settings of a method, defaults included.

    Returns:
        The new value of each that changes.

    Raises:
        BenchError: the model's configuration is not known.
    """
    changed: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            if inner := with_counterparts(model, value):
                changed[key] = {**value, **inner}
        elif (
            isinstance(value, (list, tuple, set))
            and all(isinstance(name, str) for name in value)
            and set(value) & COUNTERPARTS.keys()
        ):
            named = tuple(value) if not isinstance(value, set) else tuple(sorted(value))
            found = counterparts(model, named)
            if found != named:
                changed[key] = found
    return changed


def module_names(model: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a model's modules, and of the linear layers in its repeated blocks.

    They are remembered: building a model without weights imports torch, which takes seconds.

    Raises:
        BenchError: raised by :func:`quanta_bench.models.meta.meta_model`.
    """
    return _module_names(model, configuration_digest(model))


@lru_cache(maxsize=16)
def _module_names(model: str, digest: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    # All layers of the models whose configurations are shipped are alike.
    layers = None if model.startswith("local:") else 1
    parts = (digest, str(layers), code_here())
    modules, linear = remembered("modules", parts, lambda: _built_names(model, layers))
    return tuple(modules), tuple(linear)


def _built_names(model: str, layers: int | None) -> tuple[list[str], list[str]]:
    """Build a model without weights; see `module_names`."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    modules = dict(meta_model(model, layers).named_modules())
    linear = [
        name
        for name, module in modules.items()
        if isinstance(module, (nn.Linear, Conv1D))
        and re.search(r"\.\d+\.", name)
        and "router" not in name  # it chooses experts
    ]
    return list(modules), linear


def _is_named(name: str, modules: Iterable[str]) -> bool:
    """Whether a module has a name, as `peft` compares: whole, or as its last components."""
    return any(module == name or module.endswith(f".{name}") for module in modules)


def _last_names(modules: Iterable[str]) -> tuple[str, ...]:
    """The last component of each name that is no number, without repetition."""
    lasts = (re.sub(r"(\.\d+)+$", "", name).rpartition(".")[2] for name in modules)
    return tuple(dict.fromkeys(lasts))


def as_llama(model: str, found: Mapping[str, Any]) -> Any:
    """A stand-in for a model whose adapted layers go by LLaMA's names, on the meta device.

    A method's :meth:`quanta_bench.method.Method.sizes` look at the widths of the layers that it
    adapts by default.

    Args:
        model: as :func:`quanta_bench.models.meta.meta_model` takes it.
        found: what :func:`with_counterparts` found.

    Returns:
        A module with one linear layer for each that ``found`` names, called ``q_proj``; the model
        itself where it names none.
    """
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    base = meta_model(model)
    names = found.get("target_modules", ())
    if not names:
        return base
    layers = []
    for name, module in base.named_modules():
        if not (isinstance(module, (nn.Linear, Conv1D)) and _ends_with(name, names)):
            continue
        width, out = (
            module.weight.shape if isinstance(module, Conv1D) else module.weight.shape[::-1]
        )
        with torch.device("meta"):
            layers.append(nn.ModuleDict({"q_proj": nn.Linear(width, out)}))
    return nn.ModuleList(layers)


def _ends_with(name: str, ends: Iterable[str]) -> bool:
    return any(_is_named(end, (name,)) for end in ends)
