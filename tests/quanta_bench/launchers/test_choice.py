"""The options of a launcher: what they make, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from quanta_bench.errors import UsageError
from quanta_bench.launchers import ray_cluster
from quanta_bench.launchers.choice import make_launcher, read_workers
from quanta_bench.launchers.ray_cluster import GIB, RayLauncher, lack_of_room


def test_the_command_computes_itself_unless_it_is_told_otherwise() -> None:
    assert make_launcher("local") is None
    assert isinstance(make_launcher("ray", 2, {"cpus": 3, "memory": 1.5}), RayLauncher)


def test_the_number_of_workers() -> None:
    assert read_workers("auto") is None
    assert read_workers("12") == 12


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "", "99999", "²"])
def test_what_is_no_number_of_workers(text: str) -> None:
    with pytest.raises(UsageError, match="--workers takes a number"):
        read_workers(text)


@pytest.mark.parametrize(
    ("name", "workers", "settings", "said"),
    [
        ("rya", None, {}, "There is no launcher 'rya'. Did you mean 'ray'?"),
        ("", None, {}, "Known: local, ray, slurm."),
        ("local", 2, {}, "--workers needs --launcher ray or slurm"),
        ("local", None, {"cpus": 1}, "--launcher-set needs --launcher ray or slurm"),
        ("ray", None, {"cpu": 1}, "'ray' has no setting 'cpu'. Did you mean 'cpus'"),
        ("ray", None, {"cpus": 0}, "--launcher-set cpus: Input should be greater than"),
        ("ray", None, {"gpus": True}, "--launcher-set gpus: true is not a valid value"),
    ],
)
def test_what_is_refused(
    name: str, workers: int | None, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as error:
        make_launcher(name, workers, settings)
    assert said in str(error.value)


def test_a_run_that_fits_no_node_is_named_with_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two nodes that have enough only together."""
    nodes = [{"CPU": 8.0, "memory": 4.0 * GIB}, {"CPU": 1.0, "GPU": 1.0, "memory": 64.0 * GIB}]
    monkeypatch.setattr(ray_cluster, "_nodes", lambda: nodes)
    need = {"num_cpus": 2, "num_gpus": 0.0, "memory": 3 * GIB}
    assert lack_of_room("LoRA", need) == ""
    assert lack_of_room("LoRA", {**need, "num_gpus": 1.0, "num_cpus": 1}) == ""
    said = lack_of_room("LoRA", {**need, "memory": 5 * GIB})
    assert said.startswith("LoRA needs 2 CPUs, 0 GPUs and 5.0 GiB of memory, which no node")
