"""A model in a process of its own, as the evaluator asks it."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .benchmarks import Prompt
from .bounds import MAX_RECORD, in_words

#: Seconds that a model that is not needed any more has to leave by itself.
_FAREWELL = 5.0
_BLOCK = 64 * 1024


class NoAnswer(Exception):
    """The model gives no answer; the message says why."""


class ModelProcess:
    """A model in a process of its own, which is started when it is asked, and anew if it died."""

    def __init__(self, path: Path, bases: Sequence[Path] = ()) -> None:
        """`bases` are the directories of what the model in `path` is an adapter on, the nearest
        first."""
        self._path = path
        self._bases = bases
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket
        self._pid: int
        self._unread = b""

    def load(self) -> None:
        """Start it, unless it runs. Raises NoAnswer if there is no model, or if it fails."""
        if self._process is not None:
            return
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-u", str(Path(__file__).with_name("model_host.py"))),
                    *(str(self._path), str(theirs.fileno()), str(os.getpid())),
                    *map(str, self._bases),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._pid = os.pidfd_open(self._process.pid)
        self._connection.setblocking(False)
        self._unread = b""
        said = self._receive("it was loaded")
        if "none" in said:
            raise NoAnswer(in_words(said["none"]))
        if said:
            raise NoAnswer(f"the model failed with {in_words(said.get('error'))}")

    def score(self, prompt: Prompt, continuation: str) -> tuple[float, int]:
        """The log-probability in nats of `continuation` behind `prompt`, and its tokens.

        Raises NoAnswer.
        """
        value = self._ask("score", prompt, continuation)
        if (
            isinstance(value, list)
            and len(value) == 2
            and type(value[0]) is float
            and type(value[1]) is int
        ):
            return value[0], value[1]
        raise self._nonsense("score")

    def generate(self, prompt: Prompt, max_tokens: int) -> str:
        """The most probable continuation. Raises NoAnswer."""
        value = self._ask("generate", prompt, max_tokens)
        if isinstance(value, str):
            return value
        raise self._nonsense("text")

    def harness(
        self, task: str | Path, limit: int, shots: int | None
    ) -> tuple[dict[str, float], int]:
        """Scores of a task of lm-evaluation-harness, by its name or its folder, and its samples.

        Raises NoAnswer.
        """
        value = self._ask("harness", str(task), limit, shots)
        if isinstance(value, list) and len(value) == 2 and type(value[1]) is int:
            scores = value[0]
            if isinstance(scores, dict) and all(type(each) is float for each in scores.values()):
                return scores, value[1]
        raise self._nonsense("scores")

    def close(self) -> None:
        """End it with all that it started; a model may clean up after itself, for a moment."""
        if self._process is not None:
            self._connection.close()
            select.select([self._pid], [], [], _FAREWELL)
            self._end()

    def _ask(self, *request: Any) -> Any:
        self.load()
        self._send(json.dumps(request).encode() + b"\n", request[0])
        said = self._receive(f"it was asked to {request[0]}")
        if "error" in said:
            raise NoAnswer(f"the model failed with {in_words(said['error'])}")
        return said.get("value")

    def _send(self, message: bytes, doing: str) -> None:
        rest = memoryview(message)
        while rest:
            _, writable, _ = select.select([self._pid], [self._connection.fileno()], [])
            if not writable:
                raise self._gone(f"it was asked to {doing}")
            try:
                rest = rest[self._connection.send(rest) :]
            except BlockingIOError:
                continue
            except ConnectionError:
                raise self._gone(f"it was asked to {doing}") from None

    def _receive(self, doing: str) -> dict[str, Any]:
        """What the model's process says next, a line of JSON. Raises NoAnswer.

        Its end counts, not that of the connection: what it started may hold that.
        """
        pieces = [self._unread]
        length = len(self._unread)
        while b"\n" not in pieces[-1]:
            if length > MAX_RECORD:
                self._end()
                raise NoAnswer(f"the model's process said more than {MAX_RECORD} bytes at once")
            readable, _, _ = select.select([self._connection.fileno(), self._pid], [], [])
            try:
                block = self._connection.recv(_BLOCK)
            except BlockingIOError:
                if self._pid in readable:
                    raise self._gone(doing) from None
                continue
            except ConnectionError:
                block = b""
            if not block:
                raise self._gone(doing)
            pieces.append(block)
            length += len(block)
        line, _, self._unread = b"".join(pieces).partition(b"\n")
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise self._nonsense("answer")
        return said

    def _nonsense(self, wanted: str) -> NoAnswer:
        """It says what was not asked: it is ended, for nobody knows what it would say next."""
        self._end()
        return NoAnswer(f"what the model's process says is no {wanted}")

    def _gone(self, doing: str) -> NoAnswer:
        """How it ended, which it may be about to."""
        ended, _, _ = select.select([self._pid], [], [], _FAREWELL)
        status = self._end()
        how = f"exited with status {status}"
        if not ended:
            how = "closed its connection"
        elif status < 0:
            how = f"was ended by signal {-status} ({signal.strsignal(-status)})"
        return NoAnswer(f"the model's process {how} when {doing}")

    def _end(self) -> int:
        """End it with all that it started; returns the status that it had, or was given."""
        assert self._process is not None
        self._process.kill()
        status = self._process.wait()
        self._process = None
        os.close(self._pid)
        self._connection.close()
        end_descendants()
        return status


def end_descendants() -> None:
    """Kill and reap every descendant, until none is left: they all come back to this process."""
    while True:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            children = [int(pid) for pid in file.read().split()]
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            # Waits for one; those that it had are next.
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
