"""A coordinator in a process of its own, for tests that run hostile scripts on it."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from tests.coordinator.harness import SECRET, Client, client_of, own_uids
from tests.secrecy import written, written_files

#: Who means harm.
HOSTILE: Final = "mallory"
#: Somebody else on the same machine.
NEIGHBOUR: Final = "alice"
#: Seconds within which a coordinator has to start or to stop.
PATIENCE: Final = 120.0

#: Starts a coordinator and prints its port.
_PROGRAM: Final = """
import asyncio, os, sys
from app.coordinator import BadConfig, CoordinatorConfig, serve
try:
    config = CoordinatorConfig.from_env(os.environ)
    asyncio.run(serve(config, ready=lambda port: print("port", port, file=sys.stderr, flush=True)))
except BadConfig as error:
    sys.exit(str(error))
"""


class CannotStart(Exception):
    """The coordinator did not start; the message is what it said."""


class Machine:
    """A data directory, and the coordinator that runs on it now."""

    def __init__(
        self,
        path: Path,
        *,
        code: Path | None = None,
        within: Sequence[str] = (),
        **settings: str,
    ) -> None:
        """`code` is the folder whose `app` is run, this project unless given; `within` is a
        command that becomes the one behind it; `settings` are the coordinator's, by the ends of
        their variables in small letters."""
        self.path = path
        self.code = code or Path.cwd()
        self.within = tuple(within)
        # A program of before knows no such setting.
        uids = {} if code else {"job_uids": str(own_uids())}
        self.settings = {**uids, **settings}
        self.log_file = path.with_name(path.name + ".log")
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        #: A folder that is not there, on the PATH of all that descends from this coordinator:
        #: other tests have coordinators of their own on the same machine.
        self.mark = f"{path}.mark"

    @property
    def drive(self) -> Path:
        """The local ScaiDrive."""
        return self.path / "drive"

    def start(self) -> None:
        """Start a coordinator, and wait until it listens. Raises CannotStart."""
        with open(self.log_file, "ab") as log:
            before = log.tell()
            self.process = subprocess.Popen(
                [*self.within, sys.executable, "-c", _PROGRAM],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.PIPE,
                cwd=self.code,
                env={
                    **{name: value for name, value in os.environ.items() if "SCAIMIND" not in name},
                    "PATH": os.environ.get("PATH", os.defpath) + os.pathsep + self.mark,
                    "PYTHONPATH": str(self.code),
                    "SCAIMIND_COORDINATOR_DATA_DIR": str(self.path),
                    "SCAIMIND_COORDINATOR_API_SECRET": SECRET,
                    "SCAIMIND_COORDINATOR_ADDRESS": "127.0.0.1:0",
                    "SCAIMIND_COORDINATOR_STOP_GRACE": "5",
                    "SCAIMIND_COORDINATOR_CPUS": "4",
                    **{
                        f"SCAIMIND_COORDINATOR_{name.upper()}": value
                        for name, value in self.settings.items()
                    },
                },
            )
        self.port = self._await_port(before)

    def _await_port(self, before: int) -> int:
        """The port, once it is told. Raises CannotStart."""
        assert self.process is not None
        assert self.process.stderr is not None
        said = b""
        with self.process.stderr as errors:
            while select.select([errors], [], [], PATIENCE)[0]:
                piece = os.read(errors.fileno(), 65536)
                said += piece
                for line in said.split(b"\n")[:-1]:
                    if line.startswith(b"port "):
                        return int(line.split()[1])
                if not piece:
                    break
        self.process.kill()
        self.process.wait()
        self.process = None
        raise CannotStart(said.decode() or self.log(before))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the coordinator a signal and wait until it is gone; the status that it left."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None

    def restart(self) -> None:
        """Stop as an operator does, and start again on the same directory."""
        assert self.stop() == 0, self.log()[-4000:]
        self.start()

    def log(self, before: int = 0) -> str:
        """What the coordinators on this directory logged, but for the first bytes."""
        return self.log_file.read_bytes()[before:].decode("utf-8", "replace")

    @asynccontextmanager
    async def client(self, tenant: str = HOSTILE) -> AsyncIterator[Client]:
        """Calls as a tenant."""
        async with client_of(self.port, self.drive, tenant) as client:
            yield client


@contextmanager
def machine_on(
    path: Path, *, code: Path | None = None, within: Sequence[str] = (), **settings: str
) -> Iterator[Machine]:
    """A running machine; at the end its coordinator must stop cleanly. Raises CannotStart."""
    machine = Machine(path, code=code, within=within, **settings)
    try:
        machine.start()
        yield machine
        if machine.process is not None:
            assert machine.stop() == 0, machine.log()[-4000:]
    finally:
        if machine.process is not None:
            machine.process.kill()
            machine.process.wait()
        if machine.log_file.exists():
            written("coordinator", machine.log_file.read_bytes())
        if path.exists():
            written_files(path)
            # Whatever jobs left there: pytest could not remove directories of any depth.
            subprocess.run(["rm", "-rf", path], check=True)
