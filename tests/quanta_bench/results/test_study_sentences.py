"""Each difference that README and the study's page state is one that `compare` prints."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import pytest
from command_line import run_here
from paths import ROOT, STUDY

from quanta_bench.suites.choice import Choice
from quanta_bench.suites.loading import load_suite
from quanta_bench.suites.request import Request

TABLES = (
    ("sums", "medium"),
    ("table2", "full"),
    ("table3", "full"),
    ("table3", "small"),
    ("qpa", "small"),
    ("qpa", "medium"),
    ("qtha", "small"),
)

OF_FIGURE_4 = "LoRA r=2", "LoRA r=128", "QuanTA 3-4-4-3-4"
"""Rows of Figure 4 in full that Table 2 has not."""

README = (ROOT / "README.md").read_text("utf-8").partition("\n## ")[0]
PAGE = (STUDY / "README.md").read_text("utf-8")
SECTIONS = (
    "### Table 2 and Figure 4, full",
    "### Table 3, full",
    "## Table 3, 2026",
    "## sums",
    "## qpa, medium",
    "## qpa, small",
    "## qtha",
)

# "+2.4 (-1.6 to +6.4)", "5.5 lower (3.9 to 7.1)", "0.07 lower (95 % interval 0.03 to 0.11)"
STATED = re.compile(
    r"([+-]?\d+\.\d+)(?:\s+\w+)?(?:\s+points)?\s+\((?:95\s+%\s+interval\s+)?"
    r"([+-]?\d+\.\d+)\s+to\s+([+-]?\d+\.\d+)"
)


class Difference(NamedTuple):
    """A difference and the bounds of its interval, without their signs, as "5.5 lower" has them."""

    effect: str
    bounds: frozenset[str]


def section(title: str) -> str:
    """The section of the study's page whose heading starts so."""
    _, found, text = PAGE.partition(f"\n{title}")
    assert found, f"no section {title!r}"
    return re.split(r"\n##", text, maxsplit=1)[0]


def stated(text: str) -> list[Difference]:
    unsigned = ([part.lstrip("+-") for part in found] for found in STATED.findall(text))
    return [Difference(effect, frozenset(bounds)) for effect, *bounds in unsigned]


@pytest.fixture
def compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> set[Difference]:
    """All differences of finished rows of the committed tables from LoRA r=8, to 1, 2, 3 places."""
    chosen = [[*OF_FIGURE_4, "--table", "figure4", "--size", "full"]]
    for name, size in TABLES:
        table = Request.of(load_suite(name), "embedded", Choice(size=size)).file_name
        rows = json.loads((STUDY / f"{table}.json").read_text("utf-8"))["rows"]
        labels = [
            row["label"]
            for row in rows
            if row["runs"] and len(row["done_seeds"]) == row["wanted_seeds"]
        ]
        chosen.append([*labels, "--table", name, "--size", size])
    differences = set()
    for words in chosen:
        others = [word for word in words if word != "LoRA r=8"]
        results = ["--results", str(STUDY), "--json"]
        said = run_here(monkeypatch, capsys, "compare", "LoRA r=8", *others, *results)
        assert said.status == 0, said.err
        for line in json.loads(said.out)["differences"]:
            values = [line[key] for key in ("effect", "interval_low", "interval_high")]
            for places in (1, 2, 3):
                effect, *bounds = (f"{abs(value):.{places}f}" for value in values)
                differences.add(Difference(effect, frozenset(bounds)))
    return differences


def test_every_stated_difference_is_computed(compared: set[Difference]) -> None:
    found = stated(README)
    assert len(found) > 5
    for title in SECTIONS:
        own = stated(section(title))
        assert own, title
        found += own
    assert [one for one in found if one not in compared] == []
