"""README, CONTRIBUTING and the CI script name only what is there, and their examples work."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import ROOT

from quanta_bench.cli import single_run as run
from quanta_bench.cli.main import app
from quanta_bench.registry import METHODS_GROUP, TASKS_GROUP
from quanta_bench.suites.choice import Choice, parse_settings
from quanta_bench.suites.loading import load_suite, shipped
from quanta_bench.suites.request import make_request
from quanta_bench.suites.schema import Suite

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = {f"docs/{path.name}": path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")}
DOCUMENTS = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING, **PAGES}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def files(text: str) -> dict[str, str]:
    """The code blocks that a comment gives a file name."""
    found = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return dict(found)


def commands(text: str) -> list[list[str]]:
    """The indented command lines, and the commands in back quotes, without trailing comments."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^ {4}(\S.*)$", plain, re.MULTILINE)
    lines += re.findall(r"`((?:make|quanta-bench) [^`]+)`", plain)
    return [shlex.split(line, comments=True) for line in lines]


def bench_commands(text: str) -> list[list[str]]:
    return [
        words[1:]
        for words in commands(text)
        if Path(words[0]).name == "quanta-bench" and not words[1].startswith("-")
    ]


EVERY = [words for text in DOCUMENTS.values() for words in bench_commands(text)]


def targets() -> set[str]:
    """Every target of the Makefile, as make itself lists them."""
    done = subprocess.run(
        ["make", "-pRrq", "-C", str(ROOT), ":"], capture_output=True, text=True, check=False
    )
    return set(re.findall(r"^([a-zA-Z][\w-]*):", done.stdout, re.MULTILINE))


