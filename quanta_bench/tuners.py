"""``import quanta_bench.tuners`` lets `peft` load the adapters of every registered method.

`peft` looks a saved adapter's type up in dictionaries of its own and has no entry point for others,
so ``PeftModel.from_pretrained`` ends with a ``KeyError`` unless the tuner was registered before.
Methods register their tuners when their modules are imported, which this does. A method that cannot
be imported is warned of.
"""

from __future__ import annotations

import warnings

from quanta_bench.plugins import METHODS

__all__ = ["UNUSABLE"]

_, UNUSABLE = METHODS.usable()
"""Why methods could not be imported, by their names; empty if all were."""

for _name, _reason in UNUSABLE.items():
    warnings.warn(f"peft cannot load adapters of {_name}: {_reason}", stacklevel=2)
