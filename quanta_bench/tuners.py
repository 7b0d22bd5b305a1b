"""``import quanta_bench.tuners`` lets `peft` load the adapters of every registered method.

`peft` looks a saved adapter's type up in dictionaries of its own and has no entry point for others,
so ``PeftModel.from_pretrained`` ends with a ``KeyError`` unless the tuner was registered before.
Methods register their tuners when their modules are imported, which this does.
"""

from __future__ import annotations

from quanta_bench.plugins import METHODS

__all__ = ["UNUSABLE"]

_, UNUSABLE = METHODS.usable()
"""Why methods could not be imported, by their names; empty if all were."""
