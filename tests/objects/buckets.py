"""A bucket on moto's server, and a proxy in front of it that fails as a network and a store do."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.objects.s3 import S3Store
from app.objects.s3_connection import S3Place

BUCKET = "drive"
#: Seconds until one side of a connection that says nothing is given up.
_PATIENCE = 60.0
_PROGRAM = Path(__file__).with_name("moto_process.py")


@dataclass(frozen=True)
class Bucket:
    """Where it is, and a file with the credentials for it."""

    port: int
    credentials: Path

    def place(self, prefix: str, *, port: int = 0, credentials: Path | None = None) -> S3Place:
        """How a store reaches it; through a proxy at another port."""
        return S3Place(
            BUCKET,
            prefix,
            endpoint=f"http://127.0.0.1:{port or self.port}",
            credentials=credentials or self.credentials,
            patience=(20.0, 20.0),
            attempts=2,
        )


def write_credentials(path: Path, key: str, secret: str) -> Path:
    """A file as `aws configure` writes it."""
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    path.chmod(0o600)
    return path


@contextmanager
def moto_bucket(folder: Path) -> Iterator[Bucket]:
    """A bucket that lives as long as the context.

    SCAIMIND_TEST_S3=PORT:FILE is another server of this machine, and a file of credentials that
    may use its bucket `drive`.
    """
    if given := os.environ.get("SCAIMIND_TEST_S3"):
        port, _, path = given.partition(":")
        yield Bucket(int(port), Path(path))
        return
    with subprocess.Popen(
        [sys.executable, str(_PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            about = json.loads(process.stdout.readline())
            file = write_credentials(folder / "credentials", about["key"], about["secret"])
            yield Bucket(about["port"], file)
        finally:
            process.kill()


@contextmanager
def opened(place: S3Place) -> Iterator[S3Store]:
    """A store, closed at the end."""
    store = S3Store(place)
    try:
        yield store
    finally:
        store.close()


def answer(status: str, code: str) -> bytes:
    """What S3 says of a failure."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>secret</Message></Error>"
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: application/xml\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


class FaultyProxy:
    """Passes requests on, or does to each what `fault` says of its first line.

    `fault` returns bytes to answer with, after how many bytes of the request
    the connection is cut, minus the number of bytes of the answer, or None for
    a request that is passed on. Each connection has one request.
    """

    def __init__(self, target: int) -> None:
        self.fault: Callable[[str], bytes | int | None] = lambda _: None
        self.seen: list[str] = []
        #: Of the clients that are served now.
        self._open: set[socket.socket] = set()
        self._target = ("127.0.0.1", target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End it, and whatever it passes on."""
        # Wakes the thread that waits for connections.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        # A client that keeps a connection open and says nothing is no reason to stay.
        for client in list(self._open):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            thread = threading.Thread(target=self._handle, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _handle(self, client: socket.socket) -> None:
        client.settimeout(_PATIENCE)
        try:
            with client, suppress(OSError):
                self._serve(client)
        finally:
            self._open.discard(client)

    def _serve(self, client: socket.socket) -> None:
        head = bytearray()
        while b"\r\n\r\n" not in head:
            if not (block := client.recv(64 * 1024)):
                return
            head += block
        lines, _, body = bytes(head).partition(b"\r\n\r\n")
        first, *fields = lines.split(b"\r\n")
        line = first.decode("latin-1")
        self.seen.append(line)
        fault = self.fault(line)
        if isinstance(fault, bytes):
            client.sendall(fault)
        elif fault != 0:
            kept = [each for each in fields if not each.lower().startswith(b"connection:")]
            sent = b"\r\n".join([first, *kept, b"connection: close", b"", body])
            with socket.create_connection(self._target, timeout=_PATIENCE) as server:
                self._pass_on(sent, client, server, fault)

    def _pass_on(
        self, sent: bytes, client: socket.socket, server: socket.socket, fault: int | None
    ) -> None:
        server.sendall(sent)
        left = {client: fault if fault and fault > 0 else None, server: fault and -min(fault, 0)}
        while True:
            for source in select.select([client, server], [], [], _PATIENCE)[0]:
                block = source.recv(64 * 1024)
                most = left[source] or None
                target = server if source is client else client
                target.sendall(block[:most])
                if most is not None:
                    left[source] = most - len(block)
                    if most <= len(block):
                        return
                if not block:
                    return


@contextmanager
def faulty(bucket: Bucket) -> Iterator[FaultyProxy]:
    """A proxy in front of a bucket's server."""
    proxy = FaultyProxy(bucket.port)
    try:
        yield proxy
    finally:
        proxy.close()
