"""A Slurm cluster of one node on this machine's loopback, without accounting, while a test runs."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENT = REPOSITORY / ".venv-slurm"
LOCK = REPOSITORY / "requirements-slurm.lock"
# proctrack/pgid and task/none ask nothing of cgroups, which a container may lack. The GPU has no
# device: Slurm counts it and hands it out like any other.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
KillWait=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=12000 Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why no cluster can be started here, or None."""
    needed = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
    if lacking := [name for name in needed if shutil.which(name) is None]:
        return f"not installed: {', '.join(lacking)} (`make system-deps`)"
    return None if os.geteuid() == 0 else "Slurm's daemons must be started as root"


def python():
    """The interpreter of an environment that has the executor and everything that this one has.

    Jobs are new processes that inherit only the interpreter, so it must find the executor itself.
    """
    interpreter = ENVIRONMENT / "bin/python"
    done = ENVIRONMENT / ".installed"
    if not done.exists() or done.read_text() != LOCK.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        pip = [interpreter, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "-r", LOCK], check=True)
        (packages,) = ENVIRONMENT.glob("lib/python*/site-packages")
        (packages / "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
        # Where pages find their templates.
        (ENVIRONMENT / "share").symlink_to(Path(sysconfig.get_path("data"), "share"))
        done.write_text(LOCK.read_text())
    return interpreter


def wait_for(what, met, seconds):
    """Look again and again until ``met()`` is true."""
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    folder: Path

    @property
    def environment(self):
        """The environment in which Slurm's commands speak with this cluster."""
        others = ("SNAKEMAKE", "PYTEST", "SLURM", "SBATCH", "PYTHONPATH")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
        path = f"{self.folder / 'bin'}{os.pathsep}{kept['PATH']}"
        return kept | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def ask(self, *command):
        """What a command of Slurm prints."""
        run = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
        return run.stdout

    def jobs(self, folder):
        """Slurm's records of all jobs submitted in a folder, in order, finished ones too."""
        shown = self.ask("scontrol", "show", "job", "--oneliner", "--details")
        records = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown.splitlines()]
        return [record for record in records if record.get("WorkDir") == str(folder)]

    @contextmanager
    def snakemake(self, folder, *arguments):
        """Start a run in ``folder`` through the profile; kill what is left of it at the end."""
        command = [python(), "-m", "snakemake", "--workflow-profile", "profiles/slurm"]
        # Looked at often, since these jobs take seconds.
        often = ["--slurm-init-seconds-before-status-checks", "1"]
        with (folder / "snakemake.log").open("w") as log:
            run = subprocess.Popen(
                [*command, *often, *arguments],
                cwd=folder, env=self.environment, stdout=log, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield run
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()


@contextmanager
def cluster(folder):
    """Start munge, a controller and a node in ``folder``; end them and all jobs afterwards."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    with socket.socket() as one, socket.socket() as other:  # ports that nobody listens on
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        ports = {"controller_port": one.getsockname()[1], "node_port": other.getsockname()[1]}
    configuration = CONFIGURATION.format(host=host, folder=folder, **ports).lstrip()
    (folder / "slurm.conf").write_text(configuration)
    # The executor takes SLURM_CONF away from the command that starts a job's process.
    wrapper = folder / "bin/srun"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n'
    )
    wrapper.chmod(0o755)
    (folder / "gres.conf").write_text("AutoDetect=off\nName=gpu File=/dev/null\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    started: list[subprocess.Popen[bytes]] = []
    running = Cluster(folder)

    def start(name, *arguments):
        with (folder / f"{name}.out").open("wb") as log:
            started.append(subprocess.Popen(
                [shutil.which(name) or name, *arguments],
                env=running.environment, stdout=log, stderr=log, start_new_session=True,
            ))  # fmt: skip

    def answers():
        with suppress(AssertionError):
            return running.ask("sinfo", "--noheader", "--format", "%T").strip() == "idle"

    try:
        # --force: the folder is closed to other users, of whom there are none.
        start(
            "munged", "--foreground", "--force", f"--key-file={key}",
            f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        wait_for("munge's socket", (folder / "munge.socket").exists, 60)
        start("slurmctld", "-D", "-f", f"{folder}/slurm.conf")
        start("slurmd", "-D", "-f", f"{folder}/slurm.conf")
        wait_for("an idle node", answers, 60)
        yield running
    finally:
        with suppress(AssertionError, TimeoutError):  # where the controller never answered
            running.ask("scancel", "--user=root")
            wait_for("an empty queue", lambda: not running.ask("squeue", "--noheader"), 60)
        for daemon in reversed(started):
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
