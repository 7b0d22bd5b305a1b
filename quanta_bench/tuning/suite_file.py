"""The tuned suite: a suite's file whose rows have the chosen learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from quanta_bench.report.rate_study import RowStudy, Study
from quanta_bench.report.tuned import origin
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.grid import GridRow
from quanta_bench.suites.loading import shipped
from quanta_bench.suites.overrides import GIVEN, Overrides
from quanta_bench.suites.request import Request


def tuned_suite(request: Request, choice: Choice, study: Study, source: str) -> dict[str, Any]:
    """The content of the tuned suite's file.

    The one profile inherits from the tuned one, so that it follows it; its rows are written in
    full, with what the user chose on the command line, seeds excepted.

    Args:
        request: what was tuned.
        choice: the user's choice that it was made of.
        study: what was found.
        source: the suite as the user named it: a number, a name or a path.
    """
    suite = request.suite
    profile: dict[str, Any] = {"like": _parent(suite.name, source)}
    if request.size:
        profile["size"] = request.size
    if choice.vary:
        profile["vary"] = list(choice.vary)
    if choice.model:
        model = request.grid[0].model
        profile |= {"model": model.name, "model_source": model.source, "about": "", "notes": []}
    found = {(row.label, row.model): row for row in study.rows if row.chosen is not None}
    profile["rows"] = [
        _row(row, choice, found.get((row.spec.label, row.model.title)), study)
        | _relative_to(row, request.grid)
        for row in request.grid
        if not row.missing
    ]
    own = suite.model_dump(mode="json", exclude_defaults=True, exclude={"profiles", "figure"})
    return {
        **own,
        "name": f"tuned-{study.name.removeprefix('tune-')}",
        "title": f"{suite.title} (learning rates tuned)".strip(),
        "profiles": {request.profile_name: profile},
    }


def _parent(name: str, source: str) -> str:
    """How the tuned suite names the suite it inherits from: by name if that is shipped."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return str(path.resolve())
    return name if name in shipped() else source


def _row(row: GridRow, choice: Choice, found: RowStudy | None, study: Study) -> dict[str, Any]:
    """A row as a file has it."""
    spec = row.spec
    given = Overrides.of(_for_all(choice), ())
    origins = dict.fromkeys((*given.training, *given.evaluation), GIVEN)
    training = {**spec.training, **given.training}
    if found is not None:
        training["learning_rate"] = found.chosen
        origins["learning_rate"] = origin(study.fingerprint, found.settings)
    update: dict[str, Any] = {
        "training": training,
        "evaluation": {**spec.evaluation, **given.evaluation},
        "origin": {**spec.origin, **origins},
    }
    if choice.model:
        update |= {
            "model": "",
            "revision": "" if row.model.revision == "main" else row.model.revision,
        }
    changed = spec.model_copy(update=update)
    return changed.model_dump(mode="json", exclude_defaults=True)


def _relative_to(row: GridRow, grid: Sequence[GridRow]) -> dict[str, str]:
    """The row that a row's share is relative to, by its label in the file; empty if left out."""
    if row.reference is None:
        return {}
    labels = (
        other.spec.label
        for other in grid
        if not other.missing
        and (other.written, other.model.name) == (row.reference.label, row.model.name)
    )
    return {"relative_to": next(labels, "")}


def _for_all(choice: Choice) -> Mapping[str, Any]:
    """The settings that the user gave for the trainings and evaluations of all rows."""
    owned = {
        key: value
        for key, value in (choice.settings or {}).items()
        if key.partition(".")[0] in ("training", "evaluation")
    }
    if choice.source:
        owned = {"training.source": choice.source, "evaluation.source": choice.source} | owned
    return owned


def write(content: Mapping[str, Any], study: Study, folder: Path, name: str) -> Path:
    """Write the tuned suite beside a study's files; returns its path.

    Args:
        content: of `tuned_suite`.
        study: the study.
        folder: the results folder.
        name: the stem of the study's files.
    """
    path = folder / f"tuned-{name.removeprefix('tune-')}.yaml"
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100)
    path.write_text(
        f"# Learning rates of study {study.fingerprint}, see {name}.md. Made by:\n"
        f"#   {' '.join(study.command.split())}\n{text}",
        encoding="utf-8",
    )
    return path
