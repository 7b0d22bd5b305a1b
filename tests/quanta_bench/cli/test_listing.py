"""What `methods`, `tasks`, `models` and `list` show."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from baselines.theory.figure1 import PlantedRank
from quanta_bench.cli import listing
from quanta_bench.cli.listing import Listing
from quanta_bench.suites.loading import shipped


@pytest.mark.parametrize("made", [listing.methods, listing.tasks, listing.models, listing.targets])
def test_every_listing_is_drawn_with_a_line_for_each_row(made: Callable[[], Listing]) -> None:
    found = made()
    keys = list(found.rows[0])
    assert all(list(row) == keys for row in found.rows)
    text = StringIO()
    Console(file=text, width=1000).print(found.on_screen())
    lines = text.getvalue().splitlines()
    assert len(lines) == len(found.rows) + 2  # the headings and the rule below them
    for row, line in zip(found.rows, lines[2:], strict=True):
        assert line.startswith(str(row[keys[0]]))


def test_methods_say_where_they_come_from_and_what_they_can() -> None:
    rows = {row["name"]: row for row in listing.methods().rows}
    assert rows["lora"]["settings"] == "r, alpha, dropout, target_modules"
    assert rows["lora"]["mergeable"] == "yes"
    assert rows["peft"]["mergeable"].startswith("no: ")
    assert all(row["from"].startswith("quanta-bench ") for row in rows.values())


def test_tasks_say_what_kind_they_are() -> None:
    rows = {row["name"]: row for row in listing.tasks().rows}
    assert rows["running_text"]["kind"] == "perplexity"
    assert rows["boolq"]["protocols"] == "choice-text, choice-label, generate"
    assert all(row["about"] for row in rows.values())


def test_models_have_their_published_sizes() -> None:
    rows = {row["name"]: row for row in listing.models().rows}
    assert rows["llama-7b"]["parameters"] == 6_738_415_616
    assert rows["smollm2-135m"]["parameters"] == 134_515_008
    assert rows["smollm2-135m"]["source"] == "embedded, hub"
    assert rows["llama3-8b"]["hub_name"] == "meta-llama/Meta-Llama-3-8B"


def test_targets_hold_every_experiment_and_why_one_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Experiments(dict[str, str]):
        def usable(self) -> tuple[dict[str, PlantedRank], dict[str, str]]:
            return {"figure1": PlantedRank()}, {"figure9": "it cannot be imported"}

    monkeypatch.setattr(listing, "EXPERIMENTS", Experiments(figure1="", figure9=""))
    rows = {row["make"]: row for row in listing.targets().rows}
    assert rows["figure1"]["command"] == "quanta-bench figure figure1"
    assert rows["figure1"]["what"] == PlantedRank.title
    assert rows["figure9"]["what"] == "it cannot be imported"


def test_targets_hold_every_shipped_table_and_the_tests() -> None:
    rows = {row["make"]: row for row in listing.targets().rows}
    assert set(shipped()) < set(rows)
    assert {"test", "lint", "fetch", "doctor"} < set(rows)
    assert rows["table3"]["command"] == "quanta-bench table table3"
