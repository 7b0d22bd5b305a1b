from __future__ import annotations

import threading
from importlib import metadata
from pathlib import Path

import pytest

from quanta_bench.cli import checks as doctor
from quanta_bench.cli.checks import Finding, check


def finding(name: str) -> Finding:
    return next(item for item in check() if item.name == name)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_everything_is_looked_at_once_and_explained() -> None:
    found = check()
    names = [item.name for item in found]
    assert len(set(names)) == len(names)
    assert {"python", "packages", "torch", "disk", "embedded model", "hub", "tasks"} <= set(names)
    assert all(item.detail for item in found)
    assert finding("python").ok
    assert finding("packages").ok


def test_what_is_not_fetched_says_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTA_BENCH_CACHE", str(tmp_path))
    for name in ("embedded model", "embedded data"):
        found = finding(name)
        assert not found.ok
        assert "quanta-bench fetch" in found.detail


def test_hub_that_is_switched_off_is_not_asked() -> None:
    found = finding("hub")
    assert not found.ok
    assert not found.needed
    assert "HF_HUB_OFFLINE" in found.detail


def test_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(doctor, "_HUB_SECONDS", 0.2)
    monkeypatch.setattr(doctor.urllib.request, "urlopen", lambda *a, **k: answer.wait())
    found = doctor._hub()
    answer.set()  # only now: waited for, it would never have come
    assert not found.ok
    assert "no answer" in found.detail


def test_hub_that_refuses_is_told_from_one_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    found = doctor._hub()
    assert not found.ok
    assert "127.0.0.1:9 cannot be reached" in found.detail
    assert "--source embedded" in found.detail


def test_a_package_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == "peft" else real(name))
    found = doctor._packages()
    assert not found.ok
    assert "peft is 0.0.1, required" in found.detail


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["absent-pack>=1", 'x; extra == "y"'])
    assert "absent-pack is missing" in doctor._packages().detail


def test_a_package_that_shadows_ours_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor._package_names().ok
    intruder = tmp_path / "tasks"
    intruder.mkdir()
    (intruder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(doctor.importlib.sys.modules, "tasks", raising=False)
    found = doctor._package_names()
    assert not found.ok
    assert str(intruder) in found.detail
    assert "uninstall" in found.detail


def test_another_package_that_installs_our_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metadata, "packages_distributions", lambda: {"baselines": ["gym-baselines"]}
    )
    found = doctor._package_names()
    assert not found.ok
    assert "gym-baselines also installs a package called baselines" in found.detail


def test_a_broken_plug_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("broken", "no_such_module:Thing", "quanta_bench.tasks")
    monkeypatch.setattr("quanta_bench.registry.entry_points", lambda group: [point])
    found = finding("tasks")
    assert not found.ok
    assert "no_such_module" in found.detail


def test_one_broken_look_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Finding:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(doctor, "_disk", fail)
    found = finding("disk")
    assert not found.ok
    assert "no such thing" in found.detail
    assert finding("memory").detail
