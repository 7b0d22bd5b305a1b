"""A request names its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from quanta_bench.suites.choice import Choice
from quanta_bench.suites.loading import load_suite
from quanta_bench.suites.request import Request


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        (Choice(), "table3"),
        (Choice(size="small"), "table3"),
        (Choice(size="full"), "table3-full"),
        (Choice(model="smollm2-135m"), "table3"),
        (Choice(model="hub:meta-llama/Llama-3.2-1B@main"), "table3-Llama-3.2-1B"),
        (Choice(model="hub:gpt2", size="full"), "table3-full-gpt2"),
        (Choice(model="hub:a/ü b"), "table3-ü-b"),
    ],
)
def test_a_table_of_another_size_or_model_has_files_of_its_own(choice: Choice, name: str) -> None:
    assert Request.of(load_suite("table3"), "embedded", choice).file_name == name


def test_a_folder_gives_its_own_name(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = load_suite("table3")
    for reference in (f"local:{tiny_model}", f"local:{tiny_model}/"):
        choice = Choice(model=reference, methods=("none",))
        assert Request.of(suite, "embedded", choice).file_name == f"table3-{tiny_model.name}"
    monkeypatch.chdir(tiny_model)
    here = Request.of(suite, "embedded", Choice(model="local:.", methods=("none",)))
    assert here.file_name == f"table3-{tiny_model.name}"
