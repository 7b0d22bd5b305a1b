"""What stands under a table: all that a reader has to know, in sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from quanta_bench.plugins import find_protocol, task_title
from quanta_bench.results.records import Result
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.schema import Profile

if TYPE_CHECKING:
    from quanta_bench.report.table import TableRow


def notes(
    profile: Profile, size: str, cells: Sequence[Cells], rows: Sequence[TableRow]
) -> list[str]:
    """The notes of a table, from whatever results are there."""
    results = [result for cell in cells for result in cell.everything()]
    several = len({cell.row.model.name for cell in cells}) > 1
    named = [
        (_name(cell.row.spec.label or cell.row.spec.method, cell.row.model.name, several), cell)
        for cell in cells
    ]
    runs = [(name, cell.everything()) for name, cell in named]
    said = [profile.about] if profile.about else []
    chosen = size or profile.size
    if chosen in profile.sizes and profile.sizes[chosen].about:
        said.append(f"Size {chosen!r}. {profile.sizes[chosen].about}")
    if results:
        said.append(
            "Cells are the mean over seeds ± the standard deviation over seeds; the second table "
            "gives each seed and, in brackets, the standard error over items, robust to groups of "
            "related items."
        )
        said += _by_part(profile, runs)
        said += _heads(runs)
        said += _forgetting(rows, several)
        said += _mixtures(results)
        said += _limits(runs)
    said += [f"{name}: {cell.row.missing}." for name, cell in named if cell.row.missing]
    absent = {task: reason for cell in cells for task, reason in cell.row.absent.items()}
    said += [f"{task_title(task)} is not filled: {reason}" for task, reason in absent.items()]
    said += profile.notes
    said += sorted({f"{row.label}: {row.footnote}" for row in rows if row.footnote})
    return said


Named = Sequence[tuple[str, Sequence[Result]]]
"""The results of rows, with the names that tell these apart."""


def _by_part(profile: Profile, named: Named) -> list[str]:
    """How it was scored and trained; where tasks are trained apart, for each where these differ."""
    if profile.trained == "together":
        return _scoring(named) + _training(named)
    tasks = dict.fromkeys(task for _, results in named for r in results for task in r.tasks)
    said = {}
    for task in tasks:
        own = [(name, [r for r in results if task in r.tasks]) for name, results in named]
        said[task] = _scoring(own) + _training(own)
    first, *others = said.values()
    shared = [note for note in first if all(note in notes for notes in others)]
    return shared + [
        f"{task_title(task)}: {note}"
        for task, notes in said.items()
        for note in notes
        if note not in shared
    ]


def _name(label: str, model: str, several: bool) -> str:
    """A row's label, with its model where the table has several."""
    return f"{label} ({model})" if several and model else label


def _by_row(named: Named, describe: Callable[[Result], str]) -> dict[str, list[str]]:
    """Which rows a description holds for; a description of ``""`` is left out."""
    rows: dict[str, list[str]] = defaultdict(list)
    for name, results in named:
        for result in results:
            text = describe(result)
            if text and name not in rows[text]:
                rows[text].append(name)
    return dict(rows)


def _listed(rows: dict[str, list[str]]) -> str:
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in rows.items())


def _agreed(rows: dict[str, list[str]], one: str, several: str) -> list[str]:
    """One note if all rows agree; otherwise a loud one for each way of doing it."""
    if len(rows) == 1:
        return [f"{one}{text}." for text in rows]
    return [f"{several} {', '.join(labels)}: {text}." for text, labels in rows.items()]


def _scoring(named: Named) -> list[str]:
    def describe(result: Result) -> str:
        how = result.protocol
        source = result.evaluation.source
        scoring = find_protocol(how["put"]).scoring(how["normaliser"])
        return f"put as {how['put']}, {scoring}, data from {source}"

    return _agreed(_by_row(named, describe), "Protocol: ", "MIXED PROTOCOLS:")


def _training(named: Named) -> list[str]:
    def describe(result: Result) -> str:
        how = result.protocol
        if not how["loss"]:
            return ""
        source = result.training.spec.source
        return f"trained as {how['trained_as']} with the loss {how['loss']!r}, data from {source}"

    def sizes(result: Result) -> str:
        done = result.training
        if not done.steps:
            return ""
        return f"{done.train_items} items with {done.validation_items} for validation"

    def base(result: Result) -> str:
        done = result.training
        trained = done.precision["base"] if done.steps else ""
        return result.evaluation_precision.get("base") or trained

    def rate(result: Result) -> str:
        return f"{result.training.spec.learning_rate:g}" if result.training.steps else ""

    protocols = _by_row(named, describe)
    said = []
    if protocols:
        said += _agreed(protocols, "Models were ", "MIXED TRAINING:")
        said += _agreed(_by_row(named, sizes), "Trained on ", "DIFFERENT SIZES OF TRAINING SET:")
        said.append("The checkpoint with the best validation is scored.")
    bases = _by_row(named, base)
    if bases:
        trained = " Everything that trains is float32." if protocols else ""
        said.append(f"Base weights: {_listed(bases)}.{trained}")
    if protocols:
        said.append(f"Learning rates: {_listed(_by_row(named, rate))}.")
    return said


def _heads(named: Named) -> list[str]:
    """What of the parameters is a classification head's; a table shows those of its first task."""
    firsts = {name: results[0].training for name, results in named if results}
    without = [
        f"{name} {record.trainable_parameters - record.head_parameters:,}"
        for name, record in firsts.items()
        if record.head_parameters
    ]
    if not without:
        return []
    return [
        "The parameters trained, and those of the base, count the classification head, which "
        f"starts at random and trains with every method. Trained without it: {', '.join(without)}."
    ]


def _forgetting(rows: Sequence[TableRow], several: bool) -> list[str]:
    found = [
        f"{_name(row.label, row.model, several)} {row.perplexity:.1f}"
        for row in rows
        if row.perplexity is not None
    ]
    if not found:
        return []
    text = ", ".join(found)
    return [f"Perplexity per token of running text afterwards (what was forgotten): {text}."]


def _limits(named: Named) -> list[str]:
    """How many prompts were cut, and how many right answers were longer than answers could be."""
    cut: dict[str, str] = {}
    long: dict[str, str] = {}
    for _, results in named:
        for result in results:
            for reference, task in result.tasks.items():
                title = task_title(reference)
                if task.cut_items:
                    cut[title] = f"{task.cut_items:,} of {task.items:,} of {title}"
                if task.long_answers:
                    long[title] = (
                        f"{task.long_answers:,} of {task.items:,} of {title} "
                        f"({task.max_new_tokens} tokens)"
                    )
    notes = []
    if cut:
        notes.append(f"Prompts cut to fit evaluation.max_length: {'; '.join(cut.values())}.")
    if long:
        notes.append(
            "Items whose right answer is longer than evaluation.max_new_tokens allows: "
            f"{'; '.join(long.values())}."
        )
    return notes


def _mixtures(results: Sequence[Result]) -> list[str]:
    """Say so where rows were computed with different code, packages or machines."""
    environments = [result.training.environment for result in results]
    environments += [result.evaluation_environment for result in results]

    def distinct(what: str, values: Iterable[str]) -> list[str]:
        count = len(set(values))
        return [f"Rows were computed with {count} different {what}."] if count > 1 else []

    said = distinct(
        "sets of package versions", (str(sorted(e.packages.items())) for e in environments)
    )
    said += distinct("commits of this suite", (e.git_commit for e in environments))
    said += distinct("devices", (e.device for e in environments))
    if any(environment.git_dirty for environment in environments):
        said.append("Some rows were computed with uncommitted changes to this suite.")
    return said
