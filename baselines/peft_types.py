"""What this suite knows of `peft`'s tuners, found by trying them (``tests/baselines``).

Keys are `peft`'s type names. A type that is in no table here is passed on to `peft` as it is, and
nothing is claimed of it.
"""

from __future__ import annotations

from collections.abc import Mapping

REFUSED: Mapping[str, str] = {
    "ADALORA": "its ranks change only if it is called after each step",
    "ADAPTION_PROMPT": "it trains parameters that no layer of it declares",
    "CPT": "it needs the type of each input token at each call",
    "MULTITASK_PROMPT_TUNING": "it needs the task of each example at each call",
    "POLY": "it needs the task of each example at each call",
    "PROMPT_TUNING": "it puts tokens in front of the input, so outputs are not one per token",
    "P_TUNING": "it puts tokens in front of the input, so outputs are not one per token",
    "SHADOW": "it trains parameters that no layer of it declares",
    "XLORA": "it mixes LoRA adapters that were trained before",
}
"""Types that the suite cannot train, with the reason."""

TRIED = frozenset(
    {
        "ADAMSS", "BEFT", "BOFT", "C3A", "CARTRIDGE", "DEFT", "DELORA", "FOURIERFT",
        "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3", "LILY", "LN_TUNING", "LOHA", "LOKR",
        "LORA", "MISS", "OFT", "OSF", "PEANUT", "PREFIX_TUNING", "PSOFT", "PVERA", "RANDLORA",
        "ROAD", "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA",
        "VERA", "WAVEFT",
    }
)  # fmt: skip
"""Types of which the claims below were tried, each with its default start."""

_PREFIX = "its prefix takes the place of the cache"

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
"""Settings by which tuners seed fixed random parts of their own."""
