"""The command line, from words to exit status; runs of the whole suite on a tiny model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from quanta_bench import __version__
from quanta_bench.cli import console, main
from quanta_bench.cli.checks import Finding
from quanta_bench.costs import plan
from quanta_bench.errors import BenchError
from quanta_bench.models import embedded
from quanta_bench.plugins import EXPERIMENTS
from quanta_bench.suites import request

PLANNED = ("report", "export", "tune")
STOPPED = (1, 130)  # 130 is what shells and typer make of Ctrl-C


@dataclass
class Said:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def both(self) -> str:
        # The width that a message is broken at is not the test's business.
        return " ".join((self.out + self.err).split())


Bench = Callable[..., Said]

FIGURES = sorted(["figure2", "figure4", *EXPERIMENTS.names()])


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Runs a command in this process."""

    def run(*words: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["quanta-bench", *map(str, words)])
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, out, err)

    return run


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "quanta_bench.cli", *map(str, words)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own data: 16 training rows, 4 for validation, 8 for test."""
    path = tmp_path_factory.mktemp("data") / "animals.jsonl"
    rows = [
        {
            "prompt": f"Animal {n} of the list says",
            "choices": ["moo", "meow", "quack"],
            "answer": ["moo", "meow", "quack"][n % 3],
            "split": "train" if n < 16 else "validation" if n < 20 else "test",
        }
        for n in range(28)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_model: Path) -> Path:
    """A user's own suite over that data and a tiny model: two methods, two seeds."""
    path = tmp_path_factory.mktemp("suite") / "animals.yaml"
    path.write_text(
        f"""
name: animals
title: Animals
tasks: ["jsonl:{data}"]
profiles:
  embedded:
    model: .
    model_source: "local:{tiny_model}"
    seeds: [0, 1]
    training: {{batch_size: 4, validations: 2, precision: float32}}
    rows:
      - none
      - {{method: lora, label: LoRA, settings: {{r: 2}}}}
"""
    )
    return path


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a model was loaded and trained."""
    from quanta_bench.models import loading
    from quanta_bench.training import trainer

    done = {"loaded": 0, "trained": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            done[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(loading, "load_model", counted("loaded", loading.load_model))
    monkeypatch.setattr(trainer, "train", counted("trained", trainer.train))
    return done


# --- words ------------------------------------------------------------------------------------


HEAVY = ("torch", "transformers", "peft", "lightning", "datasets", "pandas", "matplotlib")


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["--help"], ["numpy", "pydantic", "yaml", "psutil"]),
        (["--version"], ["numpy", "yaml", "psutil"]),
        (["table", "--help"], ["numpy", "yaml", "psutil"]),  # typer itself takes pydantic
        (["list"], ["numpy"]),
    ],
)
def test_what_only_tells_imports_nothing_heavy(words: list[str], more: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['quanta-bench', *{words!r}]\n"
        "from quanta_bench.cli import main as cli\ntry: cli.main()\nexcept SystemExit: pass\n"
        f"print('HEAVY', sorted({{*{HEAVY!r}, *{more!r}}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_version(bench: Bench) -> None:
    said = bench("--version")
    assert (said.status, said.out.strip()) == (0, __version__)


@pytest.mark.parametrize("name", PLANNED)
def test_commands_to_come_say_so_in_one_sentence(bench: Bench, name: str) -> None:
    for words in ((name,), (name, "3", "--profile", "paper")):
        said = bench(*words)
        assert said.status == 2
        assert said.out == ""
        assert f"'quanta-bench {name}' is not built yet" in said.err
        assert len(said.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tabel", "3"], "quanta-bench: No such command 'tabel'. Did you mean 'table'?"),
        (["table"], "quanta-bench: Missing argument 'name'. See `quanta-bench table --help`."),
        (["table", "3", "--sede", "0"], "--sede"),
        (["table", "33"], "There is no table '33'. Known: qpa, table1, table2, table3, table4, "),
        (["table", "33"], "tableD1, tableF5, tableF6, tableF7, tableH. A suite"),
        (["figure", "33"], f"There is no figure '33'. Known: {', '.join(FIGURES)}. A suite"),
        (["params", "--model", "llama2-7b"], "one of --method and --budget"),
        (["params", "--method", "lora", "--budget", "1M"], "only one of --method and --budget"),
        (["params", "--model", "lama2-7b", "--method", "lora"], "Did you mean 'llama2-7b'"),
        (["params", "--model", "gpt2", "--method", "loar"], "Did you mean 'lora'"),
        (["params", "--model", "gpt2", "--method", "lora", "--set", "rr=1"], "no setting 'rr'"),
        (["params", "--model", "gpt2", "--method", "lora"], "no module is called"),
        (["params", "--model", "gpt2", "--budget", "many"], "not 'many'"),
        (
            ["params", "--model", "gpt2", "--budget", "1M", "--methods", "loar"],
            "Did you mean 'lora'",
        ),
        (["params", "--model", "gpt2", "--budget", "1M", "--denominator", "x"], "not of 'x'"),
        (
            ["params", "--model", "gpt2", "--budget", "1M", "--set", "r=8"],
            "--set goes with --method",
        ),
        (["table", "nowhere.yaml"], "There is no file nowhere.yaml"),
        (["table", "3", "--profile", "papre"], "Did you mean 'paper'?"),
        (["table", "3", "--methods", "quanat"], "Did you mean 'quanta'?"),
        (["table", "3", "--size", "smal"], "Did you mean 'small'?"),
        (["table", "3", "--seeds", "0,x"], "'0,x' is not a list of whole numbers"),
        (["table", "3", "--jobs", "0"], "--jobs takes a number of runs from 1 on, or auto"),
        (["figure", "4", "--jobs", "many"], "not 'many'"),
        (["table", "3", "--rows", "some"], "--rows takes 'all'"),
        (["table", "3", "--set", "training.epochs"], "not of the form name=value"),
        (["table", "3", "--set", "training.epoch=1"], "Did you mean 'epochs'?"),
        (["table", "3", "--set", "evaluation.tasks=[rte]"], "no column of table3 shows"),
        (["table", "3", "--set", "training.epochs=yes"], "training.epochs: true is no value"),
        (["table", "3", "--set", "lora.rr=1"], "no setting 'rr'"),
        (["table", "3", "--set", "loar.r=1"], "Did you mean 'lora'"),
        (["run", "--method", "lora", "--task", "piqa", "--set", "training.tasks=[]"], "is empty"),
        (["run", "--method", "lora", "--task", "piqa", "--set", "evaluation.tasks=[]"], "is empty"),
        (["run", "--method", "lora", "--task", "piqa", "--task", "piqa"], "more than once"),
        (["run", "--method", "lora", "--task", "piqa", "--seed", "-1"], "training.seeds.init"),
        (
            ["run", "--method", "lora", "--task", "piqa", "--set", "dora.r=1"],
            "no row has the method",
        ),
        (["methods", "loar"], "Did you mean 'lora'"),
        (["tasks", "piqua"], "Did you mean 'piqa'"),
        (["settings", "training.epoch"], "Did you mean 'training.epochs'"),
        (["table", "3", "--launcher", "ray"], "'ray' is not built yet"),
        (["table", "3", "--launcher", "rya"], "There is no launcher 'rya'"),
        (["run", "--method", "loar", "--task", "piqa"], "Did you mean 'lora'"),
        (["run", "--method", "lora", "--task", "piqua"], "Did you mean 'piqa'"),
        (["run", "--method", "lora", "--task", "jsonl"], "write 'jsonl:PATH'"),
        (
            ["run", "--method", "lora", "--task", "jsonl:nowhere.jsonl"],
            "There is no file nowhere.jsonl.",
        ),
        (["run", "--method", "lora"], "--task"),
        (["run", "--method", "lora", "--task", "piqa", "--model", "ftp:x"], "local:DIR, not 'ftp"),
    ],
)
def test_wrong_words_end_with_status_2(bench: Bench, words: list[str], said: str) -> None:
    found = bench(*words)
    assert found.status == 2
    assert said in found.both
    assert found.err.startswith("quanta-bench: ")
    assert "Usage:" not in found.both


def test_a_failure_ends_with_status_1_and_says_where(bench: Bench, tmp_path: Path) -> None:
    said = bench(
        "table", "3", "--profile", "paper", "--methods", "quanta", "--seeds", "0",
        "--model", f"local:{tmp_path / 'gone'}", "--source", f"local:{tmp_path}",
    )  # fmt: skip
    assert said.status == 1
    assert str(tmp_path) in said.both.replace(" ", "")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BenchError("it broke"), 1, "quanta-bench: it broke"),
        (RuntimeError("odd"), 1, "unexpected RuntimeError: odd"),
    ],
)
def test_every_failure_is_one_message(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, said: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.delenv("QUANTA_BENCH_DEBUG", raising=False)
    monkeypatch.setattr("quanta_bench.cli.listing.methods", fail)
    found = bench("methods")
    assert found.status == status
    assert said in found.err


def test_ctrl_c_is_no_fault_and_says_how_to_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quanta_bench.cli.listing.methods", stop)
    found = bench("methods")
    assert found.status in STOPPED
    assert "the same command goes on from there" in found.err


def test_debug_shows_where_it_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("odd")

    monkeypatch.setenv("QUANTA_BENCH_DEBUG", "1")
    monkeypatch.setattr("quanta_bench.cli.listing.methods", fail)
    monkeypatch.setattr(sys, "argv", ["quanta-bench", "methods"])
    with pytest.raises(RuntimeError, match="odd"):
        main.main()


def test_a_closed_pipe_is_no_failure() -> None:
    line = " ".join(command("methods", "--json")) + " | head -n 1; echo ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


# --- listings and plans -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["methods", "tasks", "models", "doctor"])
def test_json_is_for_programs(bench: Bench, name: str) -> None:
    said = bench(name, "--json")
    rows = json.loads(said.out)
    assert rows
    assert all("name" in row for row in rows)


def test_list_names_the_table_and_the_tests(bench: Bench) -> None:
    said = bench("list")
    assert said.status == 0
    assert "quanta-bench table table3" in said.both
    assert "test" in said.out


@pytest.mark.parametrize("words", [["--method", "lora"], ["--budget", "1M", "--methods", "lora"]])
def test_params_without_a_model_are_of_the_default_one_and_say_so(
    bench: Bench, words: list[str]
) -> None:
    assert "smollm2-135m" in bench("params", *words).out
    said = json.loads(bench("params", *words, "--json").out)
    assert said == json.loads(bench("params", "--model", "smollm2-135m", *words, "--json").out)


def test_models_name_the_folder_of_one_that_is_here(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path))
    assert str(tmp_path) not in bench("models").both
    folder = embedded.converted_folder()
    folder.mkdir()
    assert f"smollm2-135m with its tokenizer is on this machine: {folder}" in bench("models").both
    rows = {row["name"]: row["folder"] for row in json.loads(bench("models", "--json").out)}
    assert rows["smollm2-135m"] == str(folder)
    assert not rows["llama2-7b"]


def test_doctors_lines_fit_the_screen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    detail = "a word and more " * 20
    findings = [Finding(name, True, detail) for name in ("python", "embedded model")]
    monkeypatch.setattr("quanta_bench.cli.checks.check", lambda: findings)
    monkeypatch.setenv("COLUMNS", "80")
    said = bench("doctor")
    assert said.status == 0
    assert all(len(line.rstrip()) <= 80 for line in said.out.splitlines())
    assert said.both.count("a word and more") == 40


def test_a_terminal_shows_at_once_that_a_plan_is_being_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    seen = {}

    def slow(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*words: Any, **options: Any) -> Any:
            time.sleep(0.3)  # the line is drawn by a thread
            seen[name] = screen.getvalue()
            return real(*words, **options)

        return wait

    monkeypatch.setattr(
        console, "console", lambda *, errors=False: Console(file=screen, force_terminal=errors)
    )
    monkeypatch.setattr(request, "make_request", slow("request", request.make_request))
    monkeypatch.setattr(plan, "make_plan", slow("plan", plan.make_plan))
    assert bench("table", "3", "--methods", "lora", "--dry-run").status == 0
    assert "Reading the suite ..." in seen["request"]
    assert "Counting parameters of 1 row, weights unread ..." in seen["plan"]


def test_a_dry_run_computes_nothing(bench: Bench, work: dict[str, int], tmp_path: Path) -> None:
    words = ["table", "3", "--methods", "lora", "--dry-run", "--results", str(tmp_path / "r")]
    assert "LoRA r=8" in bench(*words).out
    plan = json.loads(bench(*words, "--json").out)
    assert [row["method"] for row in plan["rows"]] == ["lora"]
    assert work == {"loaded": 0, "trained": 0}
    assert not (tmp_path / "r").exists()


def test_a_dry_run_estimates_for_the_gpu_that_is_named(bench: Bench) -> None:
    words = ["table", "3", "--methods", "lora", "--gpu", "l40s-48gb"]
    plan = json.loads(bench(*words, "--dry-run", "--json").out)
    assert plan["gpu"] == "l40s-48gb"
    assert plan["rows"][0]["cost"]["gpu_hours"] > 0
    refused = bench(*words)
    assert refused.status == 2
    assert "--gpu goes with --dry-run" in refused.both


# --- whole runs on a tiny model ---------------------------------------------------------------


def test_run_on_a_users_own_data_and_model(
    bench: Bench, work: dict[str, int], data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = [
        "run", "--method", "lora", "--task", f"jsonl:{data}", "--model", f"local:{tiny_model}",
        "--set", "r=2", "--set", "training.batch_size=8", "--set", "training.validations=1",
        "--set", "training.precision=float32", "--results", str(tmp_path),
    ]  # fmt: skip
    said = bench(*words, "--json")
    assert said.status == 0
    result = json.loads(said.out)
    (score,) = result["tasks"].values()
    assert score["items"] == 8
    assert score["chance"] == pytest.approx(1 / 3)
    # r (in + out) on q (64 to 64) and v (64 to 32) of two layers.
    assert result["training"]["trainable_parameters"] == 2 * 2 * (64 + 64 + 64 + 32)
    assert result["training"]["steps"] == 2
    folder = tmp_path / "runs" / result["run"]
    assert json.loads((folder / "result.json").read_text()) == result
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert sum(line["accuracy"] for line in lines) / 8 == score["metrics"]["accuracy"]
    assert (folder / "adapter" / "adapter_config.json").is_file()

    again = bench(*words)
    assert again.status == 0
    assert work["trained"] == 1
    assert str(folder.name) in again.both.replace(" ", "")


def test_a_table_is_computed_once_and_fresh_computes_it_again(
    bench: Bench, work: dict[str, int], suite: Path, tmp_path: Path
) -> None:
    words = ["table", str(suite), "--results", str(tmp_path)]
    first = bench(*words, "--json")
    assert first.status == 0
    assert work == {"loaded": 3, "trained": 2}
    table = json.loads(first.out)
    lora = table["rows"][2]
    assert lora["label"] == "LoRA"
    assert lora["done_seeds"] == [0, 1]
    assert json.loads((tmp_path / "animals.json").read_text()) == table
    assert {path.name for path in tmp_path.glob("animals.*")} == {
        f"animals.{ending}" for ending in ("md", "csv", "tex", "json")
    }
    assert not list((tmp_path / "unfinished").glob("*"))

    # Nothing is computed a second time, and the table is the same.
    second = bench(*words, "--json")
    assert json.loads(second.out) == table
    assert ": done;" in first.err
    assert ": done;" not in second.err
    assert work == {"loaded": 3, "trained": 2}

    # A new evaluation scores again but does not train again.
    scored = bench(*words, "--set", "evaluation.items=4", "--json")
    assert json.loads(scored.out)["columns"][0]["items"] == 4
    assert work == {"loaded": 6, "trained": 2}

    # A further seed is trained; the ones before are found.
    bench(*words, "--seeds", "0,1,2", "--methods", "lora")
    assert work == {"loaded": 7, "trained": 3}

    fresh = bench(*words, "--fresh", "--methods", "lora", "--json")
    assert work == {"loaded": 9, "trained": 5}
    # The same seed on the same machine gives the same numbers.
    assert json.loads(fresh.out)["rows"][1]["cells"] == lora["cells"]


def test_the_papers_profile_on_a_tiny_model_and_files_of_llm_adapters(
    bench: Bench, tiny_model: Path, llm_adapters: Path, tmp_path: Path
) -> None:
    """The paper's rows for one model; QuanTA's axes are cut to a model 64 wide."""
    from quanta_bench.suites.loading import shipped

    content = yaml.safe_load(shipped()["table3"].read_text())
    paper = content["profiles"]["paper"]
    paper["rows"] = [row for row in paper["rows"] if row["model"] == "llama2-7b"]
    for row in paper["rows"]:
        if row["method"] == "quanta":
            row["settings"]["dims"] = [4, 4, 4]
    suite = tmp_path / "paper.yaml"
    suite.write_text(yaml.safe_dump(content))
    said = bench(
        "table", suite, "--profile", "paper", "--seeds", "0", "--results", tmp_path / "r",
        "--model", f"local:{tiny_model}", "--source", f"local:{llm_adapters}", "--json",
        "--set", "training.epochs=1", "--set", "training.validations=1",
        "--set", "training.precision=float32", "--set", "training.train_items=32",
        "--set", "evaluation.items=4",
    )  # fmt: skip
    assert said.status == 0, said.err
    table = json.loads(said.out)
    assert [row["label"] for row in table["rows"]] == [
        "Chance", "FT", "LoRA r=32", "DoRA r=16", "DoRA r=32", "QuanTA 16-8-8-4",
    ]  # fmt: skip
    assert [column["items"] for column in table["columns"]] == [4] * 8
    for row in table["rows"][1:]:
        assert len(row["cells"]) == 8
        assert row["averages"]
        assert row["denominator"] == "base+added"
    # Three gates of 16 x 16, on q and v of two layers.
    assert table["rows"][5]["trainable"] == 2 * 2 * 3 * 16 * 16
    notes = [note for under_heading in table["notes"].values() for note in under_heading]
    assert any("choice-label" in note and "token_mean" in note for note in notes)
    for path in (tmp_path / "r" / "runs").glob("*/result.json"):
        data = json.loads(path.read_text())["training"]["data"]
        assert set(data) == {"commonsense170k/train", "commonsense170k/validation"}


def test_a_failing_run_is_named_and_finished_ones_stay(
    bench: Bench, work: dict[str, int], suite: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yaml"
    row = "      - {method: quanta, label: Bad, settings: {dims: [7, 7]}}\n"
    bad.write_text(suite.read_text() + row)
    said = bench("table", bad, "--seeds", "0", "--results", tmp_path / "r")
    assert said.status == 2
    assert "Bad: " in said.err
    assert "49" in said.err or "[7, 7]" in said.err or "(7, 7)" in said.err
    assert work["trained"] == 1
    assert len(list((tmp_path / "r" / "runs").glob("*/result.json"))) == 2


def _wait(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait while a process runs; the test's own timeout ends a wait for nothing."""
    while not ready():
        if process.poll() is not None:
            raise AssertionError(f"it ended: {process.communicate()}")
        time.sleep(0.02)


