"""Find the settings that bring each method nearest to a number of trained parameters.

A method lists its possible sizes; :mod:`quanta_bench.models.nearest` chooses among them.
Reported numbers are always counted on the whole model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.text import Text

from quanta_bench.errors import UsageError
from quanta_bench.models.meta import Count, meta_model
from quanta_bench.models.nearest import distance, nearest_size
from quanta_bench.models.targets import as_llama
from quanta_bench.plugins import METHODS
from quanta_bench.spec import Denominator
from quanta_bench.suites.fitting import with_targets
from quanta_bench.suites.schema import RowSpec
from quanta_bench.utils.fitted_table import FittedTable

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
    def parse(cls, text: str) -> Budget:
        """A budget from ``0.04%``, ``2.7M``, ``500k`` or ``460800``.

        Raises:
            UsageError: the text is none of these, or not positive.
        """
        # A comma between thousands alone: elsewhere it may be meant as a decimal point.
        number = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d[\d_]*)\.?\d*|\.\d+"
        match = re.fullmatch(rf"\s*({number})\s*([%kKmMbB]?)\s*", text)
        value = float(re.sub("[_,]", "", match.group(1))) if match else 0.0
        if not match or value == 0 or math.isinf(value):
            raise UsageError(
                "A budget is a positive share such as 0.04% or a number such as 2.7M, "
                f"not {text!r}."
            )
        unit = match.group(2).lower()
        if unit == "%":
            return cls(percent=value)
        return cls(parameters=value * UNITS[unit])

    def ratio(self, count: Count, denominator: Denominator) -> float:
        """The ratio of a count to the budget."""
        if self.parameters is not None:
            return count.trainable / self.parameters
        assert self.percent is not None
        return 100 * count.share(denominator) / self.percent


class Nearest(BaseModel):
    """The settings of one method that come nearest to the budget.

    Attributes:
        method: registered name of the method.
        settings: the settings; those left out have the method's defaults.
        trainable: trainable parameters; ``None`` if no settings fit the model.
        percent: their share in percent.
        ratio: ratio to the budget.
        tried: number of settings compared.
        reason: why no settings fit.
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
        denominator: denominator of shares.
        methods: the nearest settings of each method, nearest method first.
        single: methods with only one size on this model.
        unusable: why other methods cannot be used, by name.
    """

    model: str
    budget: str
    denominator: Denominator
    methods: list[Nearest]
    single: list[str]
    unusable: dict[str, str] = {}


def search(model: str, text: str, methods: Sequence[str] = (), denominator: str = "base") -> Search:
    """Find the settings nearest to a budget.

    Args:
        model: a name accepted by :func:`quanta_bench.models.meta.meta_model`.
        text: the budget, parsed by :meth:`Budget.parse`.
        methods: registered names; by default all.
        denominator: denominator of shares, ``base`` or ``base+added``.

    Raises:
        UsageError: the text is no budget, or the model, method or denominator is unknown.
    """
    if denominator not in ("base", "base+added"):
        raise UsageError(f"A share is of base or of base+added, not of {denominator!r}.")
    of: Denominator = "base" if denominator == "base" else "base+added"
    budget = Budget.parse(text)
    base = meta_model(model)
    plugins, unusable = METHODS.usable()
    if methods:
        plugins, unusable = {name: METHODS.get(name) for name in methods}, {}
    rows, single = [], []
    for name, method in plugins.items():
        found = with_targets(RowSpec(method=name), model).row.settings
        layers = as_llama(model, found) if found else base
        sizes = [{**found, **settings} for settings in method.sizes(layers)]
        if sizes:
            nearest = nearest_size(model, name, sizes, lambda count: budget.ratio(count, of))
            count = nearest.count
            rows.append(
                Nearest(
                    method=name,
                    settings=nearest.settings,
                    trainable=count.trainable if count else None,
                    percent=100 * count.share(of) if count else None,
                    ratio=nearest.ratio,
                    tried=len(sizes),
                    reason=nearest.reason,
                )
            )
        elif methods:
            rows.append(Nearest(method=name, reason="it has only one size on this model"))
        else:
            single.append(name)
    return Search(
        model=model,
        budget=text,
        denominator=of,
        methods=sorted(rows, key=lambda row: distance(row.ratio)),
        single=single,
        unusable=unusable,
    )


def on_screen(search: Search) -> RenderableType:
    """A line per method, nearest first, and the reasons where no settings fit."""
    of = "of base" if search.denominator == "base" else "of base + added"
    table = FittedTable(f"Nearest to {search.budget} on {search.model}")
    for heading in ("Method", "Settings", "Trained", f"% {of}", "Times the budget"):
        table.add_column(
            heading,
            right=heading not in ("Method", "Settings"),
            label=heading == "Method",
            prose=heading == "Settings",
        )
    notes = []
    for row in search.methods:
        if row.trainable is None or row.percent is None:
            notes.append(f"· {row.method}: {row.reason}")
            continue
        settings = ", ".join(f"{key}={_text(value)}" for key, value in row.settings.items())
        table.add_row(
            row.method, settings, f"{row.trainable:,}", f"{row.percent:.4g}", f"{row.ratio:.3f}"
        )
    if search.single:
        notes.append(f"· With only one size on this model: {', '.join(search.single)}")
    notes += [f"· {reason}" for reason in search.unusable.values()]
    return Group(table, *map(Text, notes))


def _text(value: Any) -> str:
    """A value in the syntax of ``--set``."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)
