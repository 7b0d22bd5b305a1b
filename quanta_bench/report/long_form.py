"""A table's numbers, one line per row and column."""

from __future__ import annotations

import pandas as pd

from quanta_bench.report import failed
from quanta_bench.report.table import Table


def long_form(table: Table) -> pd.DataFrame:
    """A table's numbers, one line per row and column, the averages last; empty cells have no line.

    Returns:
        label, method, model, trainable_parameters, percent, denominator; task (a column's key or
        an average's heading), items; mean, interval_low and interval_high (95 %, of both noises; of
        items alone where there is one seed), deviation_over_seeds, standard_error_over_items in the
        table's unit; seeds, values and their own standard errors over items, separated by spaces;
        p_holm of the difference from the reference row; letters. A row some of whose runs failed
        has one more line, with the reasons under failed. Not what rows took, so that a
        sweep that was stopped gives the same file.
    """
    items = {column.key: column.items for column in table.columns}
    lines = [
        {
            "label": row.label,
            "method": row.method,
            "model": row.model,
            "trainable_parameters": row.trainable,
            "percent": row.percent,
            "denominator": row.denominator,
            "task": key,
            "items": items.get(key),
            "mean": value.mean,
            "interval_low": None if value.margin is None else value.mean - value.margin,
            "interval_high": None if value.margin is None else value.mean + value.margin,
            "deviation_over_seeds": value.deviation,
            "standard_error_over_items": value.standard_error,
            "seeds": " ".join(map(str, value.seeds)),
            "values": " ".join(map(str, value.seeds.values())),
            "standard_errors": " ".join(
                str(value.seed_errors.get(seed, "-")) for seed in value.seeds
            ),
            "p_holm": value.p_holm,
            "letters": value.letters,
        }
        for row in table.rows
        # In the order of columns, whatever the order in which cells were filled.
        for key, value in [
            *((key, row.cells[key]) for key in items if key in row.cells),
            *row.averages.items(),
        ]
    ]
    lines += failed.lines(table.rows)
    frame = pd.DataFrame(lines)
    return frame.astype({"trainable_parameters": "Int64", "items": "Int64"}) if lines else frame
