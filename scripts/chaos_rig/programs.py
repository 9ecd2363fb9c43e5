"""Processes of the project: started, stopped, killed, and started again with the same settings."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from app.local.child import dying_with_parent

ROOT = Path(__file__).resolve().parents[2]
#: Seconds after which a process that does not start or exit is given up.
PATIENCE = 60.0


class RigError(Exception):
    """The run cannot go on; the text says why."""


class Program:
    """One process of `python -m app`. What it says goes to `log`."""

    def __init__(
        self,
        name: str,
        command: str,
        *,
        environ: Mapping[str, str],
        log: Path,
        ready: Callable[[], Awaitable[bool]],
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environ = dict(environ)
        self._ready = ready
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not exited."""
        return self._process is not None and self._process.returncode is None

    async def start(self, **more: str) -> None:
        """Start it, with some environment more, and wait until it serves. Raises `RigError`."""
        command: Sequence[str] = dying_with_parent(
            (sys.executable, "-m", "app", self._command), signal_number=signal.SIGKILL
        )
        ours = {name: value for name, value in os.environ.items() if "SCAIMIND" not in name}
        with self.log.open("ab") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=ROOT,
                env={**ours, **self._environ, **more},
            )
        async with asyncio.timeout(PATIENCE):
            while not await self._ready():
                if not self.running:
                    raise RigError(f"{self.name} did not start, see {self.log}")
                await asyncio.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def exited(self) -> int:
        """Wait until it has exited; its status. Raises `RigError` if it does not."""
        assert self._process is not None
        try:
            async with asyncio.timeout(PATIENCE):
                status = await self._process.wait()
        except TimeoutError:
            raise RigError(f"{self.name} did not exit within {PATIENCE:g} s") from None
        _forget_clock(self._process.pid)
        return status

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the exit; its status."""
        if self.running:
            self.send(number)
        return await self.exited()


def _forget_clock(pid: int) -> None:
    """Remove what libfaketime shared of a process that has ended: a killed one leaves it."""
    for name in ("faketime_shm_", "sem.faketime_sem_"):
        Path(f"/dev/shm/{name}{pid}").unlink(missing_ok=True)


async def accepts(port: int) -> bool:
    """Return whether something listens on a port of the loopback."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
