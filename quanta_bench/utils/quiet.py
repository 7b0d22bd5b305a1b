"""Silence libraries that print while loading, and pause the garbage collector."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

from quanta_bench.utils.verbosity import is_verbose


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide progress bars and log lines of ``transformers``, ``datasets`` and the hub client.

    Only libraries that are already imported are silenced: importing one takes seconds. Python
    warnings are still shown. The previous settings are restored afterwards. With ``--verbose``
    nothing is hidden.
    """
    with ExitStack() as stack:
        if is_verbose():
            yield
            return
        if "transformers" in sys.modules:
            from transformers.utils import logging as logs

            stack.enter_context(_quiet_logs(logs))
            if logs.is_progress_bar_enabled():
                logs.disable_progress_bar()  # type: ignore[no-untyped-call]
                stack.callback(logs.enable_progress_bar)
        if "huggingface_hub" in sys.modules:
            # By import_module, since the names are public but not declared as exported.
            hub = import_module("huggingface_hub.utils")
            stack.enter_context(_quiet_logs(hub.logging))
            if not hub.are_progress_bars_disabled():
                hub.disable_progress_bars()
                stack.callback(hub.enable_progress_bars)
        if "datasets" in sys.modules:
            from datasets import utils as data

            stack.enter_context(_quiet_logs(data.logging))
            if not data.are_progress_bars_disabled():
                data.disable_progress_bars()
                stack.callback(data.enable_progress_bars)
        yield


@contextmanager
def without_collection() -> Iterator[None]:
    """Leave cycles of garbage where they are: for short work, and for timing.

    Looking for them again and again takes a fifth of the time of importing large libraries, of
    putting adapters into models without weights, and of reading thousands of records, and falls on
    whatever is being timed.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _quiet_logs(logs: Any) -> Iterator[None]:
    level = logs.get_verbosity()
    # Failures come back as exceptions; the error lines logged before them say the same twice.
    logs.set_verbosity(logs.CRITICAL)
    try:
        yield
    finally:
        logs.set_verbosity(level)


def settle_libraries() -> None:
    """Apply the process-wide settings of every command that computes."""
    # Forked tokenizer threads would only raise warnings: batches are tokenised beforehand.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
