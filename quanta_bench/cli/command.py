"""What every command has: -q and -v, and an option --fresh that may stand alone."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from quanta_bench.errors import UsageError
from quanta_bench.utils import verbosity

# Older typer uses the package click, newer ones a copy of their own; both name their common
# error UsageError, one step above BadParameter.
COMMAND_LINE_ERROR: Any = typer.BadParameter.__bases__[0]

FRESH = ("all", "stale")
"""The values of --fresh."""


class BenchCommand(TyperCommand):
    """A command whose option ``--fresh`` may omit its value, which means ``--fresh all``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert ``all`` where the value of ``--fresh`` is omitted.

        Raises:
            UsageError: what follows is no value, and no argument of the command either.
        """
        filled, following = [], ""
        for argument, after in zip(args, [*args[1:], ""], strict=False):
            alone = argument == "--fresh" and after not in FRESH
            following = after if alone else following
            filled += [argument, "all"] if alone else [argument]
        try:
            return super().parse_args(ctx, filled)
        except COMMAND_LINE_ERROR as error:
            if following and "extra argument" in str(error) and following in str(error):
                raise UsageError(one_of("--fresh", following, FRESH)) from None
            raise


def one_of(flag: str, value: str, choices: tuple[str, ...]) -> str:
    """The message about a value that an option does not take, with the near one."""
    from quanta_bench.errors import near

    *first, last = choices
    message = f"{flag} takes {', '.join(first)} or {last}, not {value!r}."
    return f"{message} {near(value, choices)}".rstrip()


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results and errors alone, no progress.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print what libraries say too, and tracebacks.")
]


def speaks(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command's function the options --quiet and --verbose, which it need not know of."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    further = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("quiet", Quiet), ("verbose", Verbose))
    ]

    @functools.wraps(command)
    def wrapper(*, quiet: bool, verbose: bool, **values: Any) -> None:
        if quiet and verbose:
            raise UsageError("--quiet and --verbose exclude each other: take one.")
        if quiet or verbose:
            verbosity.choose("quiet" if quiet else "verbose")
        command(**values)

    # Typer reads both the signature and the type hints.
    parameters = [*own, *further]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
    del wrapper.__wrapped__
    return wrapper
