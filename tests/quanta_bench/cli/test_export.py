"""``quanta-bench export``: what it writes and says, and that nothing is pushed unless asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from command_line import Bench
from finished_runs import FinishedRuns


def test_export_says_what_it_wrote(finished: FinishedRuns, bench: Bench, tmp_path: Path) -> None:
    run = finished("quanta")
    words = ["export", run.result.run, "--results", run.store.root]
    done = bench(*words, "--to", tmp_path / "a", "--json")
    assert done.status == 0, done.err
    said = json.loads(done.out)
    assert said["form"] == "merged"
    assert {path.name for path in (tmp_path / "a").iterdir()} == set(said["files"])
    again = bench(*words, "--to", tmp_path / "a")
    assert again.status == 2
    assert "name a new folder" in again.both
    ours = bench(*words, "--to", tmp_path / "b", "--unmerged")
    assert "import quanta_bench.tuners" in ours.both
    nowhere = bench("export", "lora-0", "--results", tmp_path, "--to", tmp_path / "c")
    assert nowhere.status == 2
    assert "There is no run 'lora-0'" in nowhere.both


def test_nothing_is_pushed_without_the_option(
    finished: FinishedRuns, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Any]] = []

    class Api:
        def __init__(self, endpoint: str) -> None:
            pass

        def create_repo(self, name: str, **options: Any) -> Any:
            calls.append((name, options))
            return SimpleNamespace(repo_id=name)

        def upload_folder(self, **options: Any) -> Any:
            calls.append(("upload", options))
            return SimpleNamespace(commit_url="address")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    run = finished("lora")
    folder = run.store.run_folder(run.result.run)
    assert bench("export", folder, "--to", tmp_path / "a").status == 0
    assert calls == []
    refused = bench("export", folder, "--to", tmp_path / "b", "--push", "me/model")
    assert refused.status == 2
    assert "push the merged model" in refused.both
    assert not (tmp_path / "b").exists()
    done = bench("export", folder, "--merged", "--to", tmp_path / "b", "--push", "me/model")
    assert done.status == 0, done.err
    assert "Pushed: address" in done.both
    assert calls[0] == ("me/model", {"private": True, "exist_ok": True})
    assert calls[1][1]["repo_id"] == "me/model"
