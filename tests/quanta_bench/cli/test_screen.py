"""What commands show: the model that was not named, folders, lines that fit, a word at once."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Bench
from rich.console import Console

from quanta_bench.cli import console
from quanta_bench.cli.checks import Finding
from quanta_bench.costs import plan
from quanta_bench.models import embedded
from quanta_bench.suites import request


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
    # A long path is broken at the screen's edge.
    shown = bench("models").both.replace(" ", "")
    assert f"smollm2-135mwithitstokenizerisonthismachine:{folder}" in shown
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
    assert "Counting parameters of 1 row without loading weights ..." in seen["plan"]
