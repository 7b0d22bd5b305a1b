"""Render sample outputs for the screen, as Markdown and as CSV."""

from __future__ import annotations

import re
from functools import partial

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from quanta_bench.report import sections
from quanta_bench.report.samples import Output, Sample, Samples, TaskSamples
from quanta_bench.report.screen_notes import ScreenNotes
from quanta_bench.report.sections import Column, Section
from quanta_bench.utils.escaping import csv_text, one_line, printable


def shorten(text: str, characters: int) -> str:
    """Cut the middle of a text longer than ``characters``, stating how much is left out."""
    left_out = len(text) - characters
    if left_out <= 0:
        return text
    end = characters // 2
    return f"{text[: characters - end]} [... {left_out:,} characters ...] {text[len(text) - end :]}"


def as_markdown(made: Samples, characters: int) -> str:
    """GitHub Markdown: a heading per task, a prompt and a table of answers per item, the notes."""
    return sections.fill(
        "samples.md.jinja",
        made=made,
        columns=partial(_columns, _several_models(made), characters),
        cut=_cut,
        fence=_fence,
        shorten=lambda text: shorten(text, characters),
        printable=printable,
    )


def on_screen(made: Samples, characters: int) -> RenderableType:
    """The prompts and answers as Rich draws them, and the notes."""
    pages: list[RenderableType] = [Text(printable(made.title), style="bold")]
    several = _several_models(made)
    for task in made.tasks:
        columns = _columns(several, characters, task)
        for item in task.samples:
            prompt = Text(printable(shorten(item.prompt, characters)))
            choices = "".join(
                f"\n({number}) {shorten(choice, characters)}"
                for number, choice in enumerate(item.choices, 1)
            )
            prompt.append(printable(choices), style="cyan")
            right = " or ".join(
                shorten(answer, characters) for answer in (item.gold, *item.accepted)
            )
            prompt.append(printable(f"\nRight: {right}"), style="green")
            title = Text(one_line(f"{task.title}, {item.id}{_cut(item)}"))
            pages.append(Panel(prompt, title=title, title_align="left", expand=False))
            pages += [sections.screen_table(Section("", columns, item.outputs)), ""]
    return Group(*pages, ScreenNotes({"Notes": made.notes}, "tableH.md"))


def as_csv(made: Samples) -> str:
    """One line per item and model, with full texts."""
    lines = []
    for task in made.tasks:
        for item in task.samples:
            lists = (" | ".join(item.choices), item.gold, " | ".join(item.accepted))
            start = [task.task, item.id, item.prompt, item.cut, *lists]
            for output in item.outputs:
                who = [output.label, output.method, output.model, output.seed, output.run]
                answer = [output.text, output.parsed, output.score, output.metric, output.verdict]
                lines.append([*start, *who, *answer])
    columns = "task item prompt tokens_cut choices gold accepted label method model seed run"
    return csv_text(f"{columns} output parsed score metric verdict".split(), lines)


def _columns(several: bool, characters: int, task: TaskSamples) -> list[Column[Output]]:
    """The columns of a task's answers: row, answer, parsed answer, verdict."""

    def row_name(output: Output) -> str:
        return f"{output.label} ({output.model})" if several else output.label

    def answer(output: Output) -> str:
        # A cell has one line.
        return " ⏎ ".join(shorten(output.text.strip(), characters).splitlines()) or "–"

    columns = [
        Column("Row", row_name, right=False, label=True),
        Column("Answer", answer, right=False, prose=True),
    ]
    if task.generated:
        columns.append(
            Column("Read as", lambda output: output.parsed or "–", right=False, prose=True)
        )
    return [*columns, Column("Verdict", lambda output: output.verdict, right=False)]


def _several_models(made: Samples) -> bool:
    every = (output for task in made.tasks for item in task.samples for output in item.outputs)
    return len({output.model for output in every}) > 1


def _cut(item: Sample) -> str:
    """How much of the prompt the models did not see, as text."""
    if item.cut is None:
        return ", of which a part may have been cut for its length"
    return f", without {item.cut:,} tokens that were cut for its length" if item.cut else ""


def _fence(item: Sample) -> str:
    """A Markdown fence long enough for a prompt."""
    longest = max(map(len, re.findall("`+", item.prompt)), default=0)
    return "`" * max(3, longest + 1)
