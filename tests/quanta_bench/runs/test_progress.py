"""What is said of progress and of time left, with a clock that is set by hand."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from rich.console import Console

from quanta_bench.runs import progress
from quanta_bench.runs.progress import Screen


class Shown:
    """A screen on a log file or a terminal, and its clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self._file = io.StringIO()
        monkeypatch.setattr(progress, "monotonic", lambda: self.now)

    def screen(
        self, weights: Sequence[float], *, terminal: bool = False, width: int = 120
    ) -> Screen:
        self.console = Console(
            file=self._file, width=width, force_terminal=terminal, color_system=None
        )
        return Screen(self.console, weights, lambda: "[table]")

    def lines(self) -> list[str]:
        return self._file.getvalue().splitlines()

    def drawn(self, screen: Screen) -> str:
        with self.console.capture() as captured:
            self.console.print(screen._draw(), markup=False)
        return captured.get()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    return Shown(monkeypatch)


def test_time_left_is_told_within_the_first_run(shown: Shown) -> None:
    screen = shown.screen([1.0, 1.0])
    run = screen.begin("a")
    shown.now += 60
    run.training(1, 10)  # 7.5 % of a half of the work
    assert screen.times() == "1 min, about 26 min left"


def test_nothing_is_told_of_time_left_too_soon(shown: Shown) -> None:
    screen = shown.screen([1.0])
    run = screen.begin("a")
    run.training(1, 100)
    shown.now += 19
    run.training(50, 100)
    assert screen.times() == "19 s"
    shown.now += 1
    assert screen.times() == "20 s, under a minute left"
    screen = shown.screen([1.0] * 30)
    run = screen.begin("a")
    shown.now += 600
    run.training(1, 1)  # 75 % of a 30th
    assert screen.times() == "10 min"


def test_a_run_without_training_counts_for_less(shown: Shown) -> None:
    screen = shown.screen([0.3, 1.0, 1.0])
    run = screen.begin("base", 0.3)
    run.scoring(10)
    shown.now += 60
    run.scored(10)
    run.finish()
    # 2.0 / 0.3 times as long again, not twice.
    assert screen.times() == "1 min, about 7 min left"


def test_scoring_is_the_last_quarter_of_a_trained_run_and_all_of_another(shown: Shown) -> None:
    screen = shown.screen([1.0])
    run = screen.begin("a")
    shown.now += 600
    run.scoring(10)
    run.scored(4)
    run.scored(1)
    assert screen.times() == "10 min, about 10 min left"
    screen = shown.screen([1.0])
    run = screen.begin("a")
    shown.now += 1050
    run.training(1, 10)
    run.training(10, 10)
    run.scoring(10)
    run.scored(5)
    assert screen.times() == "18 min, about 2 min left"  # 7/8 are done


def test_what_an_earlier_start_trained_does_not_make_it_look_fast(shown: Shown) -> None:
    screen = shown.screen([1.0])
    run = screen.begin("a")
    run.training(81, 100)
    shown.now += 600
    run.training(90, 100)  # 7.5 % in 10 min; 32.5 % are left
    assert screen.times() == "10 min, about 43 min left"


def test_a_failed_run_counts_as_done(shown: Shown) -> None:
    screen = shown.screen([1.0, 1.0])
    run = screen.begin("a [b]")
    shown.now += 120
    run.fail()
    assert shown.lines()[-1] == "a [b]: failed; 1 of 2 runs; 2 min, about 2 min left"
    run = screen.begin("c")
    run.finish()
    assert shown.lines()[-1] == "c: done; 2 of 2 runs; 2 min"


def test_a_log_gets_a_line_now_and_then(shown: Shown) -> None:
    with shown.screen([1.0]) as screen:
        run = screen.begin("a")
        for step in range(1, 101):
            shown.now += 1
            run.training(step, 100)
        run.scoring(4)
        run.scored(4)
        run.finish()
    said = [line.partition(";")[0] for line in shown.lines()]
    assert said == [
        "a: loading",
        *(f"a: training, step {step} of 100" for step in (31, 62, 93)),
        "a: scoring, item 0 of 4",
        "a: done",
    ]


def test_loading_shows_nothing_of_the_run_before(shown: Shown) -> None:
    screen = shown.screen([1.0, 1.0], terminal=True)
    run = screen.begin("a")
    run.training(7, 9)
    assert "7 of 9" in shown.drawn(screen)
    run.finish()
    run = screen.begin("b")
    text = shown.drawn(screen)
    assert re.search(r"\bb +loading\b", text)
    assert "of 9" not in text
    assert "1 of 2" in text
    assert screen._progress.tasks[-1].total is None
    run.training(1, 5)
    assert "1 of 5" in shown.drawn(screen)


