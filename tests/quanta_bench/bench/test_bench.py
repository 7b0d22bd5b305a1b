"""The command `bench`: benchmarks of a package of their own, their report, failures, Ctrl-C."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import start
from paths import STUDY
from rich.console import Console

from quanta_bench.bench import report as bench_report
from quanta_bench.bench import runner
from quanta_bench.bench.picture import MET, MISSED, overview
from quanta_bench.benchmark import (
    Benchmark,
    Case,
    Conditions,
    Finding,
    Outcome,
    Side,
    at_least,
    at_most,
)
from quanta_bench.cli import main
from quanta_bench.registry import BENCHMARKS_GROUP, Registry

CODE = """
import os, time
from quanta_bench.benchmark import *
from quanta_bench.timing import interleave, memory_ratio, peak_above, in_own_process, time_ratio

def grow(size):
    return peak_above(lambda: [bytearray(os.urandom(1)) * size, None][1])

class Sums(Benchmark):
    name = "sums"
    title = "A built-in sum against a loop"
    place = 1

    def run(self, conditions):
        conditions.tell("adding [1, 2]")
        print("said to nobody")
        sides = {"sum": lambda: sum(range(1000)), "double": lambda: sum(range(2000))}
        one, two = interleave(sides, rounds=conditions.choose(20, quick=5), work=7, unit="sums")
        found = [time_ratio(one, two, target=at_most(5.0), title="sum | double")]
        found.append(Finding(title="answers that differ", value=3, target=at_most(0), ratio=False))
        return Outcome(cases=[Case(title=f"{os.getpid()}", sides=[one, two], findings=found)])

class Broken(Benchmark):
    name = "broken"
    title = "One that does not work"
    place = 2

    def run(self, conditions):
        raise ZeroDivisionError("by the benchmark")

class Refused(Benchmark):
    name = "refused"
    title = "One that cannot be done here"

    def run(self, conditions):
        raise BenchError(f"no {conditions.model} here")

class Lacking(Benchmark):
    name = "lacking"
    title = "One whose library is not there"
    needs = ("no-such-package-here",)

    def run(self, conditions):
        raise AssertionError

class Dying(Benchmark):
    name = "dying"
    title = "One that is killed"

    def run(self, conditions):
        os._exit(9)

class Endless(Benchmark):
    name = "endless"
    title = "One that never ends"
    place = 99

    def run(self, conditions):
        in_own_process(time.sleep, 600)
