"""Workers on Ray: a task for each training, with the resources that its model needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from quanta_bench.errors import BenchError, OutOfMemoryError
from quanta_bench.launchers.launch import Patience, last_line
from quanta_bench.launchers.order import Order
from quanta_bench.launchers.worker import work
from quanta_bench.runs.concurrency import available_resources
from quanta_bench.runs.estimates import peak_memory
from quanta_bench.runs.schedule import PendingRun
from quanta_bench.utils.settings import StrictModel

GIB = 2**30

GRACE_SECONDS = 10.0
"""What interrupted workers get to give their leases back, before they are killed."""


class RaySettings(StrictModel):
    """What a user sets of Ray.

    Attributes:
        address: of a cluster, such as auto or ray://HEAD:10001; empty for RAY_ADDRESS or, without
            it, a cluster on this machine that ends with the command.
        cpus: CPU cores, and threads, of a run.
        gpus: GPUs of a run; null for one if the cluster has any.
        memory: main memory of a run in GiB; null for what its model is predicted to need.
    """

    address: str = ""
    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0)] | None = None
    memory: Annotated[float, Field(gt=0)] | None = None


class RayLauncher:
    """Starts workers on Ray.

    Args:
        settings: what the user sets.
        workers: the most workers at once; ``None`` for as many as the cluster has room for.
        say: tells the user something.
    """

    def __init__(
        self, settings: RaySettings, workers: int | None, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._workers = workers
        self._say = say
        self._gpus = 0.0
        self._own = False

    @property
    def threads(self) -> int:
        """CPU threads of a worker."""
        return self._settings.cpus

    @property
    def dtype(self) -> str | None:
        """The dtype of GPUs that Ray is used with; ``None`` without."""
        return "bfloat16" if self._gpus else None

    def connect(self) -> None:
        """Connect to a cluster, or start one on this machine.

        Raises:
            BenchError: Ray is not installed, or there is no cluster at the address.
        """
        # Ray reports to its makers by default.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise BenchError(
                "The launcher ray needs a package: pip install 'quanta-bench[ray]'."
            ) from None
        address = self._settings.address or os.environ.get("RAY_ADDRESS") or "local"
        self._own = address == "local"
        options: dict[str, Any] = {}
        if self._own:
            asked = (self._workers or 0) * self._settings.cpus
            cores = max(asked, available_resources().cores)
            options = {"num_cpus": cores, "include_dashboard": False}
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise BenchError(f"There is no Ray cluster at {address!r}: {error}") from error
        wanted = self._settings.gpus
        self._gpus = float(any("GPU" in node for node in _nodes())) if wanted is None else wanted

    def launch(self, order: Order, runs: Sequence[PendingRun]) -> RayWorkers:
        """Prepare to compute an order.

        Raises:
            BenchError: this machine is not large enough for a run.
        """
        needs = [self._need(runs[batch[0]]) for batch in order.batches]
        for batch, need in zip(order.batches, needs, strict=True):
            lack = lack_of_room(runs[batch[0]].name, need)
            if lack and self._own:
                raise BenchError(lack)
            if lack:
                # A cluster that grows by itself may get such a node.
                self._say(f"{lack} Waiting for one.")
                break
        return RayWorkers(order, needs, self._workers or len(needs))

    def close(self) -> None:
        """Disconnect; a cluster of this command ends."""
        import ray

        ray.shutdown()

    def _need(self, run: PendingRun) -> dict[str, float]:
        """The resources of a run, as Ray's options name them."""
        need: dict[str, float] = {"num_cpus": self._settings.cpus, "num_gpus": self._gpus}
        given = self._settings.memory
        memory = peak_memory(run.planned) if given is None else given * GIB
        if memory is not None:
            need["memory"] = int(memory)
        return need


def _nodes() -> list[dict[str, float]]:
    """The resources of each node."""
    import ray

    nodes: Any = ray.nodes
    return [node["Resources"] for node in nodes() if node["Alive"]]


def lack_of_room(name: str, need: Mapping[str, float]) -> str:
    """What to say of a run that is too large for every node that is there; empty if it is not.

    Args:
        name: the run's.
        need: its resources, as Ray's options name them.
    """
    keys = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    if any(all(node.get(keys[k], 0) >= n for k, n in need.items()) for node in _nodes()):
        return ""
    wanted = f"{need['num_cpus']:g} CPUs, {need['num_gpus']:g} GPUs"
    if "memory" in need:
        wanted += f" and {need['memory'] / GIB:.1f} GiB of memory"
    return (
        f"{name} needs {wanted}, which no node of the Ray cluster has. --launcher-set cpus=, gpus= "
        "and memory= (in GiB) set other needs."
    )


class RayWorkers:
    """The tasks of an order.

    Args:
        order: the order.
        needs: the resources of each of its batches, as Ray's options name them.
        most: how many tasks there are at once.
    """

    def __init__(self, order: Order, needs: Sequence[dict[str, float]], most: int) -> None:
        import ray

        self._order = order
        self._needs = needs
        self._most = most
        self._tasks: dict[Any, int] = {}
        self._patience = Patience()
        # Another worker is started here, where it can be counted, not by Ray.
        self._work: Any = ray.remote(max_retries=0)(work)

    def __str__(self) -> str:
        return f"{len(self._tasks)} tasks on Ray"

    def supply(self, free: Sequence[int], left: int, progress: int) -> None:
        """Start a task for each free batch that has none.

        Raises:
            BenchError: tasks end and compute nothing.
        """
        lost = self._collect()
        live = set(self._tasks.values())
        started = [number for number in free if number not in live]
        started = started[: max(0, self._most - len(live))]
        if started and lost:
            self._patience.started(progress)
        for number in started:
            task = self._work.options(**self._needs[number])
            self._tasks[task.remote(self._order.folder, batch=number)] = number

    def stop(self) -> None:
        """Interrupt the tasks, then kill those that go on."""
        import ray

        if not self._tasks or not ray.is_initialized():
            return
        tasks = list(self._tasks)
        for task in tasks:
            ray.cancel(task)
        _, going = ray.wait(tasks, num_returns=len(tasks), timeout=GRACE_SECONDS)
        for task in going:
            ray.cancel(task, force=True)
        self._tasks.clear()

    def _collect(self) -> int:
        """Take tasks that have ended off the list; returns how many of them went wrong."""
        import ray

        tasks = list(self._tasks)
        if not tasks:
            return 0
        ended, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        lost = 0
        for task in ended:
            number = self._tasks.pop(task)
            try:
                ray.get(task)
            except ray.exceptions.OutOfMemoryError as error:
                lost += 1
                self._ran_out(number, error)
            except ray.exceptions.RayError as error:
                lost += 1
                self._patience.problem = f"The last one said: {_last_words(error)}"
        return lost

    def _ran_out(self, number: int, error: Exception) -> None:
        """A node had no memory left: as where the run itself finds out, it is tried once more."""
        for run in self._order.batches[number]:
            name = self._order.runs[run].run
            if self._order.ledger.history(name).going:
                self._order.ledger.fail(name, OutOfMemoryError(_last_words(error)))
                return


def _last_words(error: Exception) -> str:
    return last_line(str(error)) or type(error).__name__
