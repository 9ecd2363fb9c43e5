"""A child that is kept running, and ends with its parent."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.local import child as service_module
from app.local.child import Service, dying_with_parent, last_line
from app.local.data_dir import CannotStart

PATIENCE = 60.0

SAY_AND_WAIT = "import signal, sys; print('here', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('here', flush=True)\n" + (
    "while True: signal.pause()"
)


class Bench:
    """Makes services whose lines are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self._holding, self._other = os.pipe()

    def close(self) -> None:
        os.close(self._holding)
        os.close(self._other)

    def service(self, script: str, grace: float = PATIENCE) -> Service:
        return Service(
            name="The program",
            command=(sys.executable, "-c", script),
            environ=os.environ,
            folder=self.folder,
            log=self.folder / "program.log",
            tell=self.said.append,
            grace=grace,
            holding=self._holding,
        )

    async def log_has(self, text: str, times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE):
            while (self.folder / "program.log").read_text().count(text) < times:  # noqa: ASYNC110  # another process writes it
                await asyncio.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


async def test_it_is_stopped_with_its_signal(bench: Bench) -> None:
    service = bench.service(SAY_AND_WAIT)
    await service.start()
    await bench.log_has("here")
    assert service.running
    service.check()
    await service.stop()
    assert not service.running
    assert bench.said == []


async def test_what_does_not_listen_is_killed(bench: Bench) -> None:
    service = bench.service(STUBBORN, grace=0.1)
    await service.start()
    await bench.log_has("here")
    await service.stop()
    assert not service.running
    assert bench.said == ["The program did not stop within 0.1 s; killing it"]


async def test_a_death_at_the_start_is_told_with_the_last_words(bench: Bench) -> None:
    service = bench.service("raise SystemExit('no such luck')")
    await service.start()
    async with asyncio.timeout(PATIENCE):
        while service.running:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.01)
    with pytest.raises(CannotStart, match=r"exited with status 1 during startup: no such luck"):
        service.check()


async def test_it_is_started_again_until_it_is_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "SHORTEST_PAUSE", 0.01)
    service = bench.service("import sys; print('here', flush=True); sys.exit(3)")
    await service.start()
    keeping = asyncio.create_task(service.keep())
    await bench.log_has("here", times=3)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    await service.stop()
    pauses = [line.partition(" s ")[0].rpartition(" ")[2] for line in bench.said]
    assert pauses[:2] == ["0.01", "0.02"]
    assert bench.said[0].startswith("The program exited with status 3; restarting")


async def test_a_log_is_bounded_while_it_is_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "LOG_BYTES", 3)
    service = bench.service(SAY_AND_WAIT + "; " + SAY_AND_WAIT.replace("here", "there"))
    service.log.write_text("before\n")
    await service.start()
    await bench.log_has("here")
    assert (bench.folder / "program.log.1").read_text() == "before\n"
    service.trim_log()
    assert service.log.read_text() == ""
    await service.stop()


def test_a_child_does_not_outlive_its_starter(tmp_path: Path) -> None:
    starter = (
        "import subprocess, sys, signal\n"
        "from app.local.child import dying_with_parent\n"
        f"command = (sys.executable, '-c', {SAY_AND_WAIT!r})\n"
        "child = subprocess.Popen(dying_with_parent(command, signal_number=signal.SIGTERM),\n"
        "                         stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        (sys.executable, "-c", starter), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.kill()
    assert psutil.wait_procs([child], timeout=PATIENCE)[1] == []


def test_a_child_whose_starter_is_gone_does_not_begin(tmp_path: Path) -> None:
    command = list(dying_with_parent(("/bin/echo", "hello"), signal_number=signal.SIGTERM))
    command[command.index(str(os.getpid()))] = "1"
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
@pytest.mark.parametrize(("user", "can_pass"), [("65534:65534", False), ("65534:65534+", True)])
def test_another_user_passes_closed_directories_only_if_let(
    tmp_path: Path, user: str, can_pass: bool
) -> None:
    def run(*command: str) -> str:
        return subprocess.run(
            dying_with_parent(command, signal_number=signal.SIGTERM, user=user),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        ).stdout

    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "open").mkdir(mode=0o755)
    file = closed / "open" / "file"
    file.write_text("content")
    assert run("/usr/bin/id", "-u") == "65534\n"
    assert (run("/bin/cat", str(file)) == "content") is can_pass
    # access(2) has rules of its own.
    ask = f"import os; print(os.access({str(file)!r}, os.R_OK))"
    assert (run(sys.executable, "-I", "-c", ask) == "True\n") is can_pass
    # Nothing but the one capability is left.
    capabilities = run("/bin/grep", "CapEff", "/proc/self/status").split()[1]
    assert int(capabilities, 16) == (0b10 if can_pass else 0)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", "the log is empty"),
        ("first\nlast\n\n", "last"),
        ("Error: no port\n", "no port"),
        ('{"event": "gateway_stopped", "level": "info"}\n', "gateway_stopped"),
        ('{"level": "info"}\n', '{"level": "info"}'),
        ("12\n", "12"),
    ],
)
def test_the_last_words(tmp_path: Path, log: str, line: str) -> None:
    (tmp_path / "log").write_text(log)
    assert last_line(tmp_path / "log") == line


def test_no_log_no_words(tmp_path: Path) -> None:
    assert last_line(tmp_path / "log") == "there is no log"
