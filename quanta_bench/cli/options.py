"""The options that commands share, each declared once: `SuiteOptions` is a command's options.

The command line is made from the dataclass (`takes_options`), and the same object is what a
command works with.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer

from quanta_bench.cli import completion
from quanta_bench.cli.command import FRESH, one_of
from quanta_bench.cli.command_lines import HELP_WIDTH, folded
from quanta_bench.errors import UsageError

if TYPE_CHECKING:
    from quanta_bench.launchers.launch import Launcher
    from quanta_bench.runs.sweep import Fresh
    from quanta_bench.suites.choice import Choice

# The two that nearly every command has.
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
FreshOption = Annotated[
    str,
    typer.Option(
        "--fresh",
        metavar="[all|stale]",
        help="Compute finished runs again: all (also without a value), or stale: those computed "
        "by a different version of the code.",
    ),
]
AllowOverlap = Annotated[
    bool,
    typer.Option(
        "--allow-overlap",
        help="Score tasks even if more than 2% of their test items are in the training data.",
    ),
]
Loggers = Annotated[
    list[str] | None,
    typer.Option(
        "--logger",
        metavar="NAME",
        autocompletion=completion.loggers,
        help="Follow trainings in csv, tensorboard, wandb, mlflow or trackio, in RESULTS/loggers. "
        "Repeat it for several. Finished runs are not trained, so not logged.",
    ),
]
ModelName = Annotated[
    str, typer.Option("--model", help="Base model: smollm2-135m, hub:NAME@REVISION or local:DIR.")
]
DataSource = Annotated[
    str, typer.Option("--source", help="Where data comes from: embedded, hub, local:DIR.")
]
DeviceCount = Annotated[
    int,
    typer.Option(
        "--devices",
        help="Devices that one run is spread over: GPUs of this machine, or processes without any.",
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        "--strategy",
        help="How: ddp (the whole model on each device) or fsdp (a part of its frozen weights). "
        "[default: ddp]",
    ),
]
ChatTemplate = Annotated[
    bool,
    typer.Option(
        "--chat-template",
        help="Train and score with prompts in the model's own chat template.",
    ),
]
# Of commands that read a finished table: they say again how it was computed.
StoredTable = Annotated[
    str, typer.Option("--table", help="3, table3, or the path of a suite of your own.")
]
StoredIn = Annotated[
    Path | None,
    typer.Option("--results", help="Results folder. [default: results/local/PROFILE]"),
]
StoredProfile = Annotated[
    str, typer.Option("--profile", help="embedded (offline, small), one-gpu or paper.")
]
StoredSize = Annotated[
    str, typer.Option("--size", help="Size of the data, as the suite names it: small, full.")
]
StoredSeeds = Annotated[str, typer.Option("--seeds", help="Seeds in place of the suite's: 0,1.")]
StoredModel = Annotated[
    str, typer.Option("--model", help="The model for all rows, as the table was computed.")
]


@dataclass(frozen=True)
class SuiteOptions:
    """The options of `table` and `figure` that concern a suite. Each field is one option."""

    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            autocompletion=completion.profiles,
            help="embedded (offline, small), one-gpu (24 GB and a hub) or paper.",
        ),
    ] = "embedded"
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            autocompletion=completion.method_list,
            help="Rows to keep, by method: quanta,lora. With +name a row is added.",
        ),
    ] = ""
    rows: Annotated[
        str, typer.Option("--rows", help="all: add a row for every registered method.")
    ] = ""
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds in place of the suite's: 0,1,2.")] = (
        ""
    )
    vary: Annotated[
        str,
        typer.Option(
            "--vary",
            help="What a seed varies, in place of the suite's: init,order,sample (with sample, "
            "each seed draws its own training and test items).",
        ),
    ] = ""
    size: Annotated[
        str, typer.Option("--size", help="Size of the data, as the suite names it: small, full.")
    ] = ""
    models: Annotated[
        str, typer.Option("--models", help="Keep the rows of these models: llama2-7b,llama3-8b.")
    ] = ""
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="A model for all rows: hub:NAME@REVISION or local:DIR. Sizes that do not "
            "fit it are replaced automatically.",
        ),
    ] = ""
    source: DataSource = ""
    chat_template: ChatTemplate = False
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting: training.epochs=1, evaluation.items=10 or, of a method, "
            "lora.r=16. Repeat it for several. `quanta-bench settings` lists them.",
        ),
    ] = None
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Results folder. [default: results/local/PROFILE]"),
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and compute nothing.")
    ] = False
    gpu: Annotated[
        str,
        typer.Option("--gpu", help="With --dry-run: estimate for this GPU, such as h100-80gb."),
    ] = ""
    jobs: Annotated[
        str,
        typer.Option(
            "--jobs",
            envvar="QUANTA_BENCH_JOBS",
            help="Runs computed at once: a number, or auto: by cores and memory, one with a GPU.",
        ),
    ] = "auto"
    together: Annotated[
        str,
        typer.Option(
            "--together",
            help="Runs trained together over one base: a number, or auto: 16 with a GPU, else 1.",
        ),
    ] = "1"
    devices: DeviceCount = 1
    strategy: Strategy = ""
    launcher: Annotated[
        str,
        typer.Option(
            "--launcher", help="Where runs are computed: local (this machine), ray or slurm."
        ),
    ] = "local"
    workers: Annotated[
        str,
        typer.Option(
            "--workers", help="With ray or slurm: the most workers at once, a number or auto."
        ),
    ] = "auto"
    launcher_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--launcher-set",
            metavar="KEY=VALUE",
            help="With ray or slurm: partition=gpu, gpus=1, memory=24. Repeat it for several.",
        ),
    ] = None
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="With slurm: submit the workers and do not wait for them."),
    ] = False
    fresh: FreshOption = ""
    allow_overlap: AllowOverlap = False
    loggers: Loggers = None
    stored: Annotated[
        bool, typer.Option("--stored", help="Show what is stored and compute nothing.")
    ] = False
    as_json: Json = False

    @property
    def folder(self) -> Path:
        """The results folder."""
        return self.results or Path("results") / "local" / self.profile

    def check(self) -> None:
        """Refuse options that conflict or cannot be read.

        Raises:
            UsageError: a GPU to estimate for is named where runs are to be computed, or runs are
                to be computed again and not to be computed, --jobs is no number, one run is to be
                spread over several devices while others are computed, or there is no such logger.
        """
        from quanta_bench.runs.concurrency import read_jobs, read_together
        from quanta_bench.training.loggers import read_loggers

        if self.stored and self.fresh:
            raise UsageError("--stored computes nothing, and --fresh computes again: take one.")
        if self.dry_run and (self.stored or self.fresh):
            flag = "--stored" if self.stored else "--fresh"
            raise UsageError(f"--dry-run prints a plan and computes nothing: leave {flag} out.")
        if self.gpu and not self.dry_run:
            raise UsageError("--gpu needs --dry-run; runs use the GPU of this machine.")
        read_loggers(self.loggers or ())
        self._check_launcher()
        jobs, together = read_jobs(self.jobs), read_together(self.together)
        if self.devices == 1 and not self.strategy:
            return
        from quanta_bench.runs.devices import Devices

        count = Devices.of(self.devices, self.strategy).count
        for flag, number in (("--jobs", jobs), ("--together", together)):
            if count > 1 and number not in (None, 1):
                raise UsageError(
                    f"--devices {count} gives each run all {count} devices, and {flag} {number} "
                    f"computes {number} runs at once: take one of the two."
                )

    def _check_launcher(self) -> None:
        from quanta_bench.launchers.choice import LOCAL

        self.make_launcher(lambda text: None)
        if self.no_wait and self.launcher != "slurm":
            raise UsageError("--no-wait needs --launcher slurm: others end with the command.")
        if self.launcher != LOCAL and self.together != "1":
            raise UsageError("--together needs --launcher local; workers train each run alone.")
        if self.launcher != LOCAL and (self.devices != 1 or self.strategy):
            raise UsageError("--devices needs --launcher local; a worker uses one device.")

    def make_launcher(self, say: Callable[[str], None]) -> Launcher | None:
        """What computes runs in place of this command; ``None`` if it does so itself.

        Args:
            say: tells the user something.

        Raises:
            UsageError: the launcher, its settings or the number of workers are refused.
        """
        from quanta_bench.launchers.choice import make_launcher, read_workers
        from quanta_bench.suites.choice import parse_settings

        settings = parse_settings(self.launcher_settings or [])
        return make_launcher(self.launcher, read_workers(self.workers), settings, say)

    def choice(self) -> Choice:
        """What the options select and override.

        Raises:
            UsageError: an option cannot be read.
        """
        from quanta_bench.suites.choice import Choice

        if self.rows not in ("", "default", "all"):
            raise UsageError(
                f"{one_of('--rows', self.rows, ('all', 'default'))} Name single rows with "
                "--methods."
            )
        return Choice(
            methods=comma_separated(self.methods),
            all_rows=self.rows == "all",
            seeds=read_seeds(self.seeds),
            vary=comma_separated(self.vary),
            size=self.size,
            models=comma_separated(self.models),
            model=self.model,
            source=self.source,
            settings=read_settings(self.settings, chat=self.chat_template),
        )

    def given(self) -> list[str]:
        """The flags of the options that are not at their defaults, such as ``--size``."""
        return [
            flag_of(type(self), field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]


@dataclass(frozen=True)
class TableOptions(SuiteOptions):
    """The options of a suite, and those that only a table has."""

    published: Annotated[
        bool, typer.Option("--published", help="Print the paper's own table too.")
    ] = False


def flag_of(options: type, name: str) -> str:
    """The flag of a field, such as ``--set`` for ``settings``."""
    hint = get_type_hints(options, include_extras=True)[name]
    return str(hint.__metadata__[0].default)


def read_fresh(text: str) -> Fresh:
    """Which runs to compute again.

    Raises:
        UsageError: neither ``all`` nor ``stale``.
    """
    if text in ("", *FRESH):
        return cast("Fresh", text)
    raise UsageError(one_of("--fresh", text, FRESH))


def takes_options(options: type[SuiteOptions]) -> Callable[[Callable[..., None]], Any]:
    """Give a command the fields of a dataclass as options.

    The command's last parameter, ``options``, is then an object of that class.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        hints = get_type_hints(options, include_extras=True)
        arguments = [parameter for name, parameter in own.items() if name != "options"]
        fields = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in dataclasses.fields(options)
        ]

        @functools.wraps(command)
        def wrapper(**values: Any) -> None:
            chosen = {field.name: values.pop(field.name) for field in fields}
            command(**values, options=options(**chosen))

        # Typer reads both the signature and the type hints.
        wrapper.__signature__ = inspect.Signature([*arguments, *fields])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {
            parameter.name: parameter.annotation for parameter in [*arguments, *fields]
        }
        del wrapper.__wrapped__
        return wrapper

    return decorate


