"""What is tuned of a suite: its rows on the validation items of their trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from quanta_bench.errors import UsageError
from quanta_bench.report import conclusions
from quanta_bench.report.rate_study import RowStudy, Study
from quanta_bench.report.table import TableRow
from quanta_bench.report.tuned import settings_of
from quanta_bench.runs.cells import Cells
from quanta_bench.runs.identity import PlannedRow
from quanta_bench.suites.choice import Choice, parse_settings
from quanta_bench.suites.grid import GridRow
from quanta_bench.suites.loading import load_suite, shipped
from quanta_bench.suites.request import Request
from quanta_bench.suites.schema import Suite
from quanta_bench.tuning import suite_file, trials

TABLES = sorted(name for name in shipped() if load_suite(name).figure is None)


def planned(name: str, choice: Choice = Choice(), profile: str = "embedded") -> trials.Plan:  # noqa: B008
    return trials.plan(Request.of(load_suite(name), profile, choice), choice)


@pytest.mark.parametrize("name", TABLES)
def test_a_row_is_scored_on_the_items_that_selected_its_checkpoint(name: str) -> None:
    plan = planned(name)
    assert plan.rows
    for tunable in plan.rows:
        for training, evaluation in (*tunable.at(0.5).jobs, *tunable.base.jobs):
            assert evaluation.split == "validation"
            assert evaluation.tasks == training.tasks
            assert evaluation.source == training.source
            assert evaluation.items == training.validation_items
            assert evaluation.sample == training.seeds.sample
        assert {training.learning_rate for training, _ in tunable.at(0.5).jobs} == {0.5}
        # Nothing but the rate differs.
        for (one, _), (other, _) in zip(tunable.at(0.5).jobs, tunable.row.jobs, strict=True):
            assert one.model_copy(update={"learning_rate": other.learning_rate}) == other
    assert all("does not train" in why for why in plan.skipped.values())


def test_the_score_is_of_the_columns_that_averages_show_and_rows_train_on() -> None:
    assert [column.task for column in planned("table3").columns] == list(load_suite("table3").tasks)
    assert [column.key for column in planned("table2").columns] == ["drop", "drop/exact"]
    # The paper's commonsense mixture has validation items of its own.
    paper = planned("table3", profile="paper")
    assert [column.task for column in paper.columns] == ["commonsense170k"]
    assert "commonsense170k" in paper.notes[0]


def test_running_text_is_read_unless_the_user_says_no() -> None:
    assert all(tunable.has_text for tunable in planned("table2").rows)
    without = Choice(settings=parse_settings(["evaluation.forgetting="]))
    plan = planned("table2", without)
    assert not any(tunable.has_text for tunable in plan.rows)
    assert "No bound on perplexity" in plan.notes[-1]
    # A classification head predicts no text.
    assert not any(tunable.has_text for tunable in planned("tableF7", profile="paper").rows)


def suite(**profile: object) -> Suite:
    return Suite.model_validate(
        {
            "name": "mine",
            "tasks": ["piqa", "wikitext2"],
            "profiles": {"embedded": {"rows": ["lora"], **profile}},
        }
    )


def test_what_cannot_be_tuned_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nothing to tune. Base model: does not train"):
        planned("table3", Choice(methods=("none",)))
    mixed = Request.of(suite(), "embedded")
    with pytest.raises(UsageError, match="scores and perplexities"):
        trials.plan(mixed, Choice())
    choice = Choice(settings={"evaluation.forgetting": "boolq"})
    with pytest.raises(UsageError, match="boolq is scored by table3 and read for the bound"):
        planned("table3", choice)


def forged(request: Request, rate: float) -> Study:
    """A study that chose a rate for every row that trains."""
    plan = trials.plan(request, Choice())
    rows = [
        RowStudy(
            label=tunable.row.spec.label,
            method=tunable.row.spec.method,
            model=tunable.row.model.name,
            present=tunable.present,
            settings=settings_of(tunable.row.jobs),
            chosen=rate,
        )
        for tunable in plan.rows
    ]
    return Study(
        name=f"tune-{request.suite.name}", suite=request.suite.name, profile="embedded",
        size="small", title="", fingerprint="0123456789ab", command="quanta-bench tune", score="",
        lower_is_better=False, bound=1.5, seeds=[0], most=9, rows=rows, skipped={},
    )  # fmt: skip


def at(row: GridRow, rate: float) -> GridRow:
    """A row at another learning rate."""
    jobs = [(training.model_copy(update={"learning_rate": rate}), e) for training, e in row.jobs]
    return replace(row, jobs=tuple(jobs))


def runs(row: GridRow) -> list[str]:
    """A row's runs by what distinguishes them."""
    return [run.key for _, run in PlannedRow.of(row).runs]


