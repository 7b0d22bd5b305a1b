"""Sample outputs as a reader sees them: on the screen, in Markdown, in CSV."""

from __future__ import annotations

import csv
import io
import re
from functools import partial

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from quanta_bench.report import grids
from quanta_bench.report.grids import Part, Shown
from quanta_bench.report.samples import Output, Sample, Samples, TaskSamples


def shorten(text: str, characters: int) -> str:
    """A text whose middle is left out, and how much of it, if it is longer than a bound."""
    left_out = len(text) - characters
    if left_out <= 0:
        return text
    end = characters // 2
    return f"{text[: characters - end]} [... {left_out:,} characters ...] {text[len(text) - end :]}"


def as_markdown(made: Samples, characters: int) -> str:
    """GitHub Markdown: a heading a task, a prompt and a table of answers an item, the notes."""
    return grids.fill(
        "samples.md.jinja",
        made=made,
        columns=partial(_columns, _several_models(made), characters),
        cut=_cut,
        fence=_fence,
        shorten=lambda text: shorten(text, characters),
    )


def on_screen(made: Samples, characters: int) -> RenderableType:
    """The prompts and answers as Rich draws them, and the notes."""
    drawn: list[RenderableType] = [Text(made.title, style="bold")]
    several = _several_models(made)
    for task in made.tasks:
        columns = _columns(several, characters, task)
        for item in task.samples:
            prompt = Text(shorten(item.prompt, characters))
            listed = "".join(
                f"\n({number}) {shorten(choice, characters)}"
                for number, choice in enumerate(item.choices, 1)
            )
            prompt.append(listed, style="cyan")
            right = " or ".join(shorten(one, characters) for one in (item.gold, *item.accepted))
            prompt.append(f"\nRight: {right}", style="green")
            title = Text(f"{task.title}, {item.id}{_cut(item)}")
            drawn.append(Panel(prompt, title=title, title_align="left"))
            drawn.append(grids.on_screen([Part("", columns, item.outputs)], ()))
    return Group(*drawn, *(Text(f"· {note}", style="dim") for note in made.notes))


def as_csv(made: Samples) -> str:
    """One line an item and model, with whole texts."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    columns = "task item prompt tokens_cut choices gold accepted label method model seed run"
    out.writerow(f"{columns} output parsed score metric verdict".split())
    for task in made.tasks:
        for item in task.samples:
            lists = (" | ".join(item.choices), item.gold, " | ".join(item.accepted))
            start = [task.task, item.id, item.prompt, item.cut, *lists]
            for found in item.outputs:
                who = [found.label, found.method, found.model, found.seed, found.run]
                said = [found.text, found.parsed, found.score, found.metric, found.verdict]
                out.writerow([*start, *who, *said])
    return text.getvalue()


def _columns(several: bool, characters: int, task: TaskSamples) -> list[Shown[Output]]:
    """The columns of a task's answers: whose, what, how it was read, whether it is right."""

    def whose(output: Output) -> str:
        return f"{output.label} ({output.model})" if several else output.label

    def said(output: Output) -> str:
        # A cell has one line.
        return " ⏎ ".join(shorten(output.text.strip(), characters).splitlines()) or "–"

    columns = [Shown("Model", whose, right=False), Shown("Answer", said, right=False)]
    if task.generated:
        columns.append(Shown("Read as", lambda output: output.parsed or "–", right=False))
    return [*columns, Shown("Verdict", lambda output: output.verdict, right=False)]


def _several_models(made: Samples) -> bool:
    every = (output for task in made.tasks for item in task.samples for output in item.outputs)
    return len({output.model for output in every}) > 1


def _cut(item: Sample) -> str:
    """What of the prompt the models did not see."""
    if item.cut is None:
        return ", of which a part may have been cut for its length"
    return f", without {item.cut:,} tokens that were cut for its length" if item.cut else ""


def _fence(item: Sample) -> str:
    """Backticks enough to stand around a prompt."""
    longest = max(map(len, re.findall("`+", item.prompt)), default=0)
    return "`" * max(3, longest + 1)
