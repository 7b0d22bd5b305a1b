"""`report` from the command line: what it writes, and what it refuses with which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import Bench
from paths import STUDY
from results_by_hand import Bench as Made
from results_by_hand import items


def test_the_page_is_written_where_it_is_asked_for(bench: Bench, tmp_path: Path) -> None:
    Made(tmp_path / "results").result({"boolq": items([1, 0])})
    said = bench("report", "--results", tmp_path / "results")
    assert (said.status, said.err) == (0, "")
    page = tmp_path / "results" / "report.html"
    assert said.both.startswith(f"Written: {page} (")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    # The page is no result, so it is not read the next time.
    again = bench("report", "--results", tmp_path / "results", "--to", tmp_path / "new" / "b.html")
    assert again.status == 0
    assert (tmp_path / "new" / "b.html").is_file()


def test_what_cannot_be_read_or_written_is_one_message(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    Made(tmp_path / "results").result({"boolq": items([1, 0])})
    good = ("--results", tmp_path / "results")
    for words, status, message in (
        (("--results", tmp_path / "nowhere"), 1, "does not exist. Name one with --results"),
        (("--results", tmp_path / "file"), 1, "is not a folder"),
        (("--results", tmp_path / "empty"), 1, "There are no results in"),
        ((*good, "--to", tmp_path), 2, "is a folder; name a file with --to"),
        ((*good, "--to", tmp_path / "file" / "a.html"), 1, "cannot be written"),
    ):
        said = bench("report", *words)
        assert said.status == status, said.err
        assert message in said.both
        assert len(said.err.strip().splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_may_not_be_written_is_one_message(bench: Bench, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    said = bench("report", "--results", STUDY, "--to", closed / "a.html")
    assert (said.status, "cannot be written" in said.both) == (1, True)
