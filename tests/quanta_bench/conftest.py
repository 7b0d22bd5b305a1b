"""Fixtures of the core's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from results_by_hand import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A results folder, and results made by hand."""
    return Bench(tmp_path / "results")


@pytest.fixture(scope="module")
def pair(tiny_model: Path) -> tuple[Any, Any]:
    """A tiny model whose continuations differ from prompt to prompt, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for parameter in model.parameters():
            # A freshly made model repeats one token whatever it reads; a wilder one does not.
            parameter.data.normal_(0, 0.3)
    return model, AutoTokenizer.from_pretrained(tiny_model)