def marks(request: Request) -> dict[str, str]:
    """By the label of each row that trains, whether its learning rate is said not to be tuned."""
    return {
        row.spec.label: conclusions.row_marks(
            TableRow(label=row.spec.label, method=row.spec.method, done_seeds=[0, 1]),
            Cells(row, {}),
        )
        for row in request.grid
        if row.spec.method != "none"
    }


@pytest.mark.parametrize("name", ["table3", "table1", "table4", "tableF7"])
def test_the_tuned_suite_differs_in_its_rates_alone(name: str, tmp_path: Path) -> None:
    request = Request.of(load_suite(name), "embedded")
    content = suite_file.tuned_suite(request, Choice(), study := forged(request, 0.5), name)
    path = suite_file.write(content, study, tmp_path, study.name)
    assert path.name == f"tuned-{name}.yaml"
    tuned = Request.of(load_suite(str(path)), "embedded")
    assert tuned.suite.shown_averages == request.suite.shown_averages
    assert len(tuned.grid) == len(request.grid)
    for one, other in zip(tuned.grid, request.grid, strict=True):
        assert one.spec.label == other.spec.label
        assert runs(one) == runs(other if other.spec.method == "none" else at(other, 0.5))
    assert set(marks(tuned).values()) == {""}
    # At another size, with other settings or at another rate, nothing was tuned.
    size = next(size for size in tuned.profile.sizes if size != tuned.profile.size)
    for choice in (
        Choice(size=size),
        Choice(settings={"training.epochs": 7}),
        Choice(settings={"training.learning_rate": 0.25}),
    ):
        other = Request.of(load_suite(str(path)), "embedded", choice)
        assert set(marks(other).values()) == {conclusions.UNTUNED}


def test_the_tuned_suite_keeps_what_the_command_line_chose(tmp_path: Path) -> None:
    choice = Choice(
        methods=("lora", "+krona"),
        size="full",
        source="hub",
        settings={"training.epochs": 2, "evaluation.items": 9, "lora.r": 4},
    )
    request = Request.of(load_suite("table3"), "embedded", choice)
    content = suite_file.tuned_suite(request, choice, study := forged(request, 0.5), "3")
    path = suite_file.write(content, study, tmp_path, study.name)
    assert yaml.safe_load(path.read_text())["profiles"]["embedded"]["like"] == "table3"
    tuned = Request.of(load_suite(str(path)), "embedded")
    for one, other in zip(tuned.grid, request.grid, strict=True):
        assert one.spec.label == other.spec.label
        assert runs(one) == runs(at(other, 0.5))
    assert set(marks(tuned).values()) == {""}


@pytest.mark.parametrize(
    ("name", "choice", "expected"),
    [
        ("qpa", Choice(size="medium", methods=("qpa",)), {""}),
        ("qtha", Choice(methods=("qtha",)), {""}),
        ("qpa", Choice(size="medium", settings={"lora.r": 16}), {"LoRA r=16"}),
        ("qpa", Choice(size="medium"), {"LoRA r=8"}),
    ],
)
def test_shares_are_relative_to_a_row_of_the_tuned_suite(
    name: str, choice: Choice, expected: set[str], tmp_path: Path
) -> None:
    request = Request.of(load_suite(name), "embedded", choice)
    content = suite_file.tuned_suite(request, choice, study := forged(request, 0.5), name)
    path = suite_file.write(content, study, tmp_path, study.name)
    tuned = Request.of(load_suite(str(path)), "embedded")
    assert len(tuned.grid) == len(request.grid)
    found = {row.spec.relative_to for row in tuned.grid if row.spec.method == name}
    assert found == expected
