"""The launcher that the options of a command ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from quanta_bench.errors import UsageError, did_you_mean
from quanta_bench.utils.counts import number_or_auto
from quanta_bench.utils.settings import problems

if TYPE_CHECKING:
    from quanta_bench.launchers.launch import Launcher

LOCAL = "local"
LAUNCHERS = (LOCAL, "ray", "slurm")

S = TypeVar("S", bound=BaseModel)


def read_workers(text: str) -> int | None:
    """Parse ``--workers``: a number, or ``None`` for ``auto``.

    Raises:
        UsageError: the text is neither a number from 1 to 9999 nor ``auto``.
    """
    return number_or_auto("--workers", text)


def make_launcher(
    name: str,
    workers: int | None = None,
    settings: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Launcher | None:
    """A launcher by its name; ``None`` for ``local``, where the command computes itself.

    Args:
        name: one of `LAUNCHERS`.
        workers: the most workers at once; ``None`` for its own choice.
        settings: its settings, by name.
        say: tells the user something.

    Raises:
        UsageError: there is no such launcher, or it has no such setting.
    """
    settings = settings or {}
    if name == "ray":
        from quanta_bench.launchers.ray_cluster import RayLauncher, RaySettings

        return RayLauncher(_settings(RaySettings, name, settings), workers, say)
    if name == "slurm":
        from quanta_bench.launchers.slurm import SlurmLauncher, SlurmSettings

        return SlurmLauncher(_settings(SlurmSettings, name, settings), workers, say)
    if name != LOCAL:
        raise UsageError(f"There is no launcher {name!r}. {did_you_mean(name, LAUNCHERS)}")
    if workers is not None or settings:
        flag = "--launcher-set" if settings else "--workers"
        raise UsageError(f"{flag} needs --launcher ray or slurm; here, --jobs sets how many runs.")
    return None


def _settings(kind: type[S], launcher: str, values: Mapping[str, Any]) -> S:
    for key in values:
        if key not in kind.model_fields:
            near = did_you_mean(key, kind.model_fields)
            raise UsageError(f"The launcher {launcher!r} has no setting {key!r}. {near}")
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError(f"--launcher-set {problems(error)}") from error
