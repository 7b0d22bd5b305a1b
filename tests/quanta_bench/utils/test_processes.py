"""Calls in child processes: replies in order, failures, interruption, and no child that stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.utils import processes
from quanta_bench.utils.processes import (
    ChildDiedError,
    ChildError,
    ChildProcess,
    Message,
    Raised,
    Returned,
    close_all,
    in_own_process,
)

FUNCTIONS = """
import os, signal, sys, time
from quanta_bench.errors import UsageError

class Local(Exception):
    def __init__(self, one, two):
        super().__init__(one)

def count(most, *, tell):
    for number in range(most):
        tell(number)
    return os.getpid()

def refuse(): raise UsageError("no such word")
def unpicklable(): raise Local("one", "two")
def leave(): sys.exit(3)
def function(): return lambda: None
def sleep(seconds, *, tell):
    tell("asleep")
    time.sleep(seconds)
def stubborn(seconds, *, tell):
    tell("deaf")
    while True:
        try:
            time.sleep(seconds)
        except KeyboardInterrupt:
            pass
def parent_of(path):
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(path, "w").write(str(child.pid))
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
def speak(): print("a line"); print("another", file=sys.stderr)
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A module of functions that another process can import."""
    (tmp_path / "functions_of_a_child.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "functions_of_a_child", raising=False)
    import functions_of_a_child  # type: ignore[import-not-found]

    return functions_of_a_child


@pytest.fixture
def child() -> object:
    made = ChildProcess()
    yield made
    made.close(0)


def gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def until(ready: Callable[[], object]) -> None:
    """Wait; the test's own timeout ends a wait for nothing."""
    while not ready():
        time.sleep(0.02)


def test_calls_reply_in_order_from_one_process(functions, child) -> None:
    child.call(functions.count, 2, tells=True)
    child.call(divmod, 7, 2)
    replies = [child.receive() for _ in range(4)]
    assert replies == [Message(0), Message(1), Returned(child.pid), Returned((3, 1))]
    assert child.pid != os.getpid()


def test_failures_come_back_and_the_child_goes_on(functions, child) -> None:
    for function in (functions.refuse, functions.unpicklable, functions.leave, functions.function):
        child.call(function)
    child.call(os.getpid)
    errors = [child.receive() for _ in range(4)]
    assert all(isinstance(reply, Raised) for reply in errors)
    refused, local, left, _ = (reply.error for reply in errors)
    assert (type(refused), str(refused)) == (UsageError, "no such word")
    assert (type(local), str(local)) == (ChildError, "Local: one")
    assert (type(left), str(left)) == (ChildError, "SystemExit: 3")
    assert "Traceback" in refused.__notes__[0]
    assert child.receive() == Returned(child.pid)


@pytest.mark.parametrize(
    ("how", "killed", "words"),
    [(9, True, "was killed"), (15, False, "ended by SIGTERM")],
)
def test_a_child_that_dies_is_noticed(child, how: int, killed: bool, words: str) -> None:
    child.call(os.kill, child.pid, how)
    with pytest.raises(ChildDiedError, match=words) as caught:
        child.receive()
    assert caught.value.killed is killed


def test_closing_interrupts_a_call_and_kills_one_that_goes_on(functions) -> None:
    polite, deaf = ChildProcess(), ChildProcess()
    polite.call(functions.sleep, 600, tells=True)
    deaf.call(functions.stubborn, 600, tells=True)
    assert polite.receive() == Message("asleep")
    assert deaf.receive() == Message("deaf")
    polite.close(grace=300)  # the test would time out if it was not interrupted
    assert polite._process.returncode == 0
    close_all([deaf], grace=0.2)
    assert deaf._process.returncode == -signal.SIGKILL


def test_what_a_killed_child_started_is_killed_too(functions, child, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    child.call(functions.parent_of, str(path))
    until(lambda: path.exists() and path.read_text())
    child.close(grace=0.2)
    until(lambda: gone(int(path.read_text())))


def test_a_child_ends_with_its_parent_however_that_ended(tmp_path: Path) -> None:
    script = """
        import os, time
        from quanta_bench.utils.processes import ChildProcess
        child = ChildProcess()
        child.call(time.sleep, 600)
        print(child.pid, flush=True)
        time.sleep(600)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    until(lambda: gone(pid))


def test_in_own_process_hands_over_everything(functions, tmp_path: Path) -> None:
    told: list[object] = []
    assert in_own_process(functions.count, 3, tell=told.append) != os.getpid()
    assert told == [0, 1, 2]
    log = tmp_path / "log"
    in_own_process(functions.speak, log=log)
    assert sorted(log.read_text().splitlines()) == ["a line", "another"]
    with pytest.raises(UsageError, match="no such word"):
        in_own_process(functions.refuse, log=log)
    assert "Traceback" in log.read_text()
    with pytest.raises(BenchError, match=r"exit status 4\. What it printed is in .*log"):
        in_own_process(os._exit, 4, log=log)


def test_a_child_does_not_run_the_script_of_its_parent(tmp_path: Path) -> None:
    """As `multiprocessing` would, again and again where a script has no guard."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from quanta_bench.utils.processes import in_own_process\n"
        "print('once')\n"
        "assert in_own_process(os.getpid) != os.getpid()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "once\n"


def test_ctrl_c_is_the_parents_alone_to_answer(child) -> None:
    child.call(os.getpid)
    child.receive()  # it is there
    os.kill(child.pid, signal.SIGINT)
    child.call(divmod, 3, 2)
    assert child.receive() == Returned((1, 1))
    assert processes.INTERRUPT != signal.SIGINT
