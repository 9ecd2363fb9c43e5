"""A Ray cluster on this machine: a head and workers on loopback addresses, with made-up GPUs."""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

#: 127.0.0.1 is rewritten by Ray. One address for each node.
HEAD: Final = "127.0.0.2"
#: Node deaths are seen within some 2 s; a node that is cut off gives up after 5 s.
_TUNED: Final = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "60",
}
_ROOT: Final = Path(__file__).parents[2]
#: Seconds for a process of Ray to start, on a machine that has other things to do.
_START: Final = 180.0


@dataclass
class RayCluster:
    """The processes of one cluster. They are ended by their ids, and no other Ray's."""

    python: Path
    #: Short: Ray's sockets are below it.
    directory: Path
    port: int
    #: Before the project on the PYTHONPATH of its processes, and of coordinators.
    paths: tuple[Path, ...] = ()
    #: Seconds that each took to start.
    started_in: dict[str, float] = field(default_factory=dict)
    #: Those that were started again.
    control_services: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{HEAD}:{self.port}"

    @property
    def token(self) -> Path:
        return self.directory / "token"

    @property
    def python_path(self) -> str:
        return os.pathsep.join(map(str, (*self.paths, _ROOT)))

    def start_head(self) -> None:
        self.token.write_text(secrets.token_hex(32))
        self.token.chmod(0o600)
        self._ray(
            "head",
            *("--head", "--node-ip-address", HEAD, "--port", str(self.port)),
            *("--include-dashboard", "false", "--num-cpus", "0", "--num-gpus", "0"),
            *("--ray-client-server-port", str(self.port + 1)),
            *("--temp-dir", str(self.directory / "t")),
        )

    def start_worker(self, number: int, *, gpus: int = 2, **environment: str) -> None:
        """Start `n<number>`, or start it again, with variables in place of the usual ones."""
        self._ray(
            f"n{number}",
            *("--address", self.address, "--node-ip-address", self.ip_of(number)),
            *("--num-cpus", "4", "--num-gpus", str(gpus)),
            *("--labels", f"scaimind/node=n{number},scaimind/gpu-type=A100-80GB"),
            **environment,
        )

    @staticmethod
    def ip_of(number: int) -> str:
        return f"127.0.0.{number + 2}"

    def raylet(self, number: int) -> psutil.Process:
        """The process that stands for a worker."""
        option = f"--node_ip_address={self.ip_of(number)}"
        return self._one(lambda words: words[0].endswith("raylet") and option in words)

    def control_service(self) -> psutil.Process:
        return self._one(lambda words: words[0].endswith("gcs_server"))

    def actors(self) -> list[psutil.Process]:
        """The processes of the runs' agents."""
        return [each for each in self.processes() if "AgentHost" in _title(each)]

    def end_actors(self) -> None:
        """End all agents."""
        left = self.actors()
        for each in left:
            with suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(left, timeout=30)

    def kill_worker(self, number: int) -> None:
        """Kill the process that stands for a node, and wait until what depends on it is gone."""
        raylet = self.raylet(number)
        raylet.kill()
        raylet.wait(30)

    def restart_control_service(self) -> None:
        """Kill it and start it again as it was."""
        self.kill_control_service()()

    def kill_control_service(self) -> Callable[[], None]:
        """Kill it; returns what starts it again as it was."""
        process = self.control_service()
        command, environment = process.cmdline(), process.environ()
        process.kill()
        process.wait(30)

        def start() -> None:
            with open(self.directory / "gcs.err", "ab") as errors:
                self.control_services.append(
                    subprocess.Popen(
                        command,
                        env=environment,
                        stdout=errors,
                        stderr=errors,
                        start_new_session=True,
                    )
                )

        return start

    def processes(self) -> list[psutil.Process]:
        """All that belong to this cluster: those whose commands name its folder or its address,
        and what they have started."""
        marks = (str(self.directory), self.address)
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            if any(mark in _title(process) for mark in marks):
                found[process.pid] = process
                with suppress(psutil.Error):
                    found |= {each.pid: each for each in process.children(recursive=True)}
        return list(found.values())

    def memory(self) -> int:
        """Bytes that all of them have for themselves, without those of runs."""
        total = 0
        for process in self.processes():
            with suppress(psutil.Error):
                total += process.memory_full_info().uss
        return total

    def close(self) -> None:
        """End them all."""
        for _ in range(10):
            left = self.processes()
            if not left:
                break
            for process in left:
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(left, timeout=5)
        for each in self.control_services:
            each.wait(30)

    def _one(self, wanted: "object") -> psutil.Process:
        assert callable(wanted)
        for process in self.processes():
            with suppress(psutil.Error):
                words = process.cmdline()
                if words and wanted(words):
                    return process
        raise AssertionError("there is no such process")

    def _ray(self, name: str, *arguments: str, **environment: str) -> None:
        began = time.monotonic()
        log = self.directory / f"{name}.out"
        with open(log, "ab") as output:
            done = subprocess.run(
                [
                    *(str(self.python.with_name("ray")), "start", *arguments),
                    *("--object-store-memory", "80000000", "--disable-usage-stats"),
                ],
                env={**self.environment(), **environment},
                stdout=output,
                stderr=output,
                timeout=_START,
                check=False,
            )
        assert done.returncode == 0, log.read_text(errors="replace")[-2000:]
        self.started_in[name] = time.monotonic() - began

    def environment(self) -> dict[str, str]:
        """What every process of Ray is given."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "PYTHONPATH": self.python_path,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_gcs_storage": "rocksdb",
            "RAY_gcs_storage_path": str(self.directory / "gcs"),
            **_TUNED,
        }


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def ray_python() -> Path:
    """Return the Python of an environment with Ray, which is made if it is not there."""
    if given := os.environ.get("SCAIMIND_TEST_RAY_PYTHON"):
        return Path(given)
    venv = [str(_ROOT / "scripts" / "venv"), "ray"]
    subprocess.run(venv, check=True, timeout=1500)
    path = subprocess.run([*venv, "--path"], check=True, capture_output=True, text=True)
    return Path(path.stdout.strip()) / "bin" / "python"


@contextmanager
def ray_cluster(
    python: Path, directory: Path, *, port: int, workers: int, paths: tuple[Path, ...] = ()
) -> Iterator[RayCluster]:
    """A head and so many workers."""
    cluster = RayCluster(python, directory, port, paths)
    try:
        cluster.start_head()
        for number in range(1, workers + 1):
            cluster.start_worker(number)
        yield cluster
    finally:
        cluster.close()
