"""A real Slurm on this machine: munged, slurmctld and slurmd on loopback, in a folder of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo")
START_SECONDS = 300


def missing() -> str | None:
    """Why no Slurm can be started here; None if one can."""
    absent = [name for name in PROGRAMS if _path(name) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)} not found; Debian: apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "starting Slurm's daemons needs root"
    return None


def _path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SlurmCluster:
    """One node with the given cores. Use as a context manager; `environment` makes sbatch and its kin talk to it.

    Args:
        folder: empty; must be reachable for the user munge (no component closed to others).
        cpus: of the node; may be more than the machine has.
        max_array_size: Slurm's MaxArraySize: one more than the highest index of an array.
    """

    def __init__(self, folder: Path, cpus: int = 2, max_array_size: int = 1001) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self._write(cpus, max_array_size)
        self._daemons: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.conf)}

    def _write(self, cpus: int, max_array_size: int) -> None:
        host = socket.gethostname().split(".")[0]
        state, spool, munge = (self.folder / name for name in ("state", "spool", "munge"))
        for path in (state, spool, munge):
            path.mkdir(mode=0o755)
        settings = {
            "ClusterName": "test",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={munge / 'socket'}",
            "SlurmctldPort": _free_port(),
            "SlurmdPort": _free_port(),
            "StateSaveLocation": state,
            "SlurmdSpoolDir": spool,
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd.pid",
            "SlurmctldLogFile": self.folder / "slurmctld.log",
            "SlurmdLogFile": self.folder / "slurmd.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "SchedulerParameters": "sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0",
            "MaxArraySize": max_array_size,
            "MinJobAge": 300,
            "ReturnToService": 2,
            "MpiDefault": "none",
            "SlurmdParameters": "config_overrides",
            "NodeName": f"{host} NodeAddr=127.0.0.1 NodeHostname={host} CPUs={cpus} RealMemory=20000 State=UNKNOWN",
            "PartitionName": f"cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP",
        }
        self.conf.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (self.folder / "cgroup.conf").write_text("")

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        munge = self.folder / "munge"
        user = pwd.getpwnam("munge")
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        munge.chmod(0o711)
        for path in (munge, munge / "key"):
            os.chown(path, user.pw_uid, user.pw_gid)
        options = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        arguments = [f"--{name}={munge / file}" for name, file in options.items()]
        self._daemon([_path("munged") or "", "--foreground", *arguments], user.pw_uid)
        self._wait(lambda: (munge / "socket").exists(), "munged's socket")
        for name in ("slurmctld", "slurmd"):
            self._daemon([_path(name) or "", "-D", "-f", str(self.conf)])
        self._wait(lambda: "idle" in self.call("sinfo", "--noheader", "--format=%T"), "the node")

    def _daemon(self, command: list[str], user: int | None = None) -> None:
        with (self.folder / f"{Path(command[0]).name}.out").open("w") as out:
            self._daemons.append(subprocess.Popen(command, stdout=out, stderr=out, user=user))

    def _wait(self, ready: object, what: str) -> None:
        assert callable(ready)
        end = time.monotonic() + START_SECONDS
        while not ready():
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in self._daemons):
                logs = "\n".join(path.read_text(errors="replace")[-800:] for path in self.folder.glob("*.out"))
                raise RuntimeError(f"Slurm did not start: no sign of {what}\n{logs}")
            time.sleep(0.2)

    def call(self, *command: str) -> str:
        """Output of one of Slurm's commands, "" if it fails."""
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, timeout=300)
        return done.stdout if done.returncode == 0 else ""

    def __exit__(self, *_: object) -> None:
        if len(self._daemons) == 3:
            self.call("scancel", "--user=root", "--full")
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
