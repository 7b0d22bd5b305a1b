"""What this suite knows about `peft`'s tuners, from running them (``tests/baselines``).

Keys are `peft`'s type names. A type that is in no table here is passed to `peft` unchanged, without
any claims.
"""

from __future__ import annotations

from collections.abc import Mapping

REFUSED: Mapping[str, str] = {
    "ADALORA": "its ranks change only if it is called after each step",
    "ADAPTION_PROMPT": "it trains parameters that none of its layers declare",
    "CPT": "it needs the type of each input token at each call",
    "MULTITASK_PROMPT_TUNING": "it needs the task of each example at each call",
    "POLY": "it needs the task of each example at each call",
    "PROMPT_TUNING": "it prepends tokens to the input, so there is not one output per input token",
    "P_TUNING": "it prepends tokens to the input, so there is not one output per input token",
    "SHADOW": "it trains parameters that none of its layers declare",
    "XLORA": "it mixes previously trained LoRA adapters",
}
"""Types that the suite cannot train, with reasons."""

TESTED = frozenset(
    {
        "ADAMSS", "BEFT", "BOFT", "C3A", "CARTRIDGE", "DEFT", "DELORA", "FOURIERFT",
        "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3", "LILY", "LN_TUNING", "LOHA", "LOKR",
        "LORA", "MISS", "OFT", "OSF", "PEANUT", "PREFIX_TUNING", "PSOFT", "PVERA", "RANDLORA",
        "ROAD", "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA",
        "VERA", "WAVEFT",
    }
)  # fmt: skip
"""Types for which the claims below are tested, with their default initialisation."""

_PREFIX = "its prefix occupies the key/value cache"

UNMERGEABLE: Mapping[str, str] = {
    "BEFT": "a bias can only be merged into layers that have one, and LLaMA's have none",
    "CARTRIDGE": "it trains keys and values, not an update of weights",
    "LILY": "its update depends on the input",
    "PREFIX_TUNING": "it trains keys and values, not an update of weights",
}
INEXACT: Mapping[str, str] = {
    "C3A": "its kernels start at random",
    "CARTRIDGE": "its keys and values start at random",
    "FOURIERFT": "its spectrum starts at random",
    "PREFIX_TUNING": "its keys and values start at random",
    "UNILORA": "its vector starts at random",
    "VBLORA": "its vectors and mixture weights start at random",
}
UNCACHEABLE: Mapping[str, str] = {"CARTRIDGE": _PREFIX, "PREFIX_TUNING": _PREFIX}

SEEDS = ("projection_prng_key", "projection_seed", "proj_seed", "random_loc_seed", "random_seed")
"""Settings with which tuners seed their fixed random parts."""
