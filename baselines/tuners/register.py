"""Make `peft` know a tuner, without changing anything that is `peft`'s own.

`peft` finds a tuner through dictionaries in `peft.mapping`, keyed by members of its enum
`PeftType`. A member of a string enum of ours is an equally good key: it hashes and compares as its
string, which is also what an adapter's saved configuration holds. So `PeftType` stays as it is, and
nothing changes for whoever imports `peft` alone.
"""

from __future__ import annotations

import enum
from importlib import metadata
from typing import Any


def register(kind: enum.StrEnum, config: type[Any], tuner: type[Any]) -> None:
    """Enter a tuner into `peft`'s dictionaries of configurations, tuners and prefixes.

    Not into that of mixed models: `PeftMixedModel` composes only tuners whose layer classes it
    knows by name. Registering twice changes nothing.

    Args:
        kind: The tuner's key, a member of a string enum of its own.
        config: The configuration class.
        tuner: The tuner class; its `prefix` begins the names of the parameters it trains.

    Raises:
        ImportError: `peft` has no such dictionaries (any more); the message names what is missing
            and the version found. Nothing has been entered then.
        ValueError: Another tuner holds the name or the prefix already.
    """
    import peft.mapping

    entries = {
        "PEFT_TYPE_TO_CONFIG_MAPPING": config,
        "PEFT_TYPE_TO_TUNER_MAPPING": tuner,
        "PEFT_TYPE_TO_PREFIX_MAPPING": tuner.prefix,
    }
    tables: dict[str, dict[Any, Any]] = {}
    for table, entry in entries.items():
        found = getattr(peft.mapping, table, None)
        if not isinstance(found, dict):
            raise ImportError(
                f"{tuner.__name__} registers itself in peft.mapping.{table}, a dictionary, which "
                f"peft {metadata.version('peft')} does not have; it is known to work with peft "
                "0.21"
            )
        present = found.get(kind)
        if present is not None and not _same(present, entry):
            raise ValueError(f"peft.mapping.{table} already has {present!r} under {kind.value!r}")
        tables[table] = found
    for other, prefix in tables["PEFT_TYPE_TO_PREFIX_MAPPING"].items():
        if prefix == tuner.prefix and other != kind:
            raise ValueError(f"peft method {other!r} already has the prefix {prefix!r}")
    for table, entry in entries.items():
        tables[table][kind] = entry


def _same(present: Any, entry: Any) -> bool:
    """Whether both are one object, or one class before and after a module reload."""
    if present is entry or present == entry:
        return True
    names = ("__module__", "__qualname__")
    return isinstance(present, type) and all(
        getattr(present, name, None) == getattr(entry, name, None) for name in names
    )