def program(name: str) -> Any:
    """One of the programs of docs/, which make runs."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(text: str) -> list[tuple[str, str]]:
    """The Python blocks that say what they print, in an indented block right below."""
    pattern = r"^```python\n((?:(?!```).*\n)+)```\n\n((?: {4}.*\n|\n(?= {4}))+)"
    found = re.findall(pattern, text, re.MULTILINE)
    return [(code, textwrap.dedent(output)) for code, output in found]


@pytest.fixture(scope="module")
def cli() -> Any:
    import typer

    return typer.main.get_command(app)


# --- commands ---------------------------------------------------------------------------------


def test_the_make_targets_in_the_documents_exist() -> None:
    known = targets()
    named = {
        word
        for text in DOCUMENTS.values()
        for words in commands(text)
        if words[0] == "make"
        for word in words[1:]
        if "=" not in word
    }
    assert {"table3", "test", "lint"} <= named
    assert named <= known


def test_every_shipped_suite_and_every_listed_target_is_a_make_target() -> None:
    from quanta_bench.cli import listing

    assert {row["make"] for row in listing.targets().rows} | set(shipped()) <= targets()


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_the_commands_in_the_documents_are_understood(cli: Any, words: list[str]) -> None:
    name, *rest = words
    assert name in cli.commands, f"there is no command {name!r}"
    command = cli.commands[name]
    command.make_context(name, rest, resilient_parsing=False)


def test_the_single_runs_in_the_documents_name_real_methods_tasks_and_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (item,) = blocks(README, "json")
    Path("my.jsonl").write_text(item)
    Path("larger.jsonl").write_text(item)
    for page in ("docs/data-and-models.md", "docs/own-data.md"):
        for name, text in files(PAGES[page]).items():
            Path(name).write_text(text)
    exec(compile(Path("make_tickets.py").read_text(), "make_tickets.py", "exec"), {})
    runs = [words for words in EVERY if words[0] == "run"]
    assert len(runs) >= 3
    own = {name for points in entry_points().values() for name in points}
    for words in runs:
        options = list(zip(words[1::2], words[2::2], strict=True))
        method = dict(options)["--method"]
        if method in own:
            continue  # the worked example, which runs in test_plugin.py
        settings = parse_settings([value for key, value in options if key == "--set"])
        tasks = [value for key, value in options if key == "--task"]
        made = run.job(method, tasks, settings, 0, "smollm2-135m", "embedded")
        assert made.training.tasks == tuple(tasks)


PLACES = {"my_suite.yaml", "NAME", "norm_scales", "results/local/embedded/tuned-table3.yaml"}
"""A reader's own: the worked examples run in test_plugin.py, tune's suite in test_tune.py."""

CHEAP = {"methods", "tasks", "settings", "models", "list"}
PLANNED = {"table", "tune"}


def quick_commands() -> list[list[str]]:
    """The commands that print or plan in a moment, each once; of the others nothing is computed."""
    found = []
    for words in EVERY:
        name, rest = words[0], words[1:]
        if PLACES & set(words) or words in found:
            continue
        if name in CHEAP or "--list" in rest or "--stored" in rest:
            found.append(words)
        elif name in PLANNED and rest and not {"paper", "one-gpu"} & set(rest):
            found.append([*words, *(["--dry-run"] if "--dry-run" not in rest else [])])
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


@pytest.mark.parametrize("words", quick_commands(), ids=" ".join)
def test_the_commands_that_print_or_plan_do_so(
    words: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if "--chat-template" in words:  # that of the embedded model
        request.getfixturevalue("offline")
    if "--stored" in words:  # it writes the table beside its runs
        results = "results/study" if "--results" in words else "results/local/embedded"
        shutil.copytree(ROOT / "results" / "study", tmp_path / results)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for page in ("tutorial", "methods", "data-and-models", "own-data"):
        for name, text in files(PAGES[f"docs/{page}.md"]).items():
            Path(name).write_text(text)
    for made in ("make_items.py", "make_tickets.py"):
        exec(compile(Path(made).read_text(), made, "exec"), {})
    if "local:my-model" in words:  # a model of the reader's own, tuned for chats
        shutil.copytree(tiny_model, "my-model")
        Path("my-model", "chat_template.jinja").write_text(
            "{% for message in messages %}<s>{{ message['content'] }}</s>{% endfor %}"
        )
    app([word.replace("DIR", str(tiny_model)) for word in words], standalone_mode=False)
    said = capsys.readouterr().out
    assert said
    assert max(map(len, said.splitlines())) <= 80


def test_methods_of_the_papers_are_all_registered() -> None:
    from quanta_bench.plugins import METHODS

    profiles = [load_suite(name).profiles.get("paper") for name in shipped()]
    rows = [row for profile in profiles if profile for row in profile.rows]
    assert {row.method for row in rows} <= set(METHODS.names())


def test_ci_runs_lint_and_the_readmes_test_command_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    lines = [
        line
        for line in script.read_text().splitlines()
        if line and not line.startswith("#") and not line.startswith(("set ", "cd "))
    ]
    assert lines == ["make lint", "make test"]
    assert "set -euo pipefail" in script.read_text()
    assert os.access(script, os.X_OK)
    assert ["make", "test"] in commands(README)


def test_make_lint_runs_the_hooks_and_they_are_the_environments_own() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert [hook["id"] for hook in hooks] == ["ruff-format", "ruff-check", "mypy", "import-linter"]
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks)
    assert "bin/pre-commit run --all-files" in (ROOT / "Makefile").read_text()


# --- words ------------------------------------------------------------------------------------


def test_the_tables_of_the_documents_are_those_of_the_results_they_name() -> None:
    renew = program("renew")
    with_tables = {name for name, text in DOCUMENTS.items() if "<!-- table " in text}
    assert {"README.md", "docs/choosing.md"} <= with_tables
    assert {
        name for name in with_tables if renew.renewed(DOCUMENTS[name]) != DOCUMENTS[name]
    } == set()


def test_the_pictures_are_those_of_the_circuits() -> None:
    pictures = program("pictures")
    drawn = {f"{name}.svg": pictures.drawing(make()) for name, make in pictures.PICTURES.items()}
    there = {path.name: path.read_text("utf-8") for path in (ROOT / "docs/pictures").iterdir()}
    assert drawn == there, "make pictures draws them anew"


def test_every_fault_has_a_test_that_is_there() -> None:
    rows = re.findall(r"^\| (?!Fault|---)(.*)\|$", PAGES["docs/faults.md"], re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, name in named:
            assert f"def {name}(" in (ROOT / path).read_text("utf-8"), (path, name)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_paths_lead_somewhere(name: str) -> None:
    text = DOCUMENTS[name]
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:quanta_bench|baselines|tasks|results|tests)/[\w./]*)`", text)
    made = {f"{folder}/{file}" for folder in ("baselines", "tasks") for file in files(text)}
    computed = {path for path in paths if path.startswith("results/local")}
    for path in {*links, *paths} - made - computed:
        # A link starts from its document, a path in the text from the checkout.
        assert any((folder / path).exists() for folder in ((ROOT / name).parent, ROOT)), path


def test_the_licence_is_the_one_that_is_declared() -> None:
    text = (ROOT / "LICENSE").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in text.splitlines()[0]
    assert "END OF TERMS AND CONDITIONS" in text


# --- examples ---------------------------------------------------------------------------------


def entry_points() -> dict[str, dict[str, str]]:
    """The lines that the worked examples add to this project's pyproject."""
    found: dict[str, dict[str, str]] = {}
    for block in blocks(CONTRIBUTING, "toml"):
        table = tomllib.loads(block)
        if list(table) == ["project"] and list(table["project"]) == ["entry-points"]:
            found.update(table["project"]["entry-points"])
    return found


