"""The battery of methods on every registered one, a plug-in's too, and on `peft`'s tuners."""

from __future__ import annotations

from typing import Any

import pytest

from baselines import peft_types
from baselines.any_peft import AnyPeft
from quanta_bench.plugins import METHODS
from quanta_bench.testing.methods import MethodBattery

QV = {"target_modules": ["q_proj", "v_proj"]}
TUNERS: dict[str, dict[str, Any]] = {
    "ADAMSS": QV,
    "BEFT": QV,
    "BOFT": {**QV, "boft_block_size": 4},
    "C3A": {**QV, "block_size": 32},
    "CARTRIDGE": {"num_virtual_tokens": 3, "num_frozen_tokens": 0},
    "DEFT": QV,
    "DELORA": QV,
    "FOURIERFT": {**QV, "n_frequency": 50},
    "FROD": QV,
    "GLORA": QV,
    "GRALORA": QV,
    "HIRA": QV,
    "HRA": QV,
    "IA3": {"target_modules": ["v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LILY": QV,
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "LOHA": QV,
    "LOKR": QV,
    "LORA": {**QV, "modules_to_save": ["norm"]},
    "MISS": QV,
    "OFT": {**QV, "oft_block_size": 8},
    "OSF": QV,
    "PEANUT": QV,
    "PREFIX_TUNING": {"num_virtual_tokens": 3},
    "PSOFT": QV,
    "PVERA": QV,
    "RANDLORA": QV,
    "ROAD": {**QV, "group_size": 16},
    "SHIRA": {**QV, "r": 4},
    "SUPERTUNING": QV,
    "TINYLORA": QV,
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [5, 9]},
    "UNILORA": QV,
    "VBLORA": {**QV, "vector_length": 16, "num_vectors": 16, "r": 2},
    "VERA": QV,
    "WAVEFT": {**QV, "n_frequency": 50},
}
READS_WEIGHTS = {"ADAMSS", "BOFT", "FROD", "SHIRA", "UNILORA"}  # for their start
NO_CHECKPOINTING = {"CARTRIDGE", "PREFIX_TUNING", "prefix"}

pytestmark = [
    # What `peft` tells a user of one tuner about this model, which is as it is.
    pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias"),  # BEFT
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension"),  # BOFT
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor"),  # BOFT, without it
    pytest.mark.filterwarnings("ignore:Sparse invariant checks"),  # FROD, of torch
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # LN_TUNING, of RMS norms
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings"),  # TRAINABLE_TOKENS
]


def battery(case: str, **attributes: Any) -> type[MethodBattery]:
    """The battery of a method, as a class that pytest collects."""
    known = {"reads_weights": case in READS_WEIGHTS, "checkpointing": case not in NO_CHECKPOINTING}
    return type(f"Test_{case}", (MethodBattery,), {**known, **attributes})


def settings(case: str) -> dict[str, Any]:
    return {"type": case, "settings": TUNERS[case]}


BATTERIES = [
    *(battery(name, method=METHODS.get(name)) for name in METHODS),
    *(battery(case, method=AnyPeft, settings=settings(case)) for case in TUNERS),
]
globals().update({one.__name__: one for one in BATTERIES})


def test_every_tuner_of_peft_with_a_claim_is_in_the_battery() -> None:
    assert set(TUNERS) == peft_types.TESTED
