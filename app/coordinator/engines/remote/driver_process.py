"""The driver's process: started, watched, and started again when it ends."""

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson
import structlog

from app.coordinator.failures import FailureBackoff
from app.tasks.ending import end_all

#: Seconds until a driver must listen; connecting to a cluster may take long.
_START: Final = 120.0
#: Seconds until a driver that is asked to leave is killed.
_LEAVE: Final = 5.0
#: Bytes of what drivers write on stderr that are kept, and seconds between two looks at it.
_ERRORS: Final = 1024 * 1024
_LOOK: Final = 60.0
#: Characters of a line of a driver that is no line of a log.
_SAID: Final = 2000
#: Names of fields that a call of a logger has for itself.
_OWN: Final = frozenset({"self", "event", "exc_info", "stack_info"})
_LEVELS: Final = frozenset({"debug", "info", "warning", "error", "critical"})

log = structlog.get_logger("scaimind.coordinator")


class DriverRefused(Exception):
    """The driver cannot serve. The message says why."""


class DriverProcess:
    """Runs one driver at a time. Its end interrupts no run. What it logs on stdout, as lines of
    JSON, is logged here."""

    def __init__(
        self, module: str, *, settings: bytes, environment: Mapping[str, str], errors: Path
    ) -> None:
        """`settings` is the line that the driver is told what to do with; what it writes on stderr
        is appended to `errors`."""
        self._module = module
        self._settings = settings
        self._environment = environment
        self._errors = errors
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        #: Of the driver that lives.
        self._listening: asyncio.Task[None] | None = None
        #: How often a driver that had ended was started again.
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process id of the driver that lives; None while there is none."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it, and keep one running from then on. Raises DriverRefused, OSError."""
        process = await self._started()
        self._watching = asyncio.create_task(self._watch(process), name="engine driver")

    async def close(self) -> None:
        """End it."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._end()

    async def _started(self) -> asyncio.subprocess.Process:
        errors = await asyncio.to_thread(self._open_errors)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self._module),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(errors)
        self._process = process
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(self._settings)
            async with asyncio.timeout(_START):
                problem = await self._problem(process.stdout)
        except TimeoutError:
            await self._end()
            raise DriverRefused(f"it has not connected to the cluster in {_START:g} s") from None
        except (ValueError, KeyError, TypeError):
            # Whatever is printed there by what it imports.
            problem = f"it has not said whether it serves; see {self._errors}"
        except BaseException:
            await self._end()
            raise
        if problem:
            await self._end()
            raise DriverRefused(problem)
        assert process.stdout is not None
        # A pipe that nobody reads fills up, and holds up whoever writes there.
        self._listening = asyncio.create_task(
            _listen(process.stdout), name="what the engine's driver says"
        )
        return process

    async def _problem(self, output: asyncio.StreamReader) -> str:
        """Return why a driver does not serve; nothing once it does. What it logs before it says
        that is logged. Raises ValueError, KeyError, TypeError for what is neither."""
        while line := await output.readline():
            about = orjson.loads(line)
            if "event" not in about:
                problem: str = about["problem"]
                return problem
            _log(line)
        return f"it ended; see {self._errors}"

    def _open_errors(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self._errors, flags, 0o600)
        _bound(file)
        return file

    def _bound_errors(self) -> None:
        os.close(self._open_errors())

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        backoff = FailureBackoff()
        while True:
            status = await self._status_of(process)
            self._process = None
            await self._end_listening()
            self.restarts += 1
            log.error("engine_driver_ended", status=status, restarts=self.restarts)
            while True:
                try:
                    process = await self._started()
                except (DriverRefused, OSError) as error:
                    seconds = backoff.after_failure()
                    if backoff.worth_a_line:
                        log.error(
                            "engine_driver_not_started",
                            failures=backoff.failures,
                            reason=str(error),
                        )
                    await asyncio.sleep(seconds)
                else:
                    backoff.reset()
                    log.info("engine_driver_started", restarts=self.restarts)
                    break

    async def _status_of(self, process: asyncio.subprocess.Process) -> int:
        """Return how a driver ended; until then what it writes on stderr is bounded."""
        while True:
            try:
                async with asyncio.timeout(_LOOK):
                    return await process.wait()
            except TimeoutError:
                try:
                    await asyncio.to_thread(self._bound_errors)
                except OSError as error:
                    log.warning("engine_driver_errors_not_bounded", reason=error.strerror)

    async def _end_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            # What it had said is there, unless a process that it has left behind has its stdout.
            await asyncio.wait([listening], timeout=_LEAVE)
            await end_all([listening], expected=())

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            await self._end_listening()
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_LEAVE):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await self._end_listening()


def _bound(file: int) -> None:
    if os.fstat(file).st_size > _ERRORS:
        os.ftruncate(file, 0)


async def _listen(output: asyncio.StreamReader) -> None:
    """Log what a driver says, to its end."""
    while True:
        try:
            line = await output.readline()
        except ValueError:
            # Longer than any line of a log: what has come of it is dropped.
            continue
        if not line:
            return
        _log(line)


def _log(line: bytes) -> None:
    """Log a line as what it is in the driver's log."""
    try:
        about = orjson.loads(line)
        level, event = about.pop("level"), about.pop("event")
        about.pop("timestamp", None)
        if level not in _LEVELS or not isinstance(event, str):
            raise ValueError("it is no line of a log")
    except (ValueError, KeyError, TypeError, AttributeError):
        # Of a library, or of a part of the cluster.
        log.info("engine_driver_said", text=line[:_SAID].decode(errors="replace").rstrip())
    else:
        getattr(log, level)(event, **{key: about[key] for key in about if key not in _OWN})