def test_the_worked_examples_lines_name_their_files_and_classes() -> None:
    assert set(entry_points()) == {METHODS_GROUP, TASKS_GROUP}
    for folder, points in (
        ("baselines", entry_points()[METHODS_GROUP]),
        ("tasks", entry_points()[TASKS_GROUP]),
    ):
        for name, target in points.items():
            module, _, cls = target.partition(":")
            assert module.startswith(f"{folder}.")
            tree = ast.parse(files(CONTRIBUTING)[f"{module.removeprefix(folder + '.')}.py"])
            (found,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls)
            assert f"name = '{name}'" in {ast.unparse(line) for line in found.body}


def test_the_worked_examples_import_only_what_a_plug_in_may() -> None:
    for name, text in files(CONTRIBUTING).items():
        if name.endswith(".py"):
            modules = {n.module for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)}
            own = {module for module in modules if module and module.startswith("quanta_bench")}
            assert own <= {"quanta_bench.method", "quanta_bench.task"}


def test_the_worked_method_is_short() -> None:
    assert len(files(CONTRIBUTING)["norm_scales.py"].splitlines()) < 60


@pytest.mark.parametrize("name", [n for n in files(CONTRIBUTING) if n.endswith(".py")])
def test_the_worked_examples_pass_the_linter_and_the_formatter(name: str) -> None:
    text = files(CONTRIBUTING)[name]
    for words in (["format", "--diff"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--config", str(ROOT / "pyproject.toml"),
             "--stdin-filename", f"baselines/{name}", "-"],
            input=text, capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_worked_suite_is_a_suite() -> None:
    suite = Suite.model_validate(yaml.safe_load(files(CONTRIBUTING)["my_suite.yaml"]))
    rows = {row.method for row in suite.profiles["embedded"].rows}
    assert {"none", "lora", *entry_points()[METHODS_GROUP]} == rows
    assert set(suite.tasks) == set(entry_points()[TASKS_GROUP])


def test_the_row_of_another_tuner_of_peft_fits_and_is_counted(tmp_path: Path) -> None:
    from quanta_bench.costs.plan import make_plan

    path = tmp_path / "tuners.yaml"
    path.write_text(files(PAGES["docs/methods.md"])["tuners.yaml"])
    choice = Choice(methods=("peft",))
    (row,) = make_plan(make_request(str(path), "table", "embedded", choice, check=True)).rows
    assert row.label == "IA3"
    # A vector for each output of k and v, of 3 heads of 64, and for each input of down_proj.
    assert row.trainable == 30 * (192 + 192 + 1536)


def test_the_sizes_of_table_3_are_those_of_its_suite() -> None:
    said = re.findall(
        r"^- `SIZE=(\w+)`: (\d+) training, (\d+) validation and (\d+) test items",
        PAGES["docs/tables.md"],
        re.MULTILINE,
    )
    profile = load_suite("table3").profiles["embedded"]
    assert {name: tuple(map(int, numbers)) for name, *numbers in said} == {
        name: (
            size.training["train_items"],
            size.training["validation_items"],
            size.evaluation["items"],
        )
        for name, size in profile.sizes.items()
    }


EXAMPLES = [
    pytest.param(code, output, id=f"{name}-{number}")
    for name, text in DOCUMENTS.items()
    for number, (code, output) in enumerate(printed(text))
]


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_the_examples_print_what_the_documents_say(
    code: str, output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(code, "example", "exec"), {})
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [line.rstrip() for line in output.splitlines()]


def test_the_documents_say_what_examples_print() -> None:
    names = {example.id for example in EXAMPLES}
    assert {"README.md-0", "docs/circuits.md-0", "docs/circuits.md-2"} <= names


def test_the_comparison_of_the_tutorial_is_what_its_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    page = PAGES["docs/tutorial.md"]
    (command,) = (words for words in bench_commands(page) if words[:2] == ["compare", "LoRA r=8"])
    app(command, standalone_mode=False)
    said = {line.strip() for line in capsys.readouterr().out.splitlines()}
    after = page.split('compare "LoRA r=8"')[1].split("The second prints:")[1].split("Each line")[0]
    block = [line.strip() for line in after.splitlines() if line]
    assert len(block) == 10
    assert set(block) <= said


def test_the_tutorials_data_and_suite_run_on_a_model_of_ones_own(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGES["docs/tutorial.md"]
    written = files(page)
    exec(compile(written["make_items.py"], "make_items.py", "exec"), {})
    Path("larger.yaml").write_text(written["larger.yaml"])
    single, table = (words for words in bench_commands(page) if "local:DIR" in words)
    few = ["--set", "training.train_items=4", "--set", "training.validation_items=2"]
    for words in (single, [*table, "--seeds", "0"]):
        local = [f"local:{tiny_model}" if word == "local:DIR" else word for word in words]
        app([*local, *few, "--set", "evaluation.items=4"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "Best constant" in said
    assert "QuanTA" in said


def test_quanta_by_itself_as_in_the_page_of_methods(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    adapting, planning = blocks(PAGES["docs/methods.md"], "python")
    # The tiny model is 64 wide where the page's is 4096.
    tree = ast.parse(f"{adapting}\n{planning}".replace("(16, 8, 8, 4)", "(4, 4, 4)"))
    scope: dict[str, Any] = {"model": AutoModelForCausalLM.from_pretrained(tiny_model)}
    exec(compile(tree, "methods.md", "exec"), scope)
    assert "multiply-adds per vector" in capsys.readouterr().out
    trained = {n for n, p in scope["model"].named_parameters() if p.requires_grad}
    assert trained
    assert all("q_proj" in name or "v_proj" in name for name in trained)


def test_the_readmes_items_are_what_the_jsonl_task_reads(tmp_path: Path) -> None:
    from quanta_bench.plugins import find_task

    (item,) = blocks(README, "json")
    generated = re.search(r"`(\{\"prompt\".*?\})`", README)
    assert generated
    for text, kind in ((item, "choice"), (generated.group(1), "generate")):
        json.loads(text)
        path = tmp_path / f"{kind}.jsonl"
        path.write_text(text)
        assert find_task(f"jsonl:{path}").kind == kind


def test_the_walks_of_contributing_name_what_is_there() -> None:
    layout = CONTRIBUTING.split("## Layout")[1].split("## Glossary")[0]
    paths = re.findall(r"`([\w/]+/(?:\w+\.py)?)`", layout)
    assert len(paths) > 25
    homes = [ROOT, *(ROOT / name for name in ("quanta_bench", "baselines", "results"))]
    # Yours is not in the repository.
    missing = [p for p in paths if not any((home / p).exists() for home in homes) and p != "local/"]
    assert missing == []
    named = re.findall(r"`(\w+)`(?: \w+)* \(`([\w/]+/\w+\.py)`", layout)
    assert len(named) > 3
    for name, path in named:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8")), (name, path)