"""
NAMES = ("sums", "broken", "refused", "lacking", "dying", "endless", "gone")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds an installed package with benchmarks."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "some_benchmarks.py").write_text(CODE)
    info = folder / "some_benchmarks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-benchmarks\nVersion: 1.0\n")
    points = "\n".join(f"{name} = some_benchmarks:{name.title()}" for name in NAMES)
    (info / "entry_points.txt").write_text(f"[{BENCHMARKS_GROUP}]\n{points}\n")
    return folder


@pytest.fixture(autouse=True)
def registry(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package))
    fresh = Registry(BENCHMARKS_GROUP, "benchmark", Benchmark)
    for module in ("bench.runner", "bench.report", "cli.listing"):
        monkeypatch.setattr(f"quanta_bench.{module}.BENCHMARKS", fresh)
    # A package of a module's fixture stays importable only while that module's tests run.
    monkeypatch.delitem(sys.modules, "some_benchmarks", raising=False)


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["quanta-bench", "bench", *map(str, words)])
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
        # A long path is broken at the edge of a narrow screen.
        monkeypatch.setenv("COLUMNS", "400")
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out, err

    return run


def test_benchmarks_of_any_package_are_listed(command: Command) -> None:
    status, out, _ = command("--list", "--json")
    listed = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert set(NAMES) <= set(listed)
    assert listed["lacking"] == {
        "name": "lacking",
        "title": "One whose library is not there",
        "needs": "no-such-package-here",
        "from": "some-benchmarks 1.0",
    }


@pytest.mark.parametrize(
    ("device", "message"), [("cuda", "torch finds no GPU here"), ("tpu", "auto, cpu or cuda")]
)
def test_a_device_that_is_not_here_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, device: str, message: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, out, err = command("sums", "--device", device)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(("option", "device"), [("auto", "cuda"), ("cpu", "cpu")])
def test_a_benchmark_is_told_its_device_and_reports_stay_apart(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str, device: str
) -> None:
    machine = runner.machine()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    told = []

    def run(name: str, conditions: Conditions, log: Path) -> runner.Entry:
        told.append(conditions.device)
        date = "2026-01-01T00:00:00"
        return runner.Entry(
            name=name, title=name, origin="", status="failed", date=date, quick=False, model="",
            machine=machine,
        )  # fmt: skip

    monkeypatch.setattr(runner, "run", run)
    command("sums", "--device", option, "--results", tmp_path)
    assert told == [device]
    stem = "bench" if device == "cpu" else "bench-cuda"
    assert {path.stem for path in tmp_path.glob("*.json")} == {stem}


def test_a_benchmark_on_the_processor_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    options = {"quick": True, "model": "", "source": "", "device": "cpu"}
    runner._work("sums", options, tell=print)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_a_report_has_every_sample_and_a_picture(command: Command, tmp_path: Path) -> None:
    status, out, err = command("sums", "--results", tmp_path)
    assert status == 0
    for word in ("A built-in sum against a loop", "at most 5", "met", "missed"):
        assert word in out
    for word in ("1/1 sums: adding [1, 2]", "bench.json"):
        assert word in err
    assert "said to nobody" not in out + err
    assert "said to nobody" in (tmp_path / "logs" / "sums.txt").read_text()
    report = runner.read(tmp_path / "bench.json")
    (entry,) = report.entries
    assert (entry.status, entry.quick, entry.origin) == ("done", False, "some-benchmarks 1.0")
    assert entry.machine.environment.packages["torch"]
    assert entry.machine.cores >= 1
    assert entry.outcome is not None
    (case,) = entry.outcome.cases
    assert case.title != str(os.getpid())  # a process of its own
    assert [(side.name, len(side.seconds), side.work[0]) for side in case.sides] == [
        ("sum", 20, 7.0),
        ("double", 20, 7.0),
    ]
    ratio, count = case.findings
    assert (ratio.met, count.met) == (True, False)
    written = (tmp_path / "bench.md").read_text()
    assert r"sum \| double" in written
    assert "| double | 20 |" in written
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    # A count is no ratio and has no place on the axis.
    drawn = (tmp_path / "bench.svg").read_text()
    assert "sum | double" in drawn
    assert "answers that differ" not in drawn


def test_a_quick_run_is_apart_from_a_full_one(command: Command, tmp_path: Path) -> None:
    assert command("sums", "--results", tmp_path)[0] == 0
    full = (tmp_path / "bench.json").read_bytes()
    status, out, _ = command("sums", "--quick", "--json", "--results", tmp_path)
    (entry,) = runner.Report.model_validate_json(out).entries
    assert status == 0
    assert entry.quick
    assert entry.outcome is not None
    assert [len(side.seconds) for side in entry.outcome.cases[0].sides] == [5, 5]
    assert (tmp_path / "bench.json").read_bytes() == full
    assert "--quick" in (tmp_path / "bench-quick.md").read_text()


def test_one_that_fails_says_why_and_the_rest_goes_on(command: Command, tmp_path: Path) -> None:
    words = ("gone", "dying", "lacking", "refused", "broken", "sums", "--results", tmp_path)
    status, out, _ = command(*words)
    out = " ".join(out.split())
    assert status == 1
    assert "refused failed: no smollm2-135m here" in out
    assert "lacking could not run: no-such-package-here is not installed" in out
    assert "ZeroDivisionError: by the benchmark" in out
    assert "dying failed: Its process ended with exit status 9" in out
    assert "Traceback" in (tmp_path / "logs" / "broken.txt").read_text()
    entries = runner.read(tmp_path / "bench.json").entries
    # In the order of the benchmarks, whatever the order of the words.
    assert [(entry.name, entry.status) for entry in entries] == [
        ("sums", "done"),
        ("broken", "failed"),
        ("dying", "failed"),
        ("lacking", "missing"),
        ("refused", "failed"),
        ("gone", "failed"),
    ]
    assert "gone failed: The benchmark 'gone' (some_benchmarks:Gone" in out


def test_words_that_are_off_are_refused_before_anything_runs(
    command: Command, tmp_path: Path
) -> None:
    for words, said in (
        (("sum",), "Did you mean 'sums'?"),
        (("sums", "--source", "moon"), "There is no source 'moon'"),
        (("sums", "--model", "moon:x"), "A model is NAME"),
    ):
        status, _, err = command(*words, "--results", tmp_path)
        assert status == 2
        assert said in err
    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_read_is_not_overwritten(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text("{}[")
    status, _, err = command("sums", "--results", tmp_path)
    assert status == 1
    assert "cannot be read as a report" in err
    assert path.read_text() == "{}["


def test_ctrl_c_keeps_and_shows_what_is_finished(package: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{package}:{os.environ.get('PYTHONPATH', '')}"}
    words = ["-m", "quanta_bench.cli.main", "bench", "endless", "sums", "--results", str(tmp_path)]
    process = start([sys.executable, *words], env=environment, start_new_session=True)
    wait_for(lambda: "sums" in written(tmp_path) and (tmp_path / "logs/endless.txt").exists())
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert "Stopped." in err
    assert "A built-in sum against a loop" in out
    assert (tmp_path / "bench.md").exists()
    # Nothing of it is left running, the process that the benchmark had started included.
    wait_for(lambda: not running(process.pid))


def running(group: int) -> list[int]:
    """The processes of a group, but for those that only wait to be noticed by their parent."""
    alive = psutil.process_iter(["status"])
    return [
        one.pid
        for one in alive
        if one.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(one.pid) == group
    ]


def written(folder: Path) -> str:
    path = folder / "bench.json"
    return path.read_text() if path.exists() else ""


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait; the test's own timeout ends a wait for nothing."""
    while not condition():
        time.sleep(0.1)


