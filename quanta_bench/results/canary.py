"""Canaries: one tiny fixed run for each stack of packages and device, to tell whether stacks agree.

An upgrade of a library can move scores by more than methods differ. Results of several stacks are
shown together only with a word on what their canaries say.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import FiniteFloat, ValidationError

from quanta_bench.results.records import Environment, Record, Result
from quanta_bench.utils.fingerprint import text_digest

FOLDER = "canaries"
"""In a results folder, and in the cache."""
ERRORS = 2.0
"""Canaries that differ by more standard errors than this do not agree."""


class Canary(Record):
    """What a stack made of the fixed run.

    Attributes:
        version: of the fixed run; canaries of two versions cannot be compared.
        stack: the stack, see `stack_of`.
        name: the stack in words.
        mean: mean log-likelihood of the right answers after training, in nats.
        standard_error: of the mean, over items.
        items: number of items.
    """

    version: int
    stack: str
    name: str
    mean: FiniteFloat
    standard_error: FiniteFloat
    items: int


def stack_of(environment: Environment) -> str:
    """A stack's name on disk: a hash of packages, Python, platform and device."""
    packages = {n: v for n, v in environment.packages.items() if n != "quanta-bench"}
    kept = [sorted(packages.items()), environment.python, environment.platform, environment.device]
    return text_digest(json.dumps(kept))[:16]


def in_words(environment: Environment) -> str:
    """A stack in words: device, torch, transformers."""
    packages = (f"{n} {v}" for n in ("torch", "transformers") if (v := environment.packages.get(n)))
    return ", ".join([environment.device, *packages])


def read(path: Path) -> Canary | None:
    """A stored canary; ``None`` if there is none, or it is damaged."""
    try:
        return Canary.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def stored_for(results: Iterable[Result], root: Path) -> bool:
    """Whether a results folder has the canary of every stack that trained some of these results."""
    stacks = {stack_of(result.training.environment) for result in results}
    return all(read(root / FOLDER / f"{stack}.json") is not None for stack in stacks)


def of_folder(root: Path) -> dict[str, Canary]:
    """The canaries of a results folder, by stack."""
    found = [read(path) for path in sorted((root / FOLDER).glob("*.json"))]
    return {canary.stack: canary for canary in found if canary is not None}


def agree(one: Canary, other: Canary) -> bool:
    """Whether two canaries are of one version and within `ERRORS` standard errors."""
    error = math.hypot(one.standard_error, other.standard_error)
    return one.version == other.version and abs(one.mean - other.mean) <= ERRORS * error


def notes(results: Iterable[Result], canaries: Mapping[str, Canary]) -> list[str]:
    """What the canaries say of results from several stacks; nothing of those from one."""
    stacks = {
        stack_of(environment): in_words(environment)
        for result in results
        for environment in (result.training.environment, result.evaluation_environment)
    }
    if len(stacks) < 2:
        return []
    known = {stack: canaries[stack] for stack in stacks if stack in canaries}
    apart = [
        f"{stacks[a]} ({known[a].mean:.3f} ± {known[a].standard_error:.3f}) and {stacks[b]} "
        f"({known[b].mean:.3f} ± {known[b].standard_error:.3f})"
        for a, b in itertools.combinations(known, 2)
        if not agree(known[a], known[b])
    ]
    if apart:
        return [
            "Rows cannot be compared across these stacks, whose canaries differ by more than "
            f"{ERRORS:.0f} standard errors: {'; '.join(apart)}."
        ]
    unknown = [name for stack, name in stacks.items() if stack not in known]
    if unknown:
        return [
            f"Whether rows of {len(stacks)} stacks compare is not known; no canary of: "
            f"{'; '.join(unknown)}."
        ]
    return [f"Rows come from {len(stacks)} stacks, whose canaries agree."]
