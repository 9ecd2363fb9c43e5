"""Running a worker to its end in a thread, with bounds on what it says."""

import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.coordinator.workers.rules import Rules, command
from app.files.copying import Abandoned

#: Seconds between two looks at whether anybody wants the result.
_LOOK: Final = 0.1
#: Seconds that the first process has to end the others.
_PATIENCE: Final = 10.0
_READ: Final = 64 * 1024
#: Bytes of stderr that are kept: the last.
_LAST_WORDS: Final = 2000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a worker ended, and what it said."""

    #: Negative if a signal ended it.
    status: int
    output: bytes
    #: It said more on stdout than it may, and was ended for that.
    too_long: bool
    #: The end of what it wrote on stderr.
    last_words: str


def run_worker(
    module: str,
    rules: Rules,
    *arguments: str,
    descriptors: Sequence[int] = (),
    most_output: int,
    abandoned: threading.Event,
) -> Outcome:
    """Run a worker, which inherits the descriptors; blocks until it has ended.

    Raises Abandoned, OSError; then too all that it started has ended.
    """
    argv, environment = command(module, rules, *arguments)
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd="/",
        pass_fds=descriptors,
        start_new_session=True,
    )
    try:
        output, words, too_long = _read(process, most_output, abandoned)
    finally:
        _end(process)
    return Outcome(process.returncode, output, too_long, words.decode(errors="replace"))


def _read(
    process: "subprocess.Popen[bytes]", most: int, abandoned: threading.Event
) -> tuple[bytes, bytes, bool]:
    """Read until it closes its outputs, or says more than it may."""
    assert process.stdout is not None
    assert process.stderr is not None
    output = bytearray()
    words = b""
    with selectors.DefaultSelector() as selector:
        for file in (process.stdout, process.stderr):
            selector.register(file, selectors.EVENT_READ)
        while selector.get_map():
            if abandoned.is_set():
                raise Abandoned
            for key, _ in selector.select(_LOOK):
                data = os.read(key.fd, _READ)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    output += data
                    if len(output) > most:
                        return b"", words, True
                else:
                    words = (words + data)[-_LAST_WORDS:]
    return bytes(output), words, False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Wait for its end, which is asked for unless it has closed its outputs itself."""
    assert process.stdout is not None
    assert process.stderr is not None
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    process.stdout.close()
    process.stderr.close()
