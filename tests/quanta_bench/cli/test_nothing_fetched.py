"""A model and data of the user's own: no process of a command tries to reach any network."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from animals import write_data, write_suite
from command_line import command

WATCH = """
import os, sys

def note(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        if event == "socket.connect" and args[0].family.name == "AF_UNIX":
            return
        with open(os.environ["ATTEMPTS"], "a") as stream:
            print(sys.argv[:1], event, args[1:] if event == "socket.connect" else args, file=stream)

with open(os.environ["ATTEMPTS"] + ".watched", "a") as stream:
    print(os.getpid(), file=stream)
sys.addaudithook(note)
"""
"""Imported by every Python that a command starts: writes down each attempt to reach an address."""

Said = tuple[int, str, list[str], int]
"""Exit status, what was said, attempts by Python's sockets, and connections to the hub."""


@contextmanager
def closed_door() -> Iterator[tuple[str, list[object]]]:
    """The URL of a hub that hangs up, and who called there, by whatever library."""
    callers: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    caller, address = server.accept()
                except OSError:
                    return
                callers.append(address)
                caller.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", callers
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def watched(tmp_path: Path) -> Callable[..., Said]:
    """Runs a command with empty caches, whose hub and package index are the closed door."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    attempts = tmp_path / "attempts"

    def run(*words: str | Path) -> Said:
        with closed_door() as (url, callers):
            offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
            kept = {name: value for name, value in os.environ.items() if name not in offline}
            path = os.pathsep.join(filter(None, [str(tmp_path / "watch"), kept.get("PYTHONPATH")]))
            environment = {
                **kept,
                "PYTHONPATH": path,
                "ATTEMPTS": str(attempts),
                "HF_ENDPOINT": url,
                "HF_HOME": str(tmp_path / "hub"),
                "PIP_INDEX_URL": f"{url}/simple",
                "QUANTA_BENCH_CACHE": str(tmp_path / "cache"),
            }
            done = subprocess.run(
                command(*words), env=environment, capture_output=True, text=True, check=False
            )
        assert Path(f"{attempts}.watched").exists()
        tried = attempts.read_text().splitlines() if attempts.exists() else []
        return done.returncode, done.stdout + done.stderr, tried, len(callers)

    return run


@pytest.mark.parametrize("model", ["local", "hub:someone/some-model"])
def test_a_run_reaches_out_only_for_a_model_that_is_not_here(
    watched: Callable[..., Said], tiny_model: Path, tmp_path: Path, model: str
) -> None:
    """The hub's model shows that an attempt would be seen."""
    model = f"local:{tiny_model}" if model == "local" else model
    task = f"jsonl:{write_data(tmp_path)}"
    words = ("--method", "none", "--task", task, "--model", model, "--results", tmp_path / "r")
    status, said, tried, calls = watched("run", *words)
    assert "Traceback" not in said
    if model.startswith("local:"):
        assert status == 0, said
        assert (tried, calls) == ([], 0)
    else:
        assert status == 1, said
        assert tried
        assert calls


@pytest.mark.slow
def test_a_table_of_a_local_model_and_a_local_file(
    watched: Callable[..., Said], tiny_model: Path, tmp_path: Path
) -> None:
    """With workers, each a process of its own."""
    suite = write_suite(tmp_path, write_data(tmp_path), tiny_model)
    status, said, tried, calls = watched("table", suite, "--results", tmp_path / "r", "--jobs", "2")
    assert status == 0, said
    assert "LoRA" in said
    assert (tried, calls) == ([], 0)
    assert len(set(Path(f"{tmp_path / 'attempts'}.watched").read_text().split())) >= 3


@pytest.mark.slow
def test_runs_of_a_local_model_on_a_copy_of_published_data(
    watched: Callable[..., Said], tiny_model: Path, llm_adapters: Path, tmp_path: Path
) -> None:
    model, source = f"local:{tiny_model}", f"local:{llm_adapters}"
    results = ("--results", tmp_path / "r")
    for words in (
        ("tasks", "boolq", "--show", "--model", model, "--source", source),
        ("run", "--method", "lora", "--task", "boolq", "--model", model, "--source", source,
         "--set", "training.epochs=1", "--set", "training.validations=1", *results),
        ("report", *results),
    ):  # fmt: skip
        status, said, tried, calls = watched(*words)
        assert status == 0, said
        assert (tried, calls) == ([], 0), words


@pytest.mark.slow
def test_the_embedded_model_is_asked_for(watched: Callable[..., Said], tmp_path: Path) -> None:
    """By pip, in a process that is watched too."""
    task = f"jsonl:{write_data(tmp_path)}"
    status, said, tried, calls = watched(
        "run", "--method", "none", "--task", task, "--results", tmp_path / "r"
    )
    assert status == 1, said
    assert any("pip" in one for one in tried)
    assert calls