def examples(*commands: str) -> str:
    """The end of a help page: commands to copy, a line each."""
    # The mark \b keeps click from joining the lines.
    lines = [line for command in commands for line in folded(command, HELP_WIDTH)]
    return "\n".join(["\b", "Examples:", *lines])


def comma_separated(text: str) -> tuple[str, ...]:
    """The parts of a list such as ``quanta,lora``."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_settings(words: list[str] | None, *, chat: bool) -> dict[str, Any]:
    """The settings of ``--set`` and of ``--chat-template``.

    Raises:
        UsageError: one is not of the form name=value.
    """
    from quanta_bench.suites.choice import parse_settings

    both = {f"{part}.chat_template": True for part in ("training", "evaluation")} if chat else {}
    return {**both, **parse_settings(words or [])}


SEEDS = 2**32
"""Seeds are below it, as NumPy's generators take them."""


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a list such as ``0,1,2``.

    Raises:
        UsageError: one is not an integer, is out of range, or is given twice.
    """
    seeds = integers(text)
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < SEEDS for seed in seeds):
        raise UsageError(f"Seeds must be distinct integers from 0 to {SEEDS - 1}, not {text}.")
    return seeds


def integers(text: str) -> tuple[int, ...]:
    """The numbers of a list such as ``0,1,2``.

    Raises:
        UsageError: one of them is not an integer.
    """
    try:
        return tuple(int(part) for part in comma_separated(text))
    except ValueError:
        raise UsageError(f"{text!r} is not a list of integers such as 0,1,2.") from None
