"""``quanta-bench new``: write a package with a method or a task of one's own."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from quanta_bench.cli.options import examples
from quanta_bench.errors import UsageError, did_you_mean

EXAMPLES = examples(
    "quanta-bench new method block_diagonal",
    "quanta-bench new task capitals --to ~/my-tasks",
)

TEMPLATES = Path(__file__).parent / "templates"

Kind = Literal["method", "task"]
KINDS: tuple[Kind, ...] = ("method", "task")


def new(
    kind: Annotated[str, typer.Argument(metavar="method|task", help="What to write.")],
    name: Annotated[str, typer.Argument(help="Its name, in lower case: block_diagonal.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="The folder to write. [default: ./NAME]")
    ] = None,
) -> None:
    """Write a package with a method or a task of your own.

    It is complete: code to replace, entry point, README, and tests that pass at once, among them
    those that every method or task has to pass. Installed beside the suite, its plug-in is in every
    list and table.
    """
    from quanta_bench.cli import console
    from quanta_bench.utils.folders import user_path

    if kind not in KINDS:
        raise UsageError(f"There is no template for a {kind!r}. {did_you_mean(kind, KINDS)}")
    check_name(kind, name)
    folder = user_path(str(to or name))  # a shell expands no ~ that is quoted
    written = write_package(kind, name, folder)
    screen = console.console()
    for path in written:
        screen.print(f"  {path}", highlight=False, soft_wrap=True)
    screen.print(
        f"\nNext:\n  cd {shlex.quote(str(folder))}\n"
        "  python -m pip install -e '.[test]'\n  python -m pytest\n"
        f"  quanta-bench {kind}s {name}",
        highlight=False,
        soft_wrap=True,
    )


def check_name(kind: Kind, name: str) -> None:
    """Refuse a name that cannot be a plug-in's and its package's.

    Raises:
        UsageError: it is no lower-case word, or it is taken by a plug-in, by a tuner of `peft`, or
            by a module that Python can import.
    """
    from quanta_bench.plugins import METHODS, TASKS

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        better = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        usable = re.fullmatch(r"[a-z][a-z0-9_]*", better) and not keyword.iskeyword(better)
        raise UsageError(
            f"{name!r} cannot be the name of a {kind} and its package: that is a word of "
            f"lower-case letters, digits and underscores.{f' Try {better!r}.' if usable else ''}"
        )
    registry = METHODS if kind == "method" else TASKS
    if name in registry:
        raise UsageError(
            f"There is a {kind} {name!r} already, from {registry.origin(name)}; take another name."
        )
    if importlib.util.find_spec(name) is not None:
        raise UsageError(
            f"Python has a module {name!r} already, which the package would hide; take another "
            f"name, such as {f'my_{name}'!r}."
        )
    if kind == "method" and name.upper() in _tuners_of_peft():
        raise UsageError(
            f"peft has a tuner {name.upper()} already, which runs without a package: "
            f"--method peft --set type={name.upper()}. Take another name for yours."
        )


def write_package(kind: Kind, name: str, folder: Path) -> list[Path]:
    """Write the package of a template, whole or not at all.

    Args:
        kind: which template.
        name: the plug-in's name, checked.
        folder: where to write; it must not exist, or be empty.

    Returns:
        The files, in the order of their names.

    Raises:
        UsageError: the folder has content already.
        StorageError: it cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from quanta_bench import __version__
    from quanta_bench.utils.folders import is_taken, user_path, whole_folder

    folder = user_path(str(folder))
    if is_taken(folder):
        raise UsageError(f"{folder} exists already; name another folder with --to.")
    root = TEMPLATES / kind
    templates = Environment(
        loader=FileSystemLoader(root),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # Python and Markdown, not HTML
    )
    words = name.replace("_", " ")
    values = {
        "name": name,
        "Name": "".join(part.capitalize() for part in name.split("_")),
        "title": words[:1].upper() + words[1:],
        "distribution": name.replace("_", "-").strip("-"),
        "version": __version__,
    }
    written = []
    with whole_folder(folder) as fresh:
        for template in sorted(path for path in root.rglob("*") if path.is_file()):
            relative = template.relative_to(root).as_posix()
            target = fresh / relative.replace("NAME", name).removesuffix(".jinja")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(templates.get_template(relative).render(values), encoding="utf-8")
            written.append(folder / target.relative_to(fresh))
    return written


def _tuners_of_peft() -> set[str]:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {str(key.value) for key in PEFT_TYPE_TO_CONFIG_MAPPING}
