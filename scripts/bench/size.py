"""Prints how soon the gateway answers, and what the programs of one machine hold while idle.

    sudo .venv/bin/python -m scripts.bench.size
    sudo .venv/bin/python -m scripts.bench.size --rounds 9 --settle 10

The start is `python -m app serve` until `/health` answers, without a database or a
coordinator, beside a process that only imports the gateway: in turns, medians. The
gateway's memory (RSS) is compared with a process that imports the same modules of
others. The stack is `python -m app up` in a directory of its own, read when it has
been idle for a while; its memory is PSS, in which what several processes share counts
once. Root is needed, since these programs close their memory's figures to their own
user. What was started is stopped.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.cli.main import OF_LOGGER
from app.local.ports import free_port

PROJECT = Path(__file__).parents[2]
#: Seconds within which a program has to be ready.
PATIENCE = 300.0
#: Bounds: a start in times of its imports, and MB.
MOST_STARTS = 2.0
MOST_ABOVE = 25.0
MOST_STACK = 250.0

#: Imports what the gateway imports of others, and prints how much that is.
_BASELINE = """
import importlib, sys
without, *names = sys.argv[1:]
sys.modules |= dict.fromkeys(without.split())
for name in names:
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # A part that only its package can import; it is counted as the package's.
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""
_GATEWAY = """
import sys
from app.cli.main import OF_LOGGER
from app.cli.optional_packages import without
with without(*OF_LOGGER):
    import app.gateway.run
"""
_LIST = f"{_GATEWAY}\nprint(*(m for m in sys.modules if m.partition('.')[0] not in {{!r}}))"
_OURS = ("app", "generated", "__main__")


