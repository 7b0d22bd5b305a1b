"""Commands that compute nothing: what they import, say and list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Bench

from quanta_bench import __version__

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
    assert "--gpu needs --dry-run" in refused.both
