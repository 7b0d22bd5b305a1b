"""Counters of energy, made by hand: files as Linux has them, and a stand-in for NVML."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from quanta_bench.utils import energy

CPU = torch.device("cpu")


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two processors, of which one has a part that is counted in it, and the whole platform."""
    zones = {
        "intel-rapl:0": ("package-0", 9_000_000),
        "intel-rapl:1": ("package-1", 0),
        "intel-rapl:0:0": ("core", 5),
        "intel-rapl:2": ("psys", 7),
    }
    for folder, (name, start) in zones.items():
        zone = tmp_path / folder
        zone.mkdir()
        (zone / "name").write_text(f"{name}\n")
        (zone / "energy_uj").write_text(f"{start}\n")
        (zone / "max_energy_range_uj").write_text("10000000\n")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    return tmp_path


def test_processors_are_summed_and_a_counter_may_wrap(powercap: Path) -> None:
    meter = energy.energy_meter(CPU, alone=True)
    assert meter is not None
    (powercap / "intel-rapl:0" / "energy_uj").write_text("9500000\n")
    (powercap / "intel-rapl:0:0" / "energy_uj").write_text("400000\n")
    (powercap / "intel-rapl:2" / "energy_uj").write_text("600000\n")
    assert meter.joules == pytest.approx(0.5)
    (powercap / "intel-rapl:0" / "energy_uj").write_text("1000000\n")
    (powercap / "intel-rapl:1" / "energy_uj").write_text("2000000\n")
    assert meter.joules == pytest.approx(2 + 2)


def test_a_processor_that_others_use_or_that_does_not_tell_has_no_meter(
    powercap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert energy.energy_meter(CPU, alone=False) is None
    (powercap / "intel-rapl:1" / "energy_uj").unlink()  # as where only root may read it
    assert energy.energy_meter(CPU, alone=True) is None
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "absent")
    assert energy.energy_meter(CPU, alone=True) is None


class NVMLError(Exception):
    pass


def nvml(values: list[int]) -> SimpleNamespace:
    """The part of ``pynvml`` that is used, with the counter's values in mJ."""

    def total(handle: str) -> int:
        assert handle == "GPU-b7c5"
        if not values:
            raise NVMLError("Not Supported")
        return values.pop(0)

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=total,
    )


@pytest.mark.parametrize(
    ("values", "joules"), [([5_000, 7_500], 2.5), ([], None)], ids=["counted", "no counter"]
)
def test_a_gpu_is_found_by_its_uuid(
    values: list[int], joules: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(values))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="b7c5")
    )
    meter = energy.energy_meter(torch.device("cuda", 1), alone=False)
    assert (meter and meter.joules) == joules


def test_a_gpu_without_the_library_has_no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.energy_meter(torch.device("cuda"), alone=True) is None
