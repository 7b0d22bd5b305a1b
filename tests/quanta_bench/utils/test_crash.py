"""What is told of an exception, and where the rest of it goes."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from quanta_bench.utils.crash import describe_crash, report_crash, write_traceback

PLUGIN = """
import json


def adapt():
    return json.loads("no JSON")
"""


@pytest.fixture
def crash(tmp_path: Path) -> Exception:
    """An error that a library raises under a plug-in's call."""
    path = tmp_path / "my_method.py"
    path.write_text(PLUGIN)
    module = ModuleType("my_method.inner")
    exec(compile(PLUGIN, str(path), "exec"), vars(module))
    with pytest.raises(ValueError, match="Expecting value") as caught:
        module.adapt()
    return caught.value


def test_the_plug_ins_own_line_is_named_not_the_librarys(crash: Exception, tmp_path: Path) -> None:
    line = PLUGIN.splitlines().index('    return json.loads("no JSON")') + 1
    place = f" ({tmp_path / 'my_method.py'}, line {line}, in adapt)"
    assert describe_crash(crash, {"my_method"}) == f"JSONDecodeError: {crash}{place}"
    assert "decoder.py, line" in describe_crash(crash)


def test_an_error_without_a_message_or_a_place() -> None:
    assert describe_crash(SystemExit()) == "SystemExit"
    assert describe_crash(KeyError("a\nb")) == r"KeyError: 'a\nb'"


def test_the_whole_traceback_is_in_a_log_that_is_named(crash: Exception, tmp_path: Path) -> None:
    told = report_crash(crash, tmp_path, "LoRA r=8, seed 0: a/b", {"my_method"})
    path = tmp_path / "logs" / "LoRA-r=8-seed-0-a-b.log"
    assert told.endswith(f"in adapt). The full traceback is in {path}")
    text = path.read_text()
    assert re.search(r"decoder\.py.*\n(.*\n)*json\.decoder\.JSONDecodeError", text)
    assert write_traceback(crash, tmp_path, "../..").parent == tmp_path / "logs"


def test_a_log_that_cannot_be_written_hides_nothing(crash: Exception, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file in its place")
    assert report_crash(crash, tmp_path, "x") == describe_crash(crash)
