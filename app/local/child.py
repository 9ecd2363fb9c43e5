"""A child process that is kept running, and its log file.

Log files are bounded by copying and truncating, not by renaming: children write to
them directly, so that no supervisor, slow or dead, can block them.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.local import die_with_parent
from app.local.data_dir import CannotStart
from app.tasks.backoff import Backoff

#: A log file that has grown over so many bytes becomes `<name>.1`, and the old `.1` goes.
LOG_BYTES = 16 * 1024 * 1024
#: Seconds before a service that died is started again: the first time, and at most.
SHORTEST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
#: A service that ran for so many seconds is taken to have been well.
WELL_AFTER = 60.0


class Service:
    """One program of the stack: started, watched, started again, stopped.

    `stop_signal` asks the program to exit; what still runs `grace`
    seconds later is killed. It runs in a session of its own, so that Ctrl-C
    reaches the supervisor alone, which knows the order. `holding` is a
    descriptor that it inherits. `user` is as in `app.local.die_with_parent`.
    """

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        folder: Path,
        log: Path,
        tell: Callable[[str], None],
        grace: float,
        holding: int,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str = "-",
    ) -> None:
        self.name = name
        self.log = log
        self._command = tuple(command)
        self._environ = dict(environ)
        self._folder = folder
        self._tell = tell
        self._grace = grace
        self._holding = holding
        self._stop_signal = stop_signal
        self._user = user
        self._process: asyncio.subprocess.Process | None = None
        self._leaving = False

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process; it need not be ready when this returns."""
        self.trim_log()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *dying_with_parent(self._command, signal_number=self._stop_signal, user=self._user),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._environ,
                start_new_session=True,
                pass_fds=(self._holding,),
            )

    async def exited(self) -> None:
        """Wait until the process that was started last is gone."""
        if self._process is not None:
            await self._process.wait()

    def check(self) -> None:
        """Raise `CannotStart` with the end of the log if the process is gone."""
        if not self.running:
            raise CannotStart(
                f"{self.name} exited {self._how()} during startup: {last_line(self.log)} "
                f"(log: {self.log})"
            )

    async def keep(self) -> None:
        """Start the process again whenever it dies, until `stop`; a pause grows between deaths."""
        # Without jitter: there is nobody else who tries again.
        backoff = Backoff(shortest=SHORTEST_PAUSE, longest=LONGEST_PAUSE, jitter=0)
        while self._process is not None:
            began = time.monotonic()
            await self._process.wait()
            if self._leaving:
                return
            if time.monotonic() - began > WELL_AFTER:
                backoff.reset()
            pause = backoff.pause()
            self._tell(
                f"{self.name} exited {self._how()}; restarting in {pause:g} s (log: {self.log})"
            )
            await asyncio.sleep(pause)
            try:
                await self.start()
            except OSError as error:
                self._tell(f"{self.name} could not be started: {error.strerror}")

    async def stop(self) -> None:
        """Ask the process to exit, and wait until it did."""
        self._leaving = True
        if self._process is None or not self.running:
            return
        self._process.send_signal(self._stop_signal)
        try:
            async with asyncio.timeout(self._grace):
                await self._process.wait()
        except TimeoutError:
            self._tell(f"{self.name} did not stop within {self._grace:g} s; killing it")
            self._process.kill()
            await self._process.wait()

    def trim_log(self) -> None:
        """Bound the log file. It is copied and emptied: the process goes on writing to it."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            shutil.copyfile(self.log, f"{self.log}.1")
            os.truncate(self.log, 0)

    def _how(self) -> str:
        code = None if self._process is None else self._process.returncode
        if code is None:
            return "before it started"
        return f"with status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"


def dying_with_parent(
    command: Sequence[str], *, signal_number: signal.Signals, user: str = "-"
) -> tuple[str, ...]:
    """Command for a child that gets the signal when this process dies."""
    # Not -m: the user it may become cannot always read this package again.
    script = (sys.executable, "-I", "-S", die_with_parent.__file__)
    return (*script, str(os.getpid()), str(int(signal_number)), user, *command)


def last_line(log: Path) -> str:
    """Return the last message of a program's log: the event, if it writes JSON."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "there is no log"
    line = next((line.strip() for line in reversed(lines) if line.strip()), "the log is empty")
    try:
        record = json.loads(line)
        return str(record["event"])
    except (ValueError, TypeError, KeyError):
        return line.removeprefix("Error: ")
