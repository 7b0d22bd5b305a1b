"""The notes of a table: how it was scored, how its models were trained, and its caveats."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from quanta_bench.plugins import find_protocol, task_title
from quanta_bench.references import source_of
from quanta_bench.report import conclusions
from quanta_bench.report.screen_notes import CAVEATS, SCORES, TRAINING
from quanta_bench.results.records import Result
from quanta_bench.runs.cells import Cells
from quanta_bench.suites.schema import Profile

if TYPE_CHECKING:
    from quanta_bench.report.table import TableRow

RowResults = Sequence[tuple[str, Sequence[Result]]]
"""The results of each row, with a name that identifies the row."""


def notes(
    profile: Profile,
    size: str,
    cells: Sequence[Cells],
    rows: Sequence[TableRow],
    compared: Sequence[str] = (),
) -> dict[str, list[str]]:
    """The notes of a table by heading, from the results so far.

    Args:
        profile: the profile of the suite.
        size: name of the size; empty for the profile's default.
        cells: each row's results.
        rows: the table's rows, in the order of ``cells``.
        compared: what comparisons of rows show.

    Returns:
        Sentences by heading, the most important first; empty headings are left out.
    """
    several = len({cell.row.model.title for cell in cells}) > 1
    named = [
        (
            conclusions.row_name(
                cell.row.spec.label or cell.row.spec.method, cell.row.model.title, several
            ),
            cell,
        )
        for cell in cells
    ]
    results = [(name, cell.everything()) for name, cell in named]
    flat = [result for _, of_row in results for result in of_row]
    caveats = [f"{name}: {cell.row.missing}." for name, cell in named if cell.row.missing]
    missing = {task: reason for cell in cells for task, reason in cell.row.absent.items()}
    caveats += [f"{task_title(task)} is not filled: {reason}" for task, reason in missing.items()]
    scores: list[str] = []
    training: list[str] = []
    if flat:
        scores, training, disagreements = _methods(profile, results)
        reading, held_against = conclusions.notes(profile, rows)
        scores = [*reading[:1], *compared, *scores, *reading[1:]]
        scores += _forgetting(rows, several)
        training += _heads(results)
        caveats += [
            *disagreements,
            *held_against,
            *_unfinished(rows, several),
            *_mixtures(flat),
            *_limits(results),
        ]
    selected = profile.sizes.get(size or profile.size)
    if selected and selected.about:
        caveats.append(f"Size {size or profile.size!r}: {selected.about}")
    caveats += sorted({f"{row.label}: {row.footnote}" for row in rows if row.footnote})
    caveats += profile.notes
    if profile.about:
        training.append(profile.about)
    by_heading = {SCORES: scores, TRAINING: training, CAVEATS: caveats}
    return {heading: texts for heading, texts in by_heading.items() if texts}


def _methods(profile: Profile, named: RowResults) -> tuple[list[str], list[str], list[str]]:
    """How rows were scored, how they were trained, and where rows disagree.

    If tasks are trained separately, or some are untouched, a sentence that does not hold for all
    of them names its task.
    """
    if profile.trained == "together" and profile.untouched is None:
        return _one_training(named)
    tasks = dict.fromkeys(task for _, results in named for r in results for task in r.tasks)
    by_task = {
        task: _one_training(
            [(name, [r for r in results if task in r.tasks]) for name, results in named]
        )
        for task in tasks
    }
    scores, training, disagreements = (
        _shared_first({task: kinds[number] for task, kinds in by_task.items()})
        for number in range(3)
    )
    return scores, training, disagreements


def _shared_first(by_task: dict[str, list[str]]) -> list[str]:
    first, *others = by_task.values()
    shared = [text for text in first if all(text in texts for texts in others)]
    return shared + [
        f"{task_title(task)}: {text}"
        for task, texts in by_task.items()
        for text in texts
        if text not in shared
    ]


def _one_training(named: RowResults) -> tuple[list[str], list[str], list[str]]:
    protocols = _Statement("Protocol: ", "MIXED PROTOCOLS:", _by_row(named, _protocol))
    losses = _Statement("Trained with ", "MIXED TRAINING:", _by_row(named, _loss))
    sizes = _Statement("", "DIFFERENT SIZES OF TRAINING SET:", _by_row(named, _sizes))
    precision = _Statement("", "DIFFERENT PRECISION:", _by_row(named, _arithmetic))
    training = [*losses.agreed(), *sizes.agreed()]
    if losses.rows:
        training.append("The checkpoint with the best validation score is evaluated.")
        training.append(f"Learning rates: {_listed(_by_row(named, _rate))}.")
    bases = _by_row(named, _base_dtype)
    if bases:
        trained = " Everything that trains is float32." if losses.rows else ""
        training.append(f"Base weights: {_listed(bases)}.{trained}")
    disagreements = [
        sentence
        for statement in (protocols, losses, sizes, precision)
        for sentence in statement.disagreed()
    ]
    return protocols.agreed(), training, disagreements


class _Statement:
    """A statement that should be the same for all rows.

    Args:
        start: start of the sentence if all rows agree.
        warning: start of the sentence for each value if they do not.
        rows: the names of the rows with each value.
    """

    def __init__(self, start: str, warning: str, rows: dict[str, list[str]]) -> None:
        self._start = start
        self._warning = warning
        self.rows = rows

    def agreed(self) -> list[str]:
        return [f"{self._start}{text}." for text in self.rows] if len(self.rows) == 1 else []

    def disagreed(self) -> list[str]:
        if len(self.rows) == 1:
            return []
        return [f"{self._warning} {', '.join(names)}: {text}." for text, names in self.rows.items()]


def _by_row(named: RowResults, describe: Callable[[Result], str]) -> dict[str, list[str]]:
    """The names of the rows by description; an empty description is left out."""
    rows: dict[str, list[str]] = defaultdict(list)
    for name, results in named:
        for result in results:
            text = describe(result)
            if text and name not in rows[text]:
                rows[text].append(name)
    return dict(rows)


def _listed(rows: dict[str, list[str]]) -> str:
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in rows.items())


def _protocol(result: Result) -> str:
    protocol = result.protocol
    scoring = find_protocol(protocol["put"]).scoring(protocol["normaliser"])
    chat = _chat(result, "scoring")
    source = source_of(result.tasks, result.evaluation.source)
    return f"{protocol['put']}{chat}, {scoring}, data from {source}"


def _chat(result: Result, part: str) -> str:
    used = part in result.protocol.get("chat_template", "")
    return " in the model's chat template" if used else ""


def _arithmetic(result: Result) -> str:
    precision = result.evaluation_precision.get("arithmetic")
    return f"computed in {precision}" if precision else ""


def _loss(result: Result) -> str:
    protocol = result.protocol
    if not protocol["loss"]:
        return ""
    return (
        f"the loss {protocol['loss']!r} and the protocol {protocol['trained_as']}"
        f"{_chat(result, 'training')}, "
        f"data from {source_of(result.training.spec.tasks, result.training.spec.source)}"
    )


def _sizes(result: Result) -> str:
    training = result.training
    if not training.steps:
        return ""
    return f"{training.train_items} training items, {training.validation_items} for validation"


def _base_dtype(result: Result) -> str:
    training = result.training
    trained = training.precision["base"] if training.steps else ""
    dtype = result.evaluation_precision.get("base") or trained
    kept = training.spec.quantization
    return dtype if kept == "none" else f"{dtype} with linear layers in 4 bits ({kept})"


def _rate(result: Result) -> str:
    return f"{result.training.spec.learning_rate:g}" if result.training.steps else ""


def _heads(named: RowResults) -> list[str]:
    """The parameter counts without a classification head; a table shows those of its first task."""
    firsts = {name: results[0].training for name, results in named if results}
    without = [
        f"{name} {record.trainable_parameters - record.head_parameters:,}"
        for name, record in firsts.items()
        if record.head_parameters
    ]
    if not without:
        return []
    return [
        "The trained and the base parameters include the classification head, which is initialised "
        f"at random and trained by every method. Trained without it: {', '.join(without)}."
    ]


def _forgetting(rows: Sequence[TableRow], several: bool) -> list[str]:
    by_row = [
        f"{conclusions.row_name(row.label, row.model, several)} {row.perplexity:.1f}"
        for row in rows
        if row.perplexity is not None
    ]
    if not by_row:
        return []
    return [f"Forgetting, as perplexity per token of running text: {', '.join(by_row)}."]


def _unfinished(rows: Sequence[TableRow], several: bool) -> list[str]:
    """Rows without all of their seeds."""
    return [
        f"{conclusions.row_name(row.label, row.model, several)}: {len(row.done_seeds)} of "
        f"{row.wanted_seeds} seeds are finished."
        for row in rows
        if not row.missing and len(row.done_seeds) < row.wanted_seeds
    ]


def _limits(named: RowResults) -> list[str]:
    """How many prompts were cut, right answers exceed the length limit, and choices were tied."""
    cut: dict[str, str] = {}
    long: dict[str, str] = {}
    trained: dict[str, list[str]] = defaultdict(list)
    tied: dict[str, list[str]] = defaultdict(list)
    shared: dict[str, int] = {}
    for name, results in named:
        count = sum(task.tied for result in results for task in result.tasks.values())
        if count:
            tied[f"{count:,}"].append(name)
        for training in {result.training.id: result.training for result in results}.values():
            share = f"{training.cut_items:,} of {training.train_items:,}"
            if training.cut_items and name not in trained[share]:
                trained[share].append(name)
        for result in results:
            for reference, task in result.tasks.items():
                title = task_title(reference)
                if task.overlap:
                    key = f"of {task.items:,} of {title}"
                    shared[key] = max(shared.get(key, 0), task.overlap)
                if task.cut_items:
                    cut[title] = f"{task.cut_items:,} of {task.items:,} of {title}"
                if task.long_answers:
                    long[title] = (
                        f"{task.long_answers:,} of {task.items:,} of {title} "
                        f"({task.max_new_tokens} tokens)"
                    )
    notes = []
    if tied:
        notes.append(
            "Items on which candidates share the best score; each then counts as chosen by an "
            f"equal part: {_listed(tied)}."
        )
    if shared:
        listed = "; ".join(f"{count:,} {rest}" for rest, count in shared.items())
        notes.append(f"Test items whose text is in the training data, at most: {listed}.")
    if any(trained.values()):
        listed = _listed({share: names for share, names in trained.items() if names})
        notes.append(f"Training contexts cut to fit training.max_length: {listed}.")
    if cut:
        notes.append(f"Prompts cut to fit evaluation.max_length: {'; '.join(cut.values())}.")
    if long:
        notes.append(
            "Items whose right answer is longer than evaluation.max_new_tokens allows: "
            f"{'; '.join(long.values())}."
        )
    return notes


def _mixtures(results: Sequence[Result]) -> list[str]:
    """Warn where rows were computed with different code, packages or machines."""
    environments = [result.training.environment for result in results]
    environments += [result.evaluation_environment for result in results]

    def distinct(what: str, values: Iterable[str]) -> list[str]:
        count = len(set(values))
        return [f"Rows were computed with {count} different {what}."] if count > 1 else []

    warnings = distinct(
        "sets of package versions", (str(sorted(e.packages.items())) for e in environments)
    )
    warnings += distinct("commits of this suite", (e.git_commit for e in environments))
    warnings += distinct("devices", (e.device for e in environments))
    if any(environment.git_dirty for environment in environments):
        warnings.append("Some rows were computed with uncommitted changes to this suite.")
    return warnings
