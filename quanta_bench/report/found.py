"""Notes on how stored results were found, where model and data were not all read."""

from __future__ import annotations

from collections.abc import Iterable

from quanta_bench.references import last_part
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.contents import others_in


def found_by_specs(cells: Iterable[Cells]) -> list[str]:
    """What was not compared of results that were found by their specs; none if none was."""
    by_specs = [cell for cell in cells if cell.by_spec]
    if not by_specs:
        return []
    contents = [cell.contents for cell in by_specs if cell.contents is not None]
    compared = sorted({_short(place) for one in contents for place in one.compared})
    unread = sorted({_short(place) for one in contents for place in one.unread})
    changed = {_short(place) for one in contents for place in one.changed}
    if compared:
        notes = [
            f"Results were found by their specs and by the content of {', '.join(compared)}; "
            "whether other models and data are still the same was not checked."
        ]
    else:
        notes = [
            "Results were found by their specs; whether model and data are still the same was not "
            "checked."
        ]
    if unread:
        notes.append(
            f"Not readable here: {', '.join(unread)}. Results of others of the same names would be "
            "taken for theirs."
        )
    return notes + ([others_in(changed)] if changed else [])


def _short(place: str) -> str:
    """A place without the folders of this machine, which are of no use to readers of a table."""
    kind, _, path = place.partition(":")
    return f"{kind}:{last_part(path)}"