def main() -> int:
    """Print the table; 1 if a figure is above what it may be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="starts of the gateway")
    parser.add_argument("--settle", type=float, default=5, help="seconds before memory is read")
    given = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("run it as root: the programs close their memory's figures to their own user")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    good = _report_gateway(given.rounds, given.settle)
    return int(not (_report_stack(given.settle) and good))


@dataclass(frozen=True, slots=True)
class Start:
    """A start of the gateway until it answers, beside a process that imports the same."""

    seconds: float
    cpu: float
    imports: float
    cpu_of_imports: float
    #: Its memory (RSS) after it settled, in MB.
    rss: float


def start(*, settle: float = 0.0) -> Start:
    """Start a gateway, and import its modules. Seconds; `settle` before its memory is read."""
    with _gateway() as (process, seconds, cpu):
        time.sleep(settle)
        rss = process.memory_info().rss / 1e6
    began, before = time.perf_counter(), os.times()
    _python(_GATEWAY)
    imports = time.perf_counter() - began
    after = os.times()
    cpu_of_imports = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return Start(seconds, cpu, imports, cpu_of_imports, rss)


def imported() -> float:
    """RSS of a process that imports what the gateway imports of others, in MB."""
    modules = _python(_LIST.format(_OURS)).split()
    return int(_python(_BASELINE, " ".join(OF_LOGGER), *modules)) / 1e6


def _report_gateway(rounds: int, settle: float) -> bool:
    starts = [start(settle=settle if turn == rounds - 1 else 0.0) for turn in range(rounds)]
    rss, baseline = starts[-1].rss, imported()
    seconds, cpu, imports, cpu_of_imports = (
        statistics.median(getattr(each, name) for each in starts)
        for name in ("seconds", "cpu", "imports", "cpu_of_imports")
    )
    print("\n| gateway | | beside it | |")
    print("|---|---|---|---|")
    print(
        f"| `/health` answers after | {seconds:.2f} s, {cpu:.2f} s of CPU "
        f"| its imports alone: {imports:.2f} s, {cpu_of_imports:.2f} s of CPU "
        f"| {seconds / imports:.2f} times (at most {MOST_STARTS:g}) |"
    )
    print(
        f"| idle | {rss:.1f} MB RSS | the same imports of others: {baseline:.1f} MB "
        f"| {rss - baseline:.1f} MB more (at most {MOST_ABOVE:g}) |"
    )
    return seconds / imports <= MOST_STARTS and rss - baseline <= MOST_ABOVE


def stack(*, settle: float = 0.0) -> float:
    """PSS of an idle stack, in MB."""
    with _stack() as supervisor:
        time.sleep(settle)
        return sum(pss for _, pss, _ in _table(supervisor).values())


def _table(supervisor: psutil.Process) -> dict[str, tuple[int, float, float]]:
    """By program of a stack: its processes, and their PSS and RSS in MB."""
    table: dict[str, tuple[int, float, float]] = {}
    for each in (supervisor, *supervisor.children(recursive=True)):
        # PostgreSQL's workers come and go.
        with suppress(psutil.NoSuchProcess):
            name, memory = _name(each), each.memory_full_info()
            count, pss, rss = table.get(name, (0, 0.0, 0.0))
            table[name] = (count + 1, pss + memory.pss / 1e6, rss + memory.rss / 1e6)
    return table


def _report_stack(settle: float) -> bool:
    with _stack() as supervisor:
        time.sleep(settle)
        table = _table(supervisor)
        with _gateway() as (second, _seconds, _cpu):
            time.sleep(settle)
            further = second.memory_full_info()
    print("\n| program of the stack | processes | PSS, MB | RSS, MB |")
    print("|---|---|---|---|")
    for name, (count, pss, rss) in table.items():
        print(f"| {name} | {count} | {pss:.1f} | {rss:.1f} |")
    total = sum(pss for _, pss, _ in table.values())
    print(f"| all of it | | {total:.1f} (at most {MOST_STACK:g}) | |")
    print(f"| a second gateway | 1 | {further.pss / 1e6:.1f} more | {further.rss / 1e6:.1f} |")
    return total <= MOST_STACK


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    return f"app {words[3]}" if words[1:3] == ["-m", "app"] else "PostgreSQL"


@contextmanager
def _gateway() -> Iterator[tuple[psutil.Process, float, float]]:
    """A gateway that answers, with the seconds and the CPU time that it took to."""
    port = free_port("127.0.0.1", 0)
    environ = _environ(
        {
            "SCAIMIND_DATABASE_DSN": "postgresql://nobody@127.0.0.1:1/nothing",
            "SCAIMIND_UPSTREAM_ADDRESS": "127.0.0.1:1",
            "SCAIMIND_UPSTREAM_API_SECRET": "an-api-secret",
            "SCAIMIND_PORT": str(port),
        }
    )
    began = time.perf_counter()
    with _ending(
        subprocess.Popen(
            (sys.executable, "-m", "app", "serve"),
            env=environ,
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            text=True,
        )
    ) as process:
        while True:
            if time.perf_counter() - began > PATIENCE or process.poll() is not None:
                raise SystemExit("the gateway did not answer")
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5),
            ):
                break
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        observed = psutil.Process(process.pid)
        cpu = observed.cpu_times()
        yield observed, seconds, cpu.user + cpu.system


@contextmanager
def _stack() -> Iterator[psutil.Process]:
    """A stack that is ready, in a directory of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="size-") as folder,
        _ending(
            subprocess.Popen(
                (sys.executable, "-m", "app", "up"),
                env=_environ(
                    {
                        "SCAIMIND_DATA_DIR": str(Path(folder) / "var"),
                        "SCAIMIND_PORT": "0",
                        "SCAIMIND_NO_PROFILE": "1",
                    }
                ),
                cwd=PROJECT,
                stdout=subprocess.PIPE,
                text=True,
            )
        ) as process,
    ):
        assert process.stdout is not None
        # Its stdout ends with it.
        late = threading.Timer(PATIENCE, process.terminate)
        late.start()
        try:
            if not any(line.startswith("Ready: ") for line in process.stdout):
                raise SystemExit("the stack did not start")
        finally:
            late.cancel()
        yield psutil.Process(process.pid)


@contextmanager
def _ending(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """Stop a program at the end, and wait until it did."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        if process.stdout is not None:
            process.stdout.close()
        process.wait()


def _python(script: str, *arguments: str) -> str:
    done = subprocess.run(
        (sys.executable, "-c", script, *arguments),
        env=_environ({}),
        cwd=PROJECT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def _environ(settings: Mapping[str, str]) -> Mapping[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SCAIMIND_")}
    return {**inherited, **settings}


if __name__ == "__main__":
    sys.exit(main())
