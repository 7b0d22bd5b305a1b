"""docs/cluster.md says what holds: settings, figures, and a task for SkyPilot."""

from __future__ import annotations

import re
import shlex
from typing import Any

import typer
import yaml
from paths import ROOT

from quanta_bench.cli.main import app
from quanta_bench.launchers.ledger import MOST_LOSSES
from quanta_bench.launchers.ray_cluster import RaySettings
from quanta_bench.launchers.slurm import SlurmSettings
from quanta_bench.results.leases import EXPIRY_SECONDS, HEARTBEAT_SECONDS
from quanta_bench.utils.settings import StrictModel

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def settings(title: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", section(title), re.MULTILINE)


def check_settings(title: str, model: type[StrictModel]) -> None:
    assert settings(title) == list(model.model_fields)


def test_every_setting_of_ray_is_in_the_table() -> None:
    check_settings("Ray", RaySettings)


def test_every_setting_of_slurm_is_in_the_table() -> None:
    check_settings("SLURM", SlurmSettings)


def test_the_figures_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    assert f"every {HEARTBEAT_SECONDS:.0f} seconds" in text
    assert f"after {EXPIRY_SECONDS:.0f} seconds without a sign" in text
    assert {10: "cost ten workers"}[MOST_LOSSES] in text


def test_the_task_for_skypilot_has_the_fields_that_skypilot_knows_and_runs_our_command() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    task: dict[str, Any] = yaml.safe_load(text)
    assert task.keys() <= {"name", "num_nodes", "resources", "volumes", "setup", "run"}
    assert task["resources"].keys() <= {"accelerators", "use_spot"}
    words = shlex.split(task["run"])
    assert words[0] == "quanta-bench"
    cli: Any = typer.main.get_command(app)
    context = cli.commands[words[1]].make_context(words[1], words[2:])
    (mount,) = task["volumes"]
    assert str(context.params["results"]).startswith(mount)
