"""Command lines with something wrong in them: words, settings, paths, contradictions."""

from __future__ import annotations

from collections.abc import Iterator

from bad_inputs.cases import Case, Material, bomb
from bad_inputs.values import refused_by

from quanta_bench.plugins import METHODS
from quanta_bench.spec import EvaluationSpec, TrainingSpec

LONG = "x" * 100_000
SURROGATE = "\udcff"
"""What Python makes of a byte in the command line that is no UTF-8."""

COMMANDS = (
    *("table", "figure", "run", "tune", "compare", "geometry", "report", "params", "methods"),
    *("tasks", "models", "settings", "list", "fetch", "doctor", "verify", "bench"),
)

NAMES = ("../../x", "os:system", "x\x1b[31m", SURROGATE, LONG, "", " ", "a\nb", "%s", "0x10")
"""Names that nothing has."""


def cases(made: Material) -> Iterator[Case]:
    """Every kind of bad command line."""
    yield from _unknown_words()
    yield from _settings(made)
    yield from _names(made)
    yield from _numbers(made)
    yield from _contradictions(made)
    yield from _results(made)


def _unknown_words() -> Iterator[Case]:
    for command in COMMANDS:
        yield Case(f"{command}: an option that it does not have", (command, "--nothing-such"))
        yield Case(f"{command}: a surplus word", (command, *["a", "b", "c", "d"], "--json", "--x"))
    for word in NAMES:
        yield Case(f"a command {word[:8]!a}", (word, "3"))


def _settings(made: Material) -> Iterator[Case]:
    for part, spec in (("training", TrainingSpec), ("evaluation", EvaluationSpec)):
        for name, field in spec.model_fields.items():
            for value in refused_by(field):
                word = f"{part}.{name}={value}"
                yield Case(word, made.run("--set", word))
            yield Case(f"{part}.{name}: a bomb", made.run("--set", f"{part}.{name}={bomb()}"))
    done = set()
    for method in METHODS.names():
        for name, field in METHODS.get(method).Config.model_fields.items():
            if (name, f"{field.annotation}") in done:
                continue  # methods share a class of settings
            done.add((name, f"{field.annotation}"))
            for value in refused_by(field):
                word = f"{method}.{name}={value}"
                yield Case(word, made.run("--set", word, method=method))
            word = f"{method}.{name}={bomb()}"
            yield Case(f"{method}.{name}: a bomb", made.run("--set", word, method=method))
    for value in ("r", "=1", "r=[", "r={", "r=*a", "r=!!python/object:os.system {}", "r=&a [*a]"):
        yield Case(f"--set {value}", made.run("--set", value))
    for value in ("r=" + "[" * 5000, "r=" + "9" * 5000, f"r={SURROGATE}", f"{SURROGATE}=1"):
        yield Case(f"--set {value[:20]!a}", made.run("--set", value))
    for value in (f"{LONG}=1", f"r={LONG}", "lora.r.x=1", "training.=1", ".r=1", "evaluation.x=1"):
        yield Case(f"--set {value[:20]!a}", made.run("--set", value))
        yield Case(f"table --set {value[:20]!a}", made.table("--set", value))
    for value in ("training.seeds.init=-1", "training.model=x", "training.model={name: 5}"):
        yield Case(f"--set {value}", made.run("--set", value))
    for value in ("{init: -1}", "{init: 4294967296}", "{init: true}", "{x: 1}", "{init: 1.5}"):
        yield Case(f"training.seeds={value}", made.run("--set", f"training.seeds={value}"))
    for tasks in ("[]", "[piqua]", "[file:nowhere.csv]", "['']", "[boolq, boolq]", "[file]"):
        for part in ("training", "evaluation"):
            word = f"{part}.tasks={tasks}"
            yield Case(f"run {word}", made.run("--set", word))
            yield Case(f"table {word}", made.table("--set", word))