def test_a_terminal_is_redrawn_and_gets_no_lines(shown: Shown) -> None:
    with shown.screen([1.0], terminal=True) as screen:
        run = screen.begin("a")
        run.finish()
    assert "a: done" not in "\n".join(shown.lines())


def test_no_runs_and_no_items_are_no_error(shown: Shown) -> None:
    screen = shown.screen([])
    shown.now += 100
    assert screen.times() == "2 min"
    screen = shown.screen([0.3])
    run = screen.begin("a")
    run.scoring(0)
    run.scored(0)
    run.finish()


def test_the_overall_bar_moves_with_the_work_of_runs_in_progress(shown: Shown) -> None:
    screen = shown.screen([3.0, 1.0], terminal=True)
    run = screen.begin("a", 3.0)
    run.training(1, 2)
    shown.drawn(screen)
    overall = screen._progress.tasks[0]
    assert (overall.completed, overall.total) == (3.0 * 0.75 / 2, 4.0)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_only_labels_are_cut_where_the_terminal_is_narrow(shown: Shown, width: int) -> None:
    screen = shown.screen([1.0, 1.0], terminal=True, width=width)
    run = screen.begin("a method with a very long label, seed 0, hellaswag, winogrande")
    shown.now += 3000
    run.training(1, 5678)
    run.training(1234, 5678)
    text = shown.drawn(screen)
    assert "1234 of 5678" in text
    assert "50 min, about 564 min left" in text
    assert max(map(len, text.splitlines())) <= width


def test_an_interrupted_sweep_says_what_is_kept_and_where_it_goes_on(shown: Shown) -> None:
    screen = shown.screen([1.0] * 5)
    screen.begin("a").finish()
    screen.begin("b").fail()
    screen.begin("c").training(7, 20)
    run = screen.begin("d")
    run.training(20, 20)
    run.scoring(10)
    screen.begin("e")
    screen.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert shown.lines()[-4:] == [
        "Interrupted. Finished and kept: 1 of 5 runs.",
        "  c: interrupted at step 7 of 20; will resume from the checkpoint of its last validation, "
        "or restart if there is none",
        "  d: interrupted while scoring; its training is kept, scoring will restart",
        "  e: interrupted while loading; will restart",
    ]


def test_runs_beside_each_other_have_a_line_each(shown: Shown) -> None:
    screen = shown.screen([1.0, 3.0, 4.0], terminal=True)
    first = screen.begin("a", 1.0)
    second = screen.begin("b", 3.0)
    first.training(3, 4)
    second.training(1, 9)
    text = shown.drawn(screen)
    assert re.search(r"\ba +training, step\b", text)
    assert re.search(r"\bb +training, step\b", text)
    assert "0 of 3" in text
    first.finish()
    text = shown.drawn(screen)
    assert not re.search(r"\ba +training", text)
    assert re.search(r"\bb +training, step\b", text)
    assert "1 of 3" in text


def test_a_narrow_terminal_cuts_a_label_and_not_what_the_run_does(shown: Shown) -> None:
    screen = shown.screen([1.0], terminal=True, width=80)
    run = screen.begin("QTHA-style (our reading), r=8")
    run.training(1, 200)
    shown.now += 720
    run.training(160, 200)
    text = shown.drawn(screen)
    assert "QTHA-style" in text
    assert "training, step" in text
    assert "160 of 200" in text
    assert "about 8 min left" in text


def test_work_of_all_running_runs_counts_for_the_time_left(shown: Shown) -> None:
    screen = shown.screen([1.0, 3.0, 4.0])
    first, second = screen.begin("a", 1.0), screen.begin("b", 3.0)
    first.scoring(2)
    second.scoring(6)
    shown.now += 600
    first.scored(1)
    second.scored(3)
    assert screen.times() == "10 min, about 30 min left"  # a half and three halves of 8


def test_a_table_that_takes_long_is_drawn_seldom_and_on_a_terminal_alone(shown: Shown) -> None:
    drawn = []

    def draw() -> str:
        drawn.append(shown.now)
        shown.now += 2  # seconds, as of a table of thousands of runs
        return "[table]"

    for terminal, expected in ((False, 0), (True, 1 + 4)):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
        screen = Screen(console, [1.0] * 400, draw)
        for number in range(400):
            run = screen.begin(str(number))
            shown.now += 1
            run.finish()
        assert len(drawn) == expected