def test_ctrl_c_then_the_same_command_goes_on(
    bench: Bench, work: dict[str, int], suite: Path, tmp_path: Path
) -> None:
    words = ["table", str(suite), "--methods", "lora", "--seeds", "0", "--set"]
    words += ["training.epochs=50", "--set", "training.validations=50"]
    stopped = [*words, "--results", str(tmp_path / "stopped")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command(*stopped),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A job that a script put in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    unfinished = tmp_path / "stopped" / "unfinished"
    _wait(lambda: bool(list(unfinished.glob("*/last.ckpt"))), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode in STOPPED
    assert "the same command goes on from there" in err
    assert "Traceback" not in out + err
    assert not list((tmp_path / "stopped").glob("runs/*"))
    (last,) = unfinished.glob("*/last.ckpt")

    import torch

    before = torch.load(last, map_location="cpu", weights_only=True)["global_step"]
    assert 0 < before < 200

    assert bench(*stopped).status == 0
    assert not list(unfinished.glob("*"))
    straight = [*words, "--results", str(tmp_path / "straight")]
    assert bench(*straight).status == 0
    assert work["trained"] == 2

    records = [
        json.loads(next((tmp_path / name).glob("runs/*/result.json")).read_text())
        for name in ("stopped", "straight")
    ]
    assert [record["training"]["steps"] for record in records] == [200, 200]
    # What was computed before the stop was not computed again, and it ends where it would have.
    assert [len(record["training"]["losses"]) for record in records] == [200, 200]
    assert records[0]["training"]["losses"] == pytest.approx(
        records[1]["training"]["losses"], rel=1e-3
    )
    assert records[0]["tasks"].keys() == records[1]["tasks"].keys()
