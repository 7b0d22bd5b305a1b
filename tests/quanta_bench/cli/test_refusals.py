"""What the command line refuses: the words, the message, the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Bench

from quanta_bench.plugins import EXPERIMENTS

FIGURES = sorted(["figure2", "figure4", "sums-figure", *EXPERIMENTS.names()])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tabel", "3"], "quanta-bench: No such command 'tabel'. Did you mean 'table'?"),
        # Older Typers say 'NAME'.
        (["table"], "quanta-bench: Missing argument '"),
        (["table"], "'. See `quanta-bench table --help`."),
        (["table", "3", "--sede", "0"], "--sede"),
        (
            ["table", "33"],
            "There is no table '33'. Known: forgetting, qpa, qtha, sums, table1, table2, table3, ",
        ),
        (["table", "33"], "tableD1, tableF5, tableF6, tableF7, tableH. A suite"),
        (["figure", "33"], f"There is no figure '33'. Known: {', '.join(FIGURES)}. A suite"),
        (["params", "--model", "llama2-7b"], "one of --method and --budget"),
        (["params", "--method", "lora", "--budget", "1M"], "only one of --method and --budget"),
        (["params", "--model", "lama2-7b", "--method", "lora"], "Did you mean 'llama2-7b'"),
        (["params", "--model", "gpt2", "--method", "loar"], "Did you mean 'lora'"),
        (["params", "--model", "gpt2", "--method", "lora", "--set", "rr=1"], "no setting 'rr'"),
        (
            ["params", "--model", "gpt2", "--method", "lora", "--set", "target_modules=[q_proj]"],
            "no module is called",
        ),
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
        (["table", "3", "--seeds", "0,x"], "'0,x' is not a list of integers"),
        (["table", "3", "--jobs", "0"], "--jobs takes a number from 1 to 9999, or auto"),
        (["figure", "4", "--jobs", "many"], "not 'many'"),
        (["table", "3", "--jobs", "atuo"], "not 'atuo'. Did you mean 'auto'?"),
        (["table", "3", "--together", "Auto"], "not 'Auto'. Did you mean 'auto'?"),
        (["table", "3", "--together", "9" * 5000], "--together takes a number"),
        (["table", "3", "--devices", "0"], "--devices takes a number from 1 to 64, not 0."),
        (["table", "3", "--devices", "2", "--strategy", "fspd"], "no strategy 'fspd'"),
        (["table", "3", "--strategy", "ddp"], "name their number with --devices"),
        (["table", "3", "--devices", "2", "--jobs", "3"], "--jobs 3 computes 3 runs at once"),
        (["table", "3", "--devices", "2", "--together", "4"], "--together 4 computes 4 runs"),
        (["run", "--method", "lora", "--task", "piqa", "--devices", "65"], "not 65"),
        (["table", "3", "--rows", "some"], "--rows takes all or default, not 'some'. Name single"),
        (["table", "3", "--rows", "al"], "not 'al'. Did you mean 'all'?"),
        (
            ["table", "3", "--fresh", "stal"],
            "--fresh takes all or stale, not 'stal'. Did you mean 'stale'?",
        ),
        (["table", "--fresh=stle", "3"], "not 'stle'. Did you mean 'stale'?"),
        (["table", "3", "--fresh", "1"], "--fresh takes all or stale, not '1'."),
        (["bench", "--device", "cdua"], "--device takes auto, cpu or cuda, not 'cdua'. Did you me"),
        (["table", "3", "--logger", "tensorbord"], "Did you mean 'tensorboard'?"),
        (
            ["run", "--method", "lora", "--task", "piqa", "--logger", "wandbb"],
            "There is no logger 'wandbb'. Did you mean 'wandb'?",
        ),
        (["compare", "--table", "3", "--matched", "second"], "Did you mean 'seconds'?"),
        (["table", "qpa", "--published"], "no table of a paper belongs to qpa"),
        (["tasks", "piqa", "--source", "hub"], "--source needs --show"),
        (["tasks", "piqa", "--model", "llama2-7b"], "--model needs --show"),
        (["tasks", "piqa", "--chat-template"], "--chat-template needs --show"),
        (["table", "3", "--quiet", "--verbose"], "--quiet and --verbose exclude each other"),
        (["table", "3", "--set", "training.epochs"], "not of the form name=value"),
        (["table", "3", "--set", "training.epoch=1"], "Did you mean 'epochs'?"),
        (["table", "3", "--set", "evaluation.tasks=[rte]"], "no column of table3 shows"),
        (
            ["table", "3", "--set", "training.epochs=yes"],
            "training.epochs: true is not a valid value",
        ),
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
        (["table", "3", "--launcher", "slrum"], "no launcher 'slrum'. Did you mean 'slurm'"),
        (["table", "3", "--launcher", "slurm", "--launcher-set", "gpu=1"], "Did you mean 'gpus'"),
        (["table", "3", "--launcher", "ray", "--devices", "2"], "--devices needs --launcher local"),
        (["table", "3", "--launcher", "ray", "--no-wait"], "--no-wait needs --launcher slurm"),
        (["table", "3", "--launcher", "rya"], "no launcher 'rya'. Did you mean 'ray'"),
        (["figure", "4", "--launcher", "loacl"], "Did you mean 'local'"),
        (["table", "3", "--workers", "2"], "--workers needs --launcher ray or slurm"),
        (["table", "3", "--launcher", "ray", "--workers", "no"], "--workers takes a number"),
        (["table", "3", "--launcher", "ray", "--launcher-set", "cpu=1"], "Did you mean 'cpus'"),
        (["table", "3", "--launcher", "ray", "--launcher-set", "cpus"], "not of the form"),
        (["table", "3", "--launcher", "ray", "--together", "4"], "--together needs"),
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
    assert found.err.removeprefix("Loading packages.\n").startswith("quanta-bench: ")
    assert "Usage:" not in found.both


def test_a_failure_ends_with_status_1_and_says_where(bench: Bench, tmp_path: Path) -> None:
    said = bench(
        "table", "3", "--profile", "paper", "--methods", "quanta", "--seeds", "0",
        "--model", f"local:{tmp_path / 'gone'}", "--source", f"local:{tmp_path}",
    )  # fmt: skip
    assert said.status == 1
    assert str(tmp_path) in said.both.replace(" ", "")


@pytest.mark.parametrize("name", ["../model", "a/b/c", "x y/z", "a--b/c"])
def test_a_name_that_no_hub_takes_is_said_to_be_one(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    suite = tmp_path / "suite.yaml"
    profile = {"model": name, "model_source": "hub", "rows": ["lora"]}
    content = {"name": "own", "title": "Own", "tasks": ["piqa"], "profiles": {"embedded": profile}}
    suite.write_text(json.dumps(content))
    said = bench("table", suite, "--seeds", "0", "--results", tmp_path / "results")
    assert said.status == 1
    assert "cannot be on a hub, whose names are OWNER/NAME" in said.both
    assert "unexpected" not in said.both
