"""A PostgreSQL that stands still or crashes, and connections to it that die without a word."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn


class SilentProxy:
    """Passes connections on to a server's Unix socket, until it is told to swallow them."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._tasks: set[asyncio.Task[None]] = set()
        #: Of each connection: cleared once what comes there goes nowhere.
        self._passing: list[asyncio.Event] = []
        #: Connections that were swallowed in the middle of something.
        self.swallowed = 0

    def swallow(self) -> None:
        """Have the connections of now stay open, and lead nowhere; later ones work."""
        passing, self._passing = self._passing, []
        for each in passing:
            each.clear()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        passing = asyncio.Event()
        passing.set()
        self._passing.append(passing)
        there, back = await asyncio.open_unix_connection(self._socket)
        ways = [
            asyncio.create_task(self._pass(reader, back, passing), name="to the database"),
            asyncio.create_task(self._pass(there, writer, passing), name="from the database"),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            for each in (writer, back):
                each.transport.abort()
            self._tasks.discard(task)

    async def close(self) -> None:
        """End all connections."""
        tasks = list(self._tasks)
        for each in tasks:
            each.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not passing.is_set():
                    self.swallowed += 1
                    continue
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def behind_a_proxy(dsn: str) -> AsyncIterator[tuple[str, SilentProxy]]:
    """A DSN of the same database by TCP, and what is between."""
    parts = parse_dsn(dsn)
    proxy = SilentProxy(f"{parts['host']}/.s.PGSQL.{parts.get('port', '5432')}")
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        # What is answered outlives a crash of the server: those of tests do without that.
        kept = "-c synchronous_commit=on"
        yield make_dsn(dsn, host="127.0.0.1", port=port, sslmode="disable", options=kept), proxy
    finally:
        server.close()
        await proxy.close()


@contextmanager
def standing_still(dsn: str) -> Iterator[None]:
    """All processes of the database's server are stopped meanwhile."""
    main = psutil.Process(_pid_of(dsn))
    # The first one makes no others then.
    stopped = [main]
    main.send_signal(signal.SIGSTOP)
    try:
        for each in main.children(recursive=True):
            stopped.append(each)
            each.send_signal(signal.SIGSTOP)
        yield
    finally:
        for each in reversed(stopped):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGCONT)


def crash(dsn: str) -> None:
    """Kill the process of one connection: the server ends all others, and recovers."""
    with closing(psycopg2.connect(dsn)) as connection:
        psutil.Process(connection.info.backend_pid).kill()


def _pid_of(dsn: str) -> int:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW data_directory")
        ((folder,),) = cursor.fetchall()
    return int(Path(folder, "postmaster.pid").read_text().split()[0])
