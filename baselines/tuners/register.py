"""Register a tuner with `peft` without changing `peft` itself.

`peft` finds a tuner through dictionaries in `peft.mapping`, keyed by members of its enum
`PeftType`. A member of another string enum works as a key too: it hashes and compares as its
string, which is also what a saved adapter configuration contains. So `PeftType` stays unchanged,
and code that only imports `peft` is unaffected.
"""

from __future__ import annotations

import enum
from importlib import metadata
from typing import Any


def register(kind: enum.StrEnum, config: type[Any], tuner: type[Any]) -> None:
    """Add a tuner to `peft`'s dictionaries of configurations, tuners and prefixes.

    Mixed models are not supported: `PeftMixedModel` only combines tuners whose layer classes it
    knows by name. Registering twice has no effect.

    Args:
        kind: The tuner's key, a member of its own string enum.
        config: The configuration class.
        tuner: The tuner class; the names of its trainable parameters start with its `prefix`.

    Raises:
        ImportError: `peft` no longer has such dictionaries; the message names the missing one and
            the installed version. Nothing is registered then.
        ValueError: Another tuner already uses the name or the prefix.
    """
    import peft.mapping

    entries = {
        "PEFT_TYPE_TO_CONFIG_MAPPING": config,
        "PEFT_TYPE_TO_TUNER_MAPPING": tuner,
        "PEFT_TYPE_TO_PREFIX_MAPPING": tuner.prefix,
    }
    tables: dict[str, dict[Any, Any]] = {}
    for table, entry in entries.items():
        mapping = getattr(peft.mapping, table, None)
        if not isinstance(mapping, dict):
            raise ImportError(
                f"{tuner.__name__} registers itself in peft.mapping.{table}, a dictionary, which "
                f"peft {metadata.version('peft')} does not have; it is known to work with peft "
                "0.21"
            )
        present = mapping.get(kind)
        if present is not None and not _same(present, entry):
            raise ValueError(f"peft.mapping.{table} already has {present!r} under {kind.value!r}")
        tables[table] = mapping
    for other, prefix in tables["PEFT_TYPE_TO_PREFIX_MAPPING"].items():
        if prefix == tuner.prefix and other != kind:
            raise ValueError(f"peft method {other!r} already has the prefix {prefix!r}")
    for table, entry in entries.items():
        tables[table][kind] = entry


def _same(present: Any, entry: Any) -> bool:
    """Whether both are the same object, or the same class before and after a module reload."""
    if present is entry or present == entry:
        return True
    names = ("__module__", "__qualname__")
    return isinstance(present, type) and all(
        getattr(present, name, None) == getattr(entry, name, None) for name in names
    )