def entry(name: str, status: str = "done", **over: Any) -> runner.Entry:
    outcome = over.pop("outcome", None)
    if status == "done" and outcome is None:
        outcome = Outcome(cases=[Case(title="c")])
    content = {
        "name": name,
        "title": name.title(),
        "origin": "",
        "status": status,
        "date": "2026-01-02T00:00:00+00:00",
        "quick": False,
        "model": "",
        "machine": runner.machine(),
        "outcome": outcome,
        **over,
    }
    return runner.Entry.model_validate(content)


def test_an_entry_takes_its_older_ones_place_unless_it_failed() -> None:
    old, new, other = entry("a", seconds=1), entry("a", seconds=2), entry("b", "failed")
    report = runner.Report(entries=[old, other]).with_entry(new)
    assert {one.name: one.seconds for one in report.entries} == {"a": 2.0, "b": 0.0}
    kept = report.with_entry(entry("a", "failed", reason="r"))
    assert kept.entries == report.entries
    assert [one.status for one in report.with_entry(entry("b")).entries] == ["done", "done"]


def test_numbers_are_shown_as_they_are_read() -> None:
    values = (1.2345, 3.0, 12.34, 123.4, 0.51, 3.21e-05, 0.0, math.inf, math.nan)
    assert [bench_report.number(value) for value in values] == [
        "1.23",
        "3",
        "12.3",
        "123",
        "0.51",
        "3.21e-05",
        "0",
        "inf",
        "nan",
    ]


def test_the_picture_has_smaller_is_better_and_bigger_is_better_apart() -> None:
    findings = [
        Finding(title="t", value=1.4, low=1.2, high=1.5, target=at_most(1.6)),
        Finding(title="s", value=3.0, target=at_least(4.0)),
        Finding(title="no target", value=2.0),
        Finding(title="d", value=0.1, ratio=False, target=at_most(1)),
    ]
    made = Outcome(cases=[Case(title="c", findings=findings)])
    figure = overview(runner.Report(entries=[entry("a", outcome=made)]))
    assert figure is not None
    panels = {axes.get_title("right").partition(":")[0]: axes for axes in figure.axes}
    for title, label, bound, style in (
        ("Smaller is better", "c: t", 1.6, MET),
        ("Larger is better", "c: s", 4.0, MISSED),
    ):
        axes = panels.pop(title)
        # The first line is the benchmark's title.
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["", label]
        assert axes.get_xscale() == "log"
        targets = [list(line.get_xdata()) for line in axes.lines if line.get_color() == "black"]
        assert targets == [[bound, bound]]
        (value,) = (line for line in axes.lines if line.get_marker() == style[1])
        assert value.get_color() == style[0]
    assert not panels
    without = runner.Report(entries=[entry("a"), entry("b", "failed")])
    assert overview(without) is None


def test_a_benchmark_without_targets_is_in_the_picture_all_the_same() -> None:
    made = Outcome(cases=[Case(title="c", findings=[Finding(title="t", value=2.0)])])
    figure = overview(runner.Report(entries=[entry("a", outcome=made)]))
    assert figure is not None
    assert [axes.get_title("right") for axes in figure.axes] == ["Ratios without a target"]


def test_a_report_is_drawn_on_one_page() -> None:
    findings = [Finding(title=f"t{n}", value=1.4, target=at_most(1.6)) for n in range(100)]
    long = Outcome(cases=[Case(title="c", findings=findings)])
    committed = runner.read(STUDY / "bench" / "bench.json")
    for report in (committed, runner.Report(entries=[entry("a", outcome=long)])):
        figure = overview(report)
        assert figure is not None
        assert figure.get_figheight() < 11.7  # A4


def test_the_screen_and_markdown_say_the_same(tmp_path: Path) -> None:
    side = Side(name="ours", seconds=[0.5, 0.25, 0.5], work=[4, 4, 4], unit="items", peak_bytes=5)
    finding = Finding(title="ours / theirs", value=2.5, low=2.25, high=2.75, target=at_least(3))
    case = Case(title="HellaSwag", sides=[side], findings=[finding], notes=["2 of 40 differ"])
    report = runner.Report(entries=[entry("a", outcome=Outcome(cases=[case], notes=["all"]))])
    text = bench_report.as_markdown(report)
    assert "| HellaSwag | ours / theirs | 2.5 | 2.25 to 2.75 | at least 3 | missed |" in text
    assert "| HellaSwag | ours | 3 | 500 | 9.6 items | 0 |" in text
    assert "- a, HellaSwag: 2 of 40 differ" in text
    console = Console(file=StringIO(), width=200)
    console.print(bench_report.on_screen(report.entries, "bench"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for word in ("ours / theirs", "2.25 to 2.75", "at least 3", "missed", "2 of 40 differ"):
        assert word in shown


def test_conditions_choose_a_size() -> None:
    assert Conditions().choose(50, quick=5) == 50
    assert Conditions(quick=True).choose(50, quick=5) == 5
