"""Short names of tasks: where the path of a user's own file has no place."""

from __future__ import annotations

import pytest

from quanta_bench.plugins import TASKS
from quanta_bench.references import apart, portable_task, short_names, source_of
from quanta_bench.utils.portable import portable


@pytest.mark.parametrize(
    ("reference", "bare"),
    [
        ("boolq", "boolq"),
        ("jsonl:/a/b/c.jsonl", "jsonl:c.jsonl"),
        ("file:c.csv", "file:c.csv"),
        (r"file:C:\data\c.csv", "file:c.csv"),
        ("not_registered:/a/b", "not_registered:/a/b"),
    ],
)
def test_a_file_is_named_without_its_folder(reference: str, bare: str) -> None:
    assert portable_task(reference) == bare


@pytest.mark.parametrize(
    ("reference", "short"),
    [
        ("boolq", "boolq"),
        ("file:/deep/down/tickets.yaml", "tickets"),
        (r"jsonl:C:\data\my tickets.jsonl", "my tickets"),
        ("file:version-1.2.csv", "version-1.2"),
        ("not_registered:/a/b", "not_registered:b"),
        ("not_registered:en", "not_registered:en"),
    ],
)
def test_a_file_alone_is_named_by_its_stem(reference: str, short: str) -> None:
    assert short_names([reference]) == {reference: short}


@pytest.mark.parametrize(
    "references",
    [
        ("file:/a/tickets.yaml", "file:/b/tickets.csv"),
        # Two files of one text: their names differ as references, and are equal as folders.
        ("file:/a/my tickets.csv", "file:/a/my-tickets.csv"),
        ("file:/a/piqa.csv",),
        ("piqa", "file:/a/piqa.csv"),
    ],
)
def test_names_that_would_collide_get_a_digest(references: tuple[str, ...]) -> None:
    names = short_names(references)
    portables = [portable(name) for name in names.values()]
    assert len(set(portables)) == len(references)
    for reference, name in names.items():
        if reference in TASKS:
            assert name == reference
        else:
            assert name not in TASKS
            assert name.startswith(("tickets-", "my tickets-", "my-tickets-", "piqa-"))
    # They do not depend on the order in which the tasks are named.
    assert short_names(reversed(references)) == names


def test_columns_of_two_files_of_one_name_have_two_headings() -> None:
    titles = {"piqa": "PIQA", "file:/a/set.csv": "set", "file:/b/set.csv": "set"}
    told = apart(titles)
    assert told["piqa"] == "PIQA"
    assert len(set(told.values())) == 3
    assert all(told[key].startswith("set-") for key in titles if ":" in key)


@pytest.mark.parametrize(
    ("tasks", "source"),
    [
        (["file:a.csv", "jsonl:b.jsonl"], "your own files"),
        (["file:a.csv", "piqa"], "hub"),
        (["piqa"], "hub"),
        ([], "hub"),
    ],
)
def test_files_of_the_users_own_have_no_source(tasks: list[str], source: str) -> None:
    assert source_of(tasks, "hub") == source
