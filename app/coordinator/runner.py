"""The process that owns one run: `python -m app.coordinator.runner <run directory>`.

It starts the training process in a session of its own, stamps its lines into
the job's log and its numbers into the job's metrics, passes signals on, and
leaves `exit.json` behind. It does not need the coordinator: it survives its
crash, and goes on without it.

SIGTERM asks the training process to save a checkpoint and leave; after a
grace time its process group is killed. SIGUSR1 kills it at once.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Final

import orjson
import psutil
from google.protobuf.timestamp_pb2 import Timestamp

from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

from .jobdir import RunDir, locked, read_json, write_json
from .lines import Line, LineSplitter, parse_line
from .logs import LogWriter
from .metrics import BadMetrics, MetricsWriter, parse_snapshot
from .notices import NoticeSender

#: Seconds to wait for the lock; its holder is about to let go of it.
LOCK_PATIENCE: Final = 30
#: Seconds between two looks at the metrics file.
METRICS_INTERVAL: Final = 0.05
#: Seconds that a batch of lines may be held back while lines keep coming.
COALESCE: Final = 0.003
#: Seconds to read on after the process has gone, if somebody keeps its pipes open.
LINGER: Final = 5.0
_READ: Final = 64 * 1024
_MAX_METRICS_LINE: Final = 1024 * 1024
_LAST_WORDS: Final = 500
_RESERVE: Final = 4096
_PR_SET_PDEATHSIG: Final = 1


class Runner:
    """One run, from the start of its process to `exit.json`."""

    def __init__(self, directory: RunDir, spec: dict[str, Any], resources: ExitStack) -> None:
        self._directory = directory
        self._job_id: str = spec["job_id"]
        self._node_id: str = spec["node_id"]
        self._grace: float = spec["grace_seconds"]
        self._spec = spec
        self._log = resources.enter_context(closing(LogWriter(directory.job.log)))
        self._metrics = resources.enter_context(closing(MetricsWriter(directory.job.metrics)))
        self._notices = resources.enter_context(closing(NoticeSender(Path(spec["notify"]))))
        self._selector = resources.enter_context(selectors.DefaultSelector())
        self._splitters: dict[str, LineSplitter] = {}
        self._wakeup, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        signal.set_wakeup_fd(wakeup)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._failure = ""
        self._last_words = ""
        self._kill_at: float | None = None
        self._raw_at = 0
        self._raw_rest = b""
        self._bad_metrics = 0
        self._looked_at = 0.0

    def run(self) -> None:
        """Carry the run out."""
        try:
            self._say(self._spec["announce"])
            self._process = self._start()
        except OSError as error:
            self._failure = f"The training process could not be started: {error.strerror}."
        else:
            self._supervise(self._process)
        self._leave_behind()

    def _start(self) -> subprocess.Popen[bytes]:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        process = subprocess.Popen(
            self._spec["argv"],
            cwd=self._spec["cwd"],
            env=self._spec["env"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            # This process has one thread, so code between fork and exec is safe.
            # Without the runner nobody would read what the process writes.
            preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, name)
            self._splitters[name] = LineSplitter(clock=time.monotonic)
        write_json(
            self._directory.runner,
            {
                "pid": os.getpid(),
                "create_time": psutil.Process().create_time(),
                "process_group": process.pid,
            },
        )
        return process

    def _supervise(self, process: subprocess.Popen[bytes]) -> None:
        try:
            self._read_until_gone(process)
        except OSError as error:
            # The log or the metrics cannot be written: a full disk, most likely.
            self._failure = f"The job's log could not be written: {error.strerror}."
            self._kill(process)
            process.wait()

    def _read_until_gone(self, process: subprocess.Popen[bytes]) -> None:
        over_at: float | None = None
        while True:
            ready = self._selector.select(self._patience(over_at))
            lines: list[LogEntry] = []
            for key, _ in ready:
                if key.data is None:
                    self._take_signals(process)
                else:
                    lines += self._read_pipe(key)
            for name, splitter in self._splitters.items():
                lines += [self._entry(name, raw) for raw in splitter.progress()]
            self._write(lines)
            now = time.monotonic()
            if self._kill_at is not None and now >= self._kill_at:
                self._kill_at = None
                self._say(f"It did not leave within {self._grace:g} s: killed.", warning=True)
                self._kill(process)
            if now - self._looked_at >= METRICS_INTERVAL:
                self._look_at_metrics()
            if over_at is None and process.poll() is not None:
                over_at = now + LINGER
                self._kill_at = None
                # Whatever it left running ends with it.
                self._kill(process)
            if over_at is not None and (now >= over_at or len(self._selector.get_map()) == 1):
                break
            if lines:
                time.sleep(COALESCE)
        self._write(
            [
                self._entry(name, raw)
                for name, splitter in self._splitters.items()
                for raw in splitter.end()
            ]
        )
        self._look_at_metrics(last=True)

    def _patience(self, over_at: float | None) -> float:
        """Seconds until something is due though nothing happens."""
        now = time.monotonic()
        due = [self._looked_at + METRICS_INTERVAL]
        due += [at for splitter in self._splitters.values() if (at := splitter.due()) is not None]
        due += [at for at in (self._kill_at, over_at) if at is not None]
        return max(min(due) - now, 0.0)

    def _take_signals(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(BlockingIOError):
            for number in os.read(self._wakeup, 64):
                if process.poll() is not None:
                    continue
                if number == signal.SIGTERM and not self._stopped:
                    self._stopped = True
                    self._kill_at = time.monotonic() + self._grace
                    process.send_signal(signal.SIGTERM)
                elif number == signal.SIGUSR1:
                    self._stopped = True
                    self._kill(process)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def _read_pipe(self, key: selectors.SelectorKey) -> list[LogEntry]:
        data = os.read(key.fd, _READ)
        if not data:
            self._selector.unregister(key.fileobj)
            return []
        return [self._entry(key.data, raw) for raw in self._splitters[key.data].feed(data)]

    def _entry(self, source: str, raw: bytes) -> LogEntry:
        stderr = source == "stderr"
        default = LogLevel.LOG_LEVEL_WARNING if stderr else LogLevel.LOG_LEVEL_INFO
        line = parse_line(raw, default=default)
        if stderr and line.message.strip():
            self._last_words = line.message.strip()[:_LAST_WORDS]
        return self._stamped(source, line)

    def _stamped(self, source: str, line: Line) -> LogEntry:
        return LogEntry(
            level=line.level,
            message=line.message,
            timestamp=_now(),
            source=source,
            rank=line.rank,
            node_id=self._node_id,
            fields=line.fields,
        )

    def _say(self, text: str, *, warning: bool = False) -> None:
        level = LogLevel.LOG_LEVEL_WARNING if warning else LogLevel.LOG_LEVEL_INFO
        self._write([self._stamped("coordinator", Line(level, text))])

    def _write(self, entries: list[LogEntry]) -> None:
        if entries:
            self._log.append(entries)
            self._notices.send(self._job_id)

    def _look_at_metrics(self, *, last: bool = False) -> None:
        self._looked_at = time.monotonic()
        try:
            file = os.open(self._directory.metrics_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        snapshots = []
        try:
            while data := os.pread(file, _MAX_METRICS_LINE, self._raw_at):
                self._raw_at += len(data)
                *lines, self._raw_rest = (self._raw_rest + data).split(b"\n")
                if len(self._raw_rest) > _MAX_METRICS_LINE:
                    lines, self._raw_rest = [*lines, b"<too long>"], b""
                snapshots += self._snapshots(lines)
        finally:
            os.close(file)
        if last:
            snapshots += self._snapshots([self._raw_rest])
        if snapshots:
            self._metrics.append(snapshots)
            self._notices.send(self._job_id)

    def _snapshots(self, lines: list[bytes]) -> list[Any]:
        snapshots = []
        for raw in lines:
            if not raw.strip():
                continue
            try:
                snapshot = parse_snapshot(raw)
            except BadMetrics as error:
                self._bad_metrics += 1
                if self._bad_metrics == 1:
                    self._say(f"A line of the metrics file is left out: {error}.", warning=True)
                continue
            snapshot.timestamp.CopyFrom(_now())
            snapshots.append(snapshot)
        return snapshots

    def _leave_behind(self) -> None:
        code = self._process.returncode if self._process is not None else None
        if not self._failure:
            with suppress(OSError):
                if code == 0:
                    self._say("The training process left with status 0.")
                elif code is not None and code < 0:
                    name = signal.strsignal(-code)
                    self._say(
                        f"The training process was ended by signal {-code} ({name}).", warning=True
                    )
                else:
                    self._say(f"The training process left with status {code}.", warning=True)
        leave_exit(
            self._directory,
            {
                "exit_code": code,
                "stopped": self._stopped,
                "failure": self._failure,
                "last_words": self._last_words,
            },
        )


def reserve_exit(directory: RunDir) -> None:
    """Take the disk space that `leave_exit` needs, so that a full disk cannot stop it."""
    with open(directory.path / "exit.reserve", "wb") as file:
        file.write(b" " * _RESERVE)


def leave_exit(directory: RunDir, value: dict[str, Any]) -> None:
    """Write `exit.json`: it is there as a whole or not at all."""
    content = orjson.dumps(value)
    with open(directory.path / "exit.reserve", "r+b") as file:
        file.write(content[:_RESERVE].ljust(_RESERVE))
        file.flush()
        os.fsync(file.fileno())
    os.replace(directory.path / "exit.reserve", directory.exit)


def _now() -> Timestamp:
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def main(arguments: list[str]) -> int:
    """Carry out the run whose directory is the only argument."""
    directory = RunDir(Path(arguments[0]))
    # Its default action ends the process: another runner holds the lock and lives.
    signal.alarm(LOCK_PATIENCE)
    with locked(directory.job.lock, wait=True), ExitStack() as resources:
        signal.alarm(0)
        spec = read_json(directory.spec)
        if spec is None or directory.exit.exists():
            return 0
        reserve_exit(directory)
        Runner(directory, spec, resources).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
