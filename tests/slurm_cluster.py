"""A SLURM of one node, from Debian's packages, that a test starts and ends."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "scontrol")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=2
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no SLURM can be started here; empty if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"SLURM is not installed: there is no {missing[0]} (apt install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "SLURM's node daemon has to be started by root"


class SlurmCluster:
    """Starts the daemons, and ends them.

    Args:
        folder: for their files, with a path short enough for a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> SlurmCluster:
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=host,
                user="root",
                folder=self.folder,
                controller_port=_free_port(),
                node_port=_free_port(),
            )
        )
        munge = {name: self.folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        try:
            self._start(
                "munged", "--force", "--foreground", f"--key-file={key}",
                f"--socket={munge['socket']}", f"--pid-file={munge['pid']}",
                f"--log-file={munge['log']}", f"--seed-file={munge['seed']}",
            )  # fmt: skip
            self._until(munge["socket"].exists)
            self._start("slurmctld", "-D", "-c")
            self._start("slurmd", "-D", "-N", host)
            self._until(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *words: str) -> str:
        """What one of SLURM's commands prints, or an empty text if it fails."""
        done = subprocess.run(
            words, env=self._environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout if done.returncode == 0 else ""

    @property
    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, **self.variables}

    def _start(self, *words: str) -> None:
        with (self.folder / f"{words[0]}.out").open("wb") as log:
            self._daemons.append(
                subprocess.Popen(words, env=self._environment, stdout=log, stderr=log)
            )

    def _until(self, ready: object, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not ready():  # type: ignore[operator]
            ended = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            logs = "\n".join(path.read_text() for path in self.folder.glob("*.out"))
            if ended or time.monotonic() > end:
                raise RuntimeError(f"SLURM did not start: {ended}\n{logs}")
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