def _names(made: Material) -> Iterator[Case]:
    for name in NAMES:
        shown = f"{name[:8]!a}"
        yield Case(f"table {shown}", ("table", name))
        yield Case(f"figure {shown}", ("figure", name))
        yield Case(f"compare --table {shown}", ("compare", "lora", "dora", "--table", name))
        yield Case(f"geometry --table {shown}", ("geometry", "--table", name))
        yield Case(f"tune {shown}", ("tune", name))
        yield Case(f"verify {shown}", ("verify", name))
        yield Case(f"run --method {shown}", ("run", "--method", name, "--task", "piqa"))
        yield Case(f"run --task {shown}", ("run", "--method", "lora", "--task", name))
        yield Case(f"--task file:{shown}", ("run", "--method", "lora", "--task", f"file:{name}"))
        yield Case(
            f"params --model {shown}", ("params", "--method", "lora", "--model", name or "-")
        )
        yield Case(f"params --method {shown}", ("params", "--method", name or "-"))
        yield Case(f"params --budget {shown}", ("params", "--budget", name or "-"))
        yield Case(f"bench {shown}", ("bench", name))
        if name:  # without a name these list all there is
            yield Case(f"methods {shown}", ("methods", name))
            yield Case(f"tasks {shown}", ("tasks", name))
            yield Case(f"settings {shown}", ("settings", name))
            if name.strip():
                yield Case(f"--methods {shown}", made.table("--methods", name))
                yield Case(f"--vary {shown}", made.table("--vary", name))
                yield Case(f"--models {shown}", made.table("--models", name))
            yield Case(f"--size {shown}", made.table("--size", name))
            yield Case(f"--rows {shown}", made.table("--rows", name))
            yield Case(f"--fresh {shown}", made.table("--fresh", name))
            yield Case(f"--source {shown}", made.run("--source", name), (1, 2))
            yield Case(f"run --model {shown}", made.run("--model", name), (1, 2))
            yield Case(f"--source local:{shown}", made.run("--source", f"local:{name}"), (1, 2))
            yield Case(f"--model local:{shown}", made.run("--model", f"local:{name}"), (1, 2))
            yield Case(f"table --model {shown}", made.table("--model", name), (1, 2))
            yield Case(f"--launcher {shown}", ("table", "3", "--launcher", name))
            yield Case(f"bench --device {shown}", ("bench", "--device", name))
            yield Case(f"--gpu {shown}", ("table", "3", "--dry-run", "--gpu", name))
        yield Case(f"--profile {shown}", made.table("--profile", name))


def _numbers(made: Material) -> Iterator[Case]:
    for seed in (
        "-1",
        "4294967296",
        "99999999999999999999",
        "1.5",
        "1e3",
        "x",
        "inf",
        "nan",
        "true",
    ):
        yield Case(f"run --seed {seed}", made.run("--seed", seed))
        yield Case(f"table --seeds {seed}", made.table("--seeds", seed))
        yield Case(f"figure 1 --seeds {seed}", ("figure", "1", "--quick", "--seeds", seed))
        yield Case(
            f"compare --seeds {seed}", ("compare", "lora", "dora", "--table", "3", "--seeds", seed)
        )
        yield Case(f"geometry --seeds {seed}", ("geometry", "--table", "3", "--seeds", seed))
        yield Case(f"tune --seeds {seed}", ("tune", f"{made.suite}", "--seeds", seed))
    for seed in ("-1", "99999999999999999999", "1.5", "inf"):
        yield Case(f"verify --seed {seed}", ("verify", "ranks", "--quick", "--seed", seed))
    for seeds in ("0,0", "0,-1", "0;1", "9" * 5000, "0,1,x", "--", SURROGATE):
        yield Case(f"table --seeds {seeds[:9]!a}", made.table("--seeds", seeds))
    for jobs in ("0", "-1", "1.5", "many", "", "99999999999999999999", "9" * 5000, "inf", "true"):
        yield Case(f"--jobs {jobs[:20]}", made.table("--jobs", jobs))
    for rates in (
        "0",
        "-1",
        "inf",
        "nan",
        "1e400",
        "x",
        "1e-3,1e-3",
        "1e-3,1e-4",
        "0.1;0.2",
        "true",
    ):
        yield Case(f"--rates {rates}", ("tune", f"{made.suite}", "--rates", rates))
    for most in ("0", "1", "-1", "1.5", "x", "inf"):
        yield Case(f"--max-rates {most}", ("tune", f"{made.suite}", "--max-rates", most))
    for budget in (
        "0",
        "-1",
        "inf",
        "nan",
        "1e400",
        "0%",
        "-1%",
        "nan%",
        "inf%",
        "1M1",
        "%",
        "true",
    ):
        yield Case(f"--budget {budget}", ("params", "--budget", budget))


