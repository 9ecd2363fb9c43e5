"""What workers of tests do: try what a worker must not be able to."""

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path


def work(what: str, *arguments: str) -> int:
    known: dict[str, Callable[..., int]] = {
        "touch": _touch,
        "connect": _connect,
        "status": _status,
        "talk": _talk,
        "breed": _breed,
        "wait": _wait,
        "take": _take,
        "write": _write,
        "crash": _crash,
    }
    return known[what](*arguments)


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")


def _touch(path: str) -> int:
    for attempt in (
        lambda: _say(Path(path).read_text()),
        lambda: os.truncate(path, 0),
        lambda: os.listdir(os.path.dirname(path)),
        lambda: os.unlink(path),
        lambda: Path(path + ".new").touch(),
    ):
        try:
            attempt()
        except OSError as error:
            _say(error.strerror)
    return 0


def _connect(port: str) -> int:
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
    except OSError as error:
        _say(error.strerror)
        return 0
    return 1


def _status() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        wanted = ("CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs")
        _say("".join(line for line in file if line.startswith(wanted)))
    _say(sorted(name for name in os.environ if "SECRET" in name or "SCAIMIND" in name))
    return 0


def _talk() -> int:
    while True:
        os.write(1, b"x" * 65536)


def _breed(held: str) -> int:
    """Leave processes behind in sessions of their own that hold a descriptor."""
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                # Nor does its parent's death end it.
                ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
                os.write(int(held), b"+")
                time.sleep(600)
            os._exit(0)
    return 7


def _wait(held: str) -> int:
    os.write(int(held), b"+")
    time.sleep(600)
    return 0


def _take() -> int:
    try:
        bytearray(1024**3)
    except MemoryError:
        _say("no memory")
    return 0


def _write(directory: str) -> int:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    file = os.open(f"/proc/self/fd/{directory}/large", os.O_CREAT | os.O_WRONLY)
    try:
        _say(os.write(file, b"x" * 5000))
        _say(os.write(file, b"x"))
    except OSError as error:
        _say(error.strerror)
    return 0


def _crash() -> int:
    sys.stdout.write("before")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0
