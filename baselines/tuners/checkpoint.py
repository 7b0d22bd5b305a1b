"""The tensors of an adapter in a checkpoint file, and their names there.

A tensor is named ``LAYER.CONTAINER.ADAPTER.TENSOR`` in the model and ``LAYER.CONTAINER.TENSOR`` in
a file. Both lists come from the modules themselves; names are never searched for the adapter name,
which may equal that of a layer or of a tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn

from baselines.tuners.merging import MergingLayer

PEFT_PREFIX = "base_model.model."  # prefix of the names in a `PeftModel`, and in every file
FSDP_PREFIX = "_fsdp_wrapped_module."  # in names of modules, not in those of a state dict


def adapter_tensors(model: nn.Module, prefix: str, adapter_name: str) -> dict[str, Tensor]:
    """The parameters and saved buffers of an adapter, by their names in the model's state dict.

    Args:
        model: A model with adapters.
        prefix: Prefix of the names of the tuner's containers.
        adapter_name: The adapter.
    """
    return {
        f"{container}.{adapter_name}.{name}": tensor
        for container, module in _containers(model, prefix, adapter_name)
        for name, tensor in module.state_dict().items()
    }


def select(
    state_dict: Mapping[str, Tensor], model: nn.Module, prefix: str, adapter_name: str
) -> dict[str, Tensor]:
    """The adapter's entries of a model's state dict.

    `peft` has already dropped every entry whose key contains the name of another adapter, so
    entries of this adapter may be missing. They are taken from the model if the state dict is the
    model's own.

    Raises:
        ValueError: Entries are missing and the others are copies, such as the gathered shards of a
            distributed model.
    """
    own = adapter_tensors(model, prefix, adapter_name)
    present = {key: state_dict[key] for key in own if key in state_dict}
    dropped = own.keys() - present.keys()
    if dropped and any(value.data_ptr() != own[key].data_ptr() for key, value in present.items()):
        raise ValueError(
            f"adapter {adapter_name!r}: the state dict to save lacks {_examples(dropped)}. peft "
            "drops entries whose key contains the name of another adapter; rename that adapter so "
            "that its name is not the name of a layer or tensor"
        )
    return {key: present.get(key, tensor) for key, tensor in own.items()}


def without_adapter_name(key: str, prefix: str, adapter_name: str) -> str:
    """The key of an adapter tensor in a file; any other key is returned unchanged."""
    pattern = rf"((?:.*\.)?{re.escape(prefix)}[^.]*)\.{re.escape(adapter_name)}(\..+)?"
    match = re.fullmatch(pattern, key)
    return key if match is None else match[1] + (match[2] or "")


def rename_for_model(
    state_dict: Mapping[str, Tensor], model: nn.Module, prefix: str, adapter_name: str
) -> dict[str, Tensor]:
    """Rename the entries of a file to their names in a model.

    Supports files of earlier versions, some of whose keys still contain the name that the adapter
    had when it was saved.

    Args:
        state_dict: The file's entries; those of fully trained modules are already renamed.
        model: A model with the adapter.
        prefix: Prefix of the names of the tuner's containers.
        adapter_name: The adapter.

    Raises:
        ValueError: The file lacks a tensor of the adapter, or has one that the model lacks.
    """
    expected: dict[str, str] = {}
    containers = set()
    for container, module in _containers(model, prefix, adapter_name):
        in_file = PEFT_PREFIX + container.removeprefix(PEFT_PREFIX)
        containers.add(in_file)
        for name in module.state_dict():
            expected[f"{in_file}.{name}"] = f"{container}.{adapter_name}.{name}"
    others = _tensor_names(model)
    renamed: dict[str, Tensor] = {}
    unexpected = []
    for key, tensor in state_dict.items():
        full = PEFT_PREFIX + key.removeprefix(PEFT_PREFIX)
        new = expected.get(full, expected.get(_without_old_name(full, containers)))
        if new is not None and new not in renamed:
            renamed[new] = tensor
        elif new is None and (key in others or key.removeprefix(PEFT_PREFIX) in others):
            renamed[key] = tensor
        else:
            unexpected.append(key)
    missing = [in_file for in_file, key in expected.items() if key not in renamed]
    problems = [
        f"{problem} {_examples(keys)}"
        for problem, keys in (("it lacks", missing), ("the model has no place for", unexpected))
        if keys
    ]
    if problems:
        raise ValueError(
            f"adapter {adapter_name!r} does not fit this model: {'; '.join(problems)}. It belongs "
            "to another model or to other settings, or its file is damaged"
        )
    return renamed


def _containers(
    model: nn.Module, prefix: str, adapter_name: str
) -> Iterator[tuple[str, nn.Module]]:
    """The containers with the adapter, by name, each with its module for the adapter."""
    for path, module in model.named_modules():
        if not isinstance(module, MergingLayer):
            continue
        for attribute, container in module.named_children():
            if not attribute.startswith(prefix) or not isinstance(container, nn.ModuleDict):
                continue
            if adapter_name in container:
                name = f"{path}.{attribute}" if path else attribute
                yield name.replace(FSDP_PREFIX, ""), container[adapter_name]


def _tensor_names(model: nn.Module) -> set[str]:
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    names |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return {name.replace(FSDP_PREFIX, "") for name in names}


def _without_old_name(key: str, containers: set[str]) -> str:
    """The key without the component that follows its container's name."""
    parts = key.split(".")
    for length in range(len(parts) - 1, 0, -1):
        container = ".".join(parts[:length])
        if container in containers:
            return ".".join((container, *parts[length + 1 :]))
    return key


def _examples(keys: Iterable[str], count: int = 3) -> str:
    names = sorted(keys)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