def _contradictions(made: Material) -> Iterator[Case]:
    yield Case("stored and fresh", made.table("--stored", "--fresh", "all"))
    yield Case("a GPU without a plan", made.table("--gpu", "h100-80gb"))
    yield Case("stored and planned", made.table("--stored", "--dry-run"))
    yield Case("fresh and planned", made.table("--fresh", "all", "--dry-run"))
    yield Case("a task twice", made.run("--task", f"file:{made.data}"))
    yield Case("nothing stored", made.table("--stored"))
    yield Case("a figure as a table", ("table", "figure4"))
    yield Case("a table as a figure", ("figure", "table3"))
    yield Case("quick of a suite", ("figure", "4", "--quick"))
    yield Case("figure 1 with a profile", ("figure", "1", "--profile", "paper"))
    yield Case("D1 with seeds", ("table", "D1", "--seeds", "0"))
    yield Case("tuning of stored runs", ("tune", "3", "--stored"))
    yield Case("tuning D1", ("tune", "D1"))
    yield Case("method and budget", ("params", "--method", "lora", "--budget", "1M"))
    yield Case("a model alone", ("params", "--model", "gpt2"))
    yield Case("settings of a budget", ("params", "--budget", "1M", "--set", "r=1"))
    yield Case("methods of a method", ("params", "--method", "lora", "--methods", "dora"))
    yield Case("no task", ("run", "--method", "lora"))
    yield Case("no method", ("run", "--task", "piqa"))
    yield Case("two protocols", made.run("--task", "gsm8k"))
    yield Case("one row compared", ("compare", "lora", "--table", "3"))
    yield Case("a row compared with itself", ("compare", "lora", "lora", "--table", "3"))
    yield Case("matched by nothing", ("compare", "--matched", "luck", "--table", "3"))
    for pattern in ("(", "[", "*", "(?P<a", "\\"):
        yield Case(f"--modules {pattern}", ("geometry", "--table", "3", "--modules", pattern))


def _results(made: Material) -> Iterator[Case]:
    file = made.written("paths", "a-file", "no folder")
    loop = made.root / "paths" / "loop"
    if not loop.is_symlink():
        loop.symlink_to(loop)
    for path in (
        file,
        file / "below",
        loop,
        "/proc/nothing",
        "/dev/null",
        "/dev/full",
        LONG,
        "/dev/null/x",
        "x" * 300,
    ):
        shown = f"{path}"[-12:]
        statuses = (1, 2)
        yield Case(f"run --results {shown!a}", made.run("--results", f"{path}"), statuses)
        yield Case(f"table --results {shown!a}", made.table("--results", f"{path}"), statuses)
        yield Case(
            f"tune --results {shown!a}", ("tune", f"{made.suite}", "--results", f"{path}"), statuses
        )
        yield Case(
            f"figure 1 --results {shown!a}",
            ("figure", "1", "--quick", "--results", f"{path}"),
            statuses,
        )
        yield Case(f"D1 --results {shown!a}", ("table", "D1", "--results", f"{path}"), statuses)
        yield Case(f"report --results {shown!a}", ("report", "--results", f"{path}"), statuses)
        yield Case(f"report --to {shown!a}", ("report", "--to", f"{path}"), statuses)
        yield Case(
            f"geometry --results {shown!a}",
            ("geometry", "--table", f"{made.suite}", "--results", f"{path}"),
            statuses,
        )
        yield Case(
            f"compare --results {shown!a}",
            ("compare", "none", "lora", "--table", f"{made.suite}", "--results", f"{path}"),
            statuses,
        )
        yield Case(
            f"bench --results {shown!a}",
            ("bench", "layer", "--quick", "--results", f"{path}"),
            statuses,
        )
