"""The command line: its commands, a module each, and how failures end.

Every heavy import waits until a command needs it.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from quanta_bench import __version__
from quanta_bench.cli import (
    bench,
    compare,
    console,
    doctor,
    evaluate,
    export,
    fetch,
    figure,
    geometry,
    methods,
    models,
    new,
    params,
    report,
    results,
    run,
    settings,
    table,
    targets,
    tasks,
    tune,
    verify,
)
from quanta_bench.cli.command import COMMAND_LINE_ERROR, BenchCommand, speaks
from quanta_bench.cli.options import examples
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.utils import verbosity
from quanta_bench.utils.escaping import brief

app = typer.Typer(
    name="quanta-bench",
    help="Fine-tune language models with many methods, score them on real tasks, print the tables.",
    epilog=examples(
        "quanta-bench table 3 --methods lora,quanta --seeds 0",
        "quanta-bench run --method lora --task piqa",
        "quanta-bench methods quanta",
        "quanta-bench COMMAND --help",
        "quanta-bench --install-completion",
    ),
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

TERMINATED = 143
"""Exit status after SIGTERM, as shells have it."""
_WRONG_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
"""What the system says of a path that cannot be what the user named it for."""

_COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "table": (table.table, table.EXAMPLES),
    "figure": (figure.figure, figure.EXAMPLES),
    "run": (run.run, run.EXAMPLES),
    "tune": (tune.tune, tune.EXAMPLES),
    "compare": (compare.compare, compare.EXAMPLES),
    "geometry": (geometry.geometry, geometry.EXAMPLES),
    "eval": (evaluate.evaluate, evaluate.EXAMPLES),
    "export": (export.export, export.EXAMPLES),
    "results": (results.results, results.EXAMPLES),
    "report": (report.report, report.EXAMPLES),
    "params": (params.params, params.EXAMPLES),
    "methods": (methods.methods, methods.EXAMPLES),
    "tasks": (tasks.tasks, tasks.EXAMPLES),
    "models": (models.models, models.EXAMPLES),
    "settings": (settings.settings, settings.EXAMPLES),
    "list": (targets.targets, targets.EXAMPLES),
    "fetch": (fetch.fetch, fetch.EXAMPLES),
    "doctor": (doctor.doctor, doctor.EXAMPLES),
    "verify": (verify.verify, verify.EXAMPLES),
    "new": (new.new, new.EXAMPLES),
    "bench": (bench.bench, bench.EXAMPLES),
}
for _name, (_function, _examples) in _COMMANDS.items():
    app.command(_name, epilog=_examples, cls=BenchCommand)(speaks(_function))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def main() -> None:
    """Run the command line; every failure ends with one message and an exit status."""
    with verbosity.kept():
        _main()


def _main() -> None:
    status: Any = 1
    terminated = False

    def terminate(*_: object) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    # Ends in order like Ctrl-C. Without a handler of ours, Lightning would take the signal for the
    # end of one training.
    signal.signal(signal.SIGTERM, terminate)
    try:
        # Typer turns Ctrl-C into the status 130, as shells count it.
        with console.acknowledge_interrupts():
            status = app(standalone_mode=False, prog_name=app.info.name)
        if status == INTERRUPTED:
            raise KeyboardInterrupt
    except BenchError as error:
        typer.echo(f"quanta-bench: {brief(str(error))}", err=True)
        status = error.exit_status
    except COMMAND_LINE_ERROR as error:
        typer.echo(f"quanta-bench: {brief(_command_line_message(error))}", err=True)
        status = UsageError.exit_status
    except (KeyboardInterrupt, typer.Abort):
        status = TERMINATED if terminated else INTERRUPTED
        typer.echo("\nStopped. Finished work is kept; rerun the command to resume.", err=True)
    except BrokenPipeError:
        # The reader of our output closed it, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as error:
        if os.environ.get("QUANTA_BENCH_DEBUG") or error.errno not in _WRONG_PATH:
            status = _say_unexpected(error)
        else:
            place = error.filename if error.filename is not None else "A path"
            typer.echo(brief(f"quanta-bench: {place}: {error.strerror}."), err=True)
            status = UsageError.exit_status
    except Exception as error:
        status = _say_unexpected(error)
    sys.exit(status if isinstance(status, int) else 0)


def _say_unexpected(error: Exception) -> int:
    """Print an unexpected exception and return the exit status; raise it for who debugs."""
    if os.environ.get("QUANTA_BENCH_DEBUG"):
        raise error
    if verbosity.is_verbose():
        traceback.print_exception(error)
    typer.echo(f"quanta-bench: {brief(_unexpected(error))}", err=True)
    return BenchError.exit_status


def _command_line_message(error: Any) -> str:
    """What is wrong with the command line, in one line, and the command that shows its help."""
    path = error.ctx.command_path if error.ctx is not None else app.info.name
    message = " ".join(error.format_message().split()).removesuffix(".")
    end = "" if message.endswith((".", "?")) else "."
    return f"{message}{end} See `{path} --help`."


def _unexpected(error: Exception) -> str:
    """The message for an unexpected exception: one line, and the path of the log."""
    from quanta_bench.plugins import plugin_packages
    from quanta_bench.utils.cache import cache_folder
    from quanta_bench.utils.crash import report_crash

    packages = plugin_packages()
    described = report_crash(error, cache_folder(), type(error).__name__, packages)
    return f"unexpected {described}.\nFinished work is kept."


if __name__ == "__main__":
    main()
