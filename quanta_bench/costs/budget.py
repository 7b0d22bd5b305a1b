"""Which settings bring each method nearest to a given number of trained parameters.

A method lists the sizes that it can have. To count all of them on a large model would take minutes,
so they are ranked by an estimate, the counts on one and on two layers continued to the model's own
depth, and the best of them are counted in full. What is reported is always counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.text import Text

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.models.meta import Count, count, meta_model
from quanta_bench.plugins import METHODS, build_method
from quanta_bench.spec import Denominator
from quanta_bench.utils.fitted_table import FittedTable

FULL_COUNTS = 3
"""How many of the settings nearest by estimate are counted on the whole model."""

UNITS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}


class Budget(BaseModel):
    """A number of trained parameters, or a share.

    Attributes:
        parameters: the number; ``None`` if a share is given.
        percent: the share in percent; ``None`` if a number is given.
    """

    parameters: float | None = None
    percent: float | None = None

    @classmethod
    def from_words(cls, words: str) -> Budget:
        """A budget from ``0.04%``, ``2.7M``, ``500k`` or ``460800``.

        Raises:
            UsageError: the words are none of these, or not positive.
        """
        found = re.fullmatch(r"\s*(\d[\d_,]*\.?\d*|\.\d+)\s*([%kKmMbB]?)\s*", words)
        value = float(re.sub("[_,]", "", found.group(1))) if found else 0.0
        if not found or value == 0:
            raise UsageError(
                "A budget is a positive share such as 0.04% or a number such as 2.7M, "
                f"not {words!r}."
            )
        unit = found.group(2).lower()
        if unit == "%":
            return cls(percent=value)
        return cls(parameters=value * UNITS[unit])

    def ratio(self, found: Count, denominator: Denominator) -> float:
        """How many times the budget a count is."""
        if self.parameters is not None:
            return found.trainable / self.parameters
        assert self.percent is not None
        return 100 * found.share(denominator) / self.percent


class Nearest(BaseModel):
    """The settings of one method that come nearest.

    Attributes:
        method: registered name of the method.
        settings: the settings; those left out have the method's defaults.
        trainable: parameters that train; ``None`` if no settings fit the model.
        percent: their share in percent.
        ratio: times the budget.
        tried: how many settings were compared.
        reason: why there are no settings.
    """

    method: str
    settings: dict[str, Any] = {}
    trainable: int | None = None
    percent: float | None = None
    ratio: float | None = None
    tried: int = 0
    reason: str = ""


class Search(BaseModel):
    """A budget search on one model.

    Attributes:
        model: the model.
        budget: the budget as the user wrote it.
        denominator: what shares are of.
        methods: the nearest settings of each method, nearest method first.
        single: methods that have one size, and so no place in the search.
    """

    model: str
    budget: str
    denominator: Denominator
    methods: list[Nearest]
    single: list[str]


def search(
    model: str, words: str, methods: Sequence[str] = (), denominator: str = "base"
) -> Search:
    """Find the settings nearest to a budget.

    Args:
        model: as :func:`quanta_bench.models.meta.meta_model` takes it.
        words: the budget, as :meth:`Budget.from_words` takes it.
        methods: registered names; by default all.
        denominator: what a share is of.

    Raises:
        UsageError: the words are no budget, or there is no such model, method or denominator.
    """
    if denominator not in ("base", "base+added"):
        raise UsageError(f"A share is of base or of base+added, not of {denominator!r}.")
    of: Denominator = "base" if denominator == "base" else "base+added"
    budget = Budget.from_words(words)
    base = meta_model(model)
    depth = int(getattr(getattr(base, "config", None), "num_hidden_layers", 1))
    found, single = [], []
    for name in methods or METHODS.names():
        sizes = [dict(settings) for settings in METHODS.get(name).sizes(base)]
        if sizes:
            found.append(_nearest(model, depth, name, sizes, budget, of))
        elif methods:
            found.append(Nearest(method=name, reason="it has just one size, or none on this model"))
        else:
            single.append(name)
    return Search(
        model=model,
        budget=words,
        denominator=of,
        methods=sorted(found, key=lambda row: _distance(row.ratio)),
        single=single,
    )


def _nearest(
    model: str,
    depth: int,
    name: str,
    sizes: list[dict[str, Any]],
    budget: Budget,
    denominator: Denominator,
) -> Nearest:
    estimates: list[tuple[float, int]] = []
    reason = ""
    for index, settings in enumerate(sizes):
        try:
            one, two = (_count(model, name, settings, layers) for layers in (1, min(2, depth)))
        except BenchError as error:
            reason = reason or str(error)
            continue
        ratio = budget.ratio(_continued(one, two, depth), denominator)
        estimates.append((_distance(ratio), index))
    best = Nearest(method=name, tried=len(sizes), reason=reason)
    for _, index in sorted(estimates)[:FULL_COUNTS]:
        try:
            counted = _count(model, name, sizes[index], None)
        except BenchError as error:
            reason = str(error)
            continue
        ratio = budget.ratio(counted, denominator)
        if _distance(ratio) < _distance(best.ratio):
            best = Nearest(
                method=name,
                settings=sizes[index],
                trainable=counted.trainable,
                percent=100 * counted.share(denominator),
                ratio=ratio,
                tried=len(sizes),
            )
    return best


def _count(model: str, name: str, settings: Mapping[str, Any], layers: int | None) -> Count:
    return count(meta_model(model, layers), build_method(name, settings))


def _continued(one: Count, two: Count, depth: int) -> Count:
    """The counts on one and two layers, continued in a straight line to a depth."""

    def at_depth(first: int, second: int) -> int:
        return max(0, first + (depth - 1) * (second - first))

    return Count(
        trainable=at_depth(one.trainable, two.trainable),
        base=at_depth(one.base, two.base),
        added=at_depth(one.added, two.added),
    )


def _distance(ratio: float | None) -> float:
    """How far a ratio is from 1, twice as much being as far as half."""
    return abs(math.log(ratio)) if ratio else math.inf


def on_screen(found: Search) -> RenderableType:
    """A line for each method, nearest first, and the reasons where there are no settings."""
    of = "of base" if found.denominator == "base" else "of base + added"
    table = FittedTable(f"Nearest to {found.budget} on {found.model}")
    for heading in ("Method", "Settings", "Trained", f"% {of}", "Times the budget"):
        table.add_column(
            heading,
            right=heading not in ("Method", "Settings"),
            label=heading == "Method",
            prose=heading == "Settings",
        )
    notes = []
    for row in found.methods:
        if row.trainable is None or row.percent is None:
            notes.append(f"· {row.method}: {row.reason}")
            continue
        settings = ", ".join(f"{key}={_text(value)}" for key, value in row.settings.items())
        table.add_row(
            row.method, settings, f"{row.trainable:,}", f"{row.percent:.4g}", f"{row.ratio:.3f}"
        )
    if found.single:
        notes.append(f"· Of one size, and not in the table: {', '.join(found.single)}")
    return Group(table, *map(Text, notes))


def _text(value: Any) -> str:
    """A value as ``--set`` takes it."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)
