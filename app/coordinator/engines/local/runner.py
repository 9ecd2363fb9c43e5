"""The process that owns one run: `python -m app.coordinator.engines.local.runner`.

Its run's directory is in the variable SCAIMIND_RUN_DIRECTORY.

It has a sandbox made for the training processes, stamps their lines into the
job's log and their numbers into the job's metrics, passes signals on, and leaves
`exit.json` behind when nothing of the run is left. It does not need the
coordinator: it survives its crash, and goes on without it.

SIGTERM asks the training processes to save a checkpoint and leave; after a
grace time everything in the sandbox is killed. SIGUSR1 kills it at once. When
one of several ranks fails, the others are killed: they would wait for it.
"""

import os
import resource
import select
import selectors
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Final

from app.coordinator.cluster.gpus import GpuMeter
from app.coordinator.engines.local.notifications import NotificationSender
from app.coordinator.engines.local.process import Pipe, TrainingProcess, now, stamped
from app.coordinator.engines.local.recording import OWN, RecordBounds, Recorder
from app.coordinator.engines.local.runner_protocol import RUN_VARIABLE, RUNNER_SIGNALS, leave_exit
from app.coordinator.failures import Backoff, is_disk_full, is_passing
from app.coordinator.isolation.kernel import become_subreaper
from app.coordinator.isolation.levels import BEFORE_LEVELS, Level
from app.coordinator.isolation.ownership import give_to_job, open_to_job
from app.coordinator.isolation.processes import end_descendants
from app.coordinator.isolation.sandbox import Report, Sandbox
from app.coordinator.jobs.secrets import Concealer, put_in, read_secrets
from app.coordinator.logs.lines import Line
from app.coordinator.metrics.metrics_file import MetricsFile
from app.coordinator.resources.resource_watch import Bounds, ResourceWatch
from app.coordinator.storage.job_directory import RunDir
from app.coordinator.storage.locks import locked
from app.coordinator.storage.process_identity import living_marks, process_identity
from app.files.json_files import read_json, write_json
from app.undumpable import make_undumpable
from generated.mindcoordinator.v1.watch_pb2 import LogEntry, LogLevel

#: Seconds to wait for the lock; its holder is about to let go of it.
LOCK_PATIENCE: Final = 30
#: Descriptors that the runner may have open: four for each rank, and its own.
DESCRIPTORS: Final = 4096
#: Seconds between two looks at the metrics file.
METRICS_INTERVAL: Final = 0.05
#: Seconds between two tries to write down what was started, on a full disk.
ROOM_INTERVAL: Final = 1.0
#: Seconds that a batch of lines may be held back while lines keep coming.
COALESCE: Final = 0.003
#: Seconds to read on after the processes have gone, if somebody keeps their pipes open.
LINGER: Final = 5.0
#: Seconds that a full disk has to take the last lines of a run that left by itself; of one that was
#: asked to leave or ended it has LINGER.
ROOM_PATIENCE: Final = 30.0
#: Seconds to try to end what is left, after which the coordinator goes on.
LEFT_PATIENCE: Final = 30.0


class NotEnded(Exception):
    """Something of the run lives and cannot be ended from here: the run is not over."""


class Runner:
    """One run, from the start of its processes to `exit.json`."""

    def __init__(self, directory: RunDir, spec: dict[str, Any], resources: ExitStack) -> None:
        self._directory = directory
        self._spec = spec
        self._job_id: str = spec["job_id"]
        self._grace: float = spec["grace_seconds"]
        self._recorder = resources.enter_context(
            closing(Recorder(directory.job, RecordBounds.of(spec.get("limits", {}))))
        )
        self._metrics_file = MetricsFile(directory.metrics_file)
        self._gpus = resources.enter_context(closing(GpuMeter(spec["gpus"])))
        self._watch = ResourceWatch(Bounds.of(spec.get("limits", {})))
        resources.enter_context(closing(self._watch))
        self._notices = resources.enter_context(closing(NotificationSender(Path(spec["notify"]))))
        self._selector = resources.enter_context(selectors.DefaultSelector())
        self._wakeup, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        signal.set_wakeup_fd(wakeup)
        for number in (*RUNNER_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, RUNNER_SIGNALS)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._resources = resources
        #: A specification of a coordinator that isolated by Landlock alone has no such section.
        self._isolation: dict[str, Any] = spec.get("isolation", BEFORE_LEVELS)
        self._sandbox: Sandbox | None = None
        #: The first process is gone, and all that was started.
        self._over = False
        self._ranks: list[TrainingProcess] = []
        self._pipes: list[Pipe] = []
        #: Those that are not at their end.
        self._open_pipes: list[Pipe] = []
        #: None of them is read: what was read cannot be written.
        self._holding = False
        self._give_up_at: float | None = None
        #: When `_remember` is tried again.
        self._remember_at: float | None = None
        self._stopped = False
        self._failure = ""
        self._transient = False
        #: The first rank that failed.
        self._failed: TrainingProcess | None = None
        self._kill_at: float | None = None
        self._looked_at = 0.0

    def run(self) -> None:
        """Carry the run out. Raises NotEnded; then it leaves no `exit.json`."""
        try:
            self._say(self._spec["announce"])
            for warning in self._spec.get("warnings", ()):
                self._say(warning, warning=True)
            self._start()
        except OSError as error:
            self._failure = f"The training process could not be started: {error.strerror}."
            self._transient = is_passing(error)
            self._end_all()
        else:
            self._gpus.start()
            self._watch_resources()
            self._supervise()
        self._leave_behind()

    def _start(self) -> None:
        # It must be there: the processes may write it, but make nothing beside it.
        self._with_room(self._directory.metrics_file.touch)
        secrets = read_secrets(self._spec.get("secrets", ""))
        conceal = Concealer(secrets.values())
        for spec in self._spec["ranks"]:
            put_in(spec["env"], secrets)
        isolation = self._isolation
        if isolation["uid"] is not None:
            writable = self._spec["confinement"]["writable"]
            give_to_job(writable, isolation["uid"])
            open_to_job(isolation["opened"], reached=writable, roots=isolation["roots"])
        if link := isolation.get("temporary_link"):
            os.symlink(isolation["temporary"], link)
            self._resources.callback(os.unlink, link)
        self._with_room(self._remember)
        self._sandbox = self._resources.enter_context(
            closing(
                Sandbox(
                    isolation,
                    confinement=self._spec["confinement"],
                    limits=self._spec.get("limits", {}),
                    ranks=self._spec["ranks"],
                )
            )
        )
        self._selector.register(self._sandbox.reports, selectors.EVENT_READ, self._sandbox)
        pairs = zip(self._spec["ranks"], self._sandbox.outputs, strict=True)
        for number, (spec, outputs) in enumerate(pairs):
            rank = TrainingProcess(number, spec["node_id"], outputs, conceal=conceal)
            self._resources.callback(rank.close)
            self._ranks.append(rank)
            for pipe in rank.pipes:
                self._selector.register(pipe.file, selectors.EVENT_READ, pipe)
                self._pipes.append(pipe)
                self._open_pipes.append(pipe)
        # Before anything of the job runs: whoever buries this runner must find it.
        self._with_room(self._remember)
        self._watch.enclose(self._sandbox.first_pid)
        self._sandbox.begin()

    def _with_room(self, write: Callable[[], object]) -> None:
        """Write something, again and again while the disk is full and no signal comes.

        Raises OSError.
        """
        backoff = Backoff()
        while True:
            try:
                write()
            except OSError as error:
                if not is_disk_full(error) or self._asked_within(backoff.after_failure()):
                    raise
            else:
                return

    def _asked_within(self, seconds: float) -> bool:
        """Whether a signal asks the run to leave before it has begun; waits for one."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            select.select([self._wakeup], [], [], left)
            with suppress(BlockingIOError):
                if set(os.read(self._wakeup, 64)) & set(RUNNER_SIGNALS):
                    self._stopped = True
                    return True
        return False

    def _remember_again(self) -> None:
        """Write down what was started by now, as soon as there is room for it."""
        try:
            self._remember()
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._remember_at = time.monotonic() + ROOM_INTERVAL
        else:
            self._remember_at = None

    def _remember(self) -> None:
        """Write down who this is, and what was started from here."""
        who = process_identity(os.getpid())
        if self._sandbox is not None:
            who["sandbox"] = living_marks(self._sandbox.process_pids)
            who["process_groups"] = self._sandbox.rank_pids()
        write_json(self._directory.runner, who)

    def _watch_resources(self) -> None:
        assert self._sandbox is not None
        self._watch.start(
            self._sandbox.first_pid,
            own_shared_memory=self._isolation["level"] == Level.NAMESPACES,
        )

    def _look_at_resources(self) -> None:
        """End the run if it uses more than it may."""
        if problem := self._watch.take_problem():
            self._say(problem, warning=True)
        if not self._living or self._failure or not (reason := self._watch.reason()):
            return
        self._failure = f"The run {reason}."
        self._say(f"{self._failure} It is ended.", warning=True)
        self._kill()

    def _supervise(self) -> None:
        try:
            self._read_until_gone()
        except OSError as error:
            # Not for a full disk: that is waited for.
            self._failure = f"The job's log could not be written: {error.strerror}."
            self._transient = is_passing(error)
            self._end_all()

    def _end_all(self) -> None:
        if self._sandbox is not None and not self._over:
            self._take(self._sandbox.end())
            self._end_what_is_left()

    def _read_until_gone(self) -> None:
        over_at: float | None = None
        while True:
            ready = self._selector.select(self._patience(over_at))
            lines: list[LogEntry] = []
            for key, _ in ready:
                if key.data is None:
                    self._take_signals()
                elif key.data is self._sandbox:
                    self._take_report()
                else:
                    lines += self._read_pipe(key.data)
            if not self._holding:
                for pipe in self._pipes:
                    lines += pipe.progress()
            self._write(lines)
            self._hold_pipes()
            moment = time.monotonic()
            if self._kill_at is not None and moment >= self._kill_at:
                self._kill_at = None
                self._say(f"It did not leave within {self._grace:g} s: killed.", warning=True)
                self._kill()
            if moment - self._looked_at >= METRICS_INTERVAL:
                self._look_at_metrics()
                self._look_at_resources()
            if self._remember_at is not None and moment >= self._remember_at:
                self._remember_again()
            if self._over and (over_at is None or self._holding):
                over_at = moment + LINGER
            if over_at is not None and self._is_read(over_at):
                break
            if lines:
                time.sleep(COALESCE)
        self._write([entry for pipe in self._pipes for entry in pipe.end()])
        self._look_at_metrics(last=True)

    def _is_read(self, over_at: float) -> bool:
        """Whether nothing more is to be read of a run that is over."""
        if self._holding:
            return not self._may_wait()
        return time.monotonic() >= over_at or not self._open_pipes

    def _may_wait(self) -> bool:
        """Whether a run that is over still waits for room on the disk."""
        if self._give_up_at is None:
            patience = LINGER if self._failure or self._stopped else ROOM_PATIENCE
            self._give_up_at = time.monotonic() + patience
        return time.monotonic() < self._give_up_at

    def _hold_pipes(self) -> None:
        """Read nothing on while something waits to be written: who writes waits, too."""
        if self._holding == self._recorder.waits:
            return
        self._holding = self._recorder.waits
        for pipe in self._open_pipes:
            if self._holding:
                self._selector.unregister(pipe.file)
            else:
                self._selector.register(pipe.file, selectors.EVENT_READ, pipe)

    def _take_report(self) -> None:
        """Take note of what the first process tells."""
        assert self._sandbox is not None
        report = self._sandbox.report()
        self._take(report)
        if report.over:
            self._selector.unregister(self._sandbox.reports)
            self._end_what_is_left()
        elif report.started:
            self._remember_again()
        if not self._living:
            self._kill_at = None
        elif (self._failed is not None or self._failure) and not self._stopped:
            self._kill()

    def _take(self, report: Report) -> None:
        for number, code in report.ended.items():
            rank = self._ranks[number]
            rank.exit_code = code
            if code == -signal.SIGKILL and not self._stopped and (over := self._watch.over()):
                # The kernel was faster.
                self._failure = self._failure or f"The run {over}."
            if code and self._failed is None:
                self._failed = rank
        if report.error and not self._failure:
            self._failure = f"The training process could not be started: {report.error}."
        if report.over:
            self._over = True
            if self._living and not self._failure and (over := self._watch.over()):
                self._failure = f"The run {over}."
            elif self._living and not self._failure:
                # Killed for memory, most likely; nothing of the run is left.
                self._failure = "The first process of its sandbox was killed."
                self._transient = True

    def _end_what_is_left(self) -> None:
        """Without namespaces, end what a first process that was killed could not.

        Raises NotEnded.
        """
        if self._isolation["level"] == Level.NAMESPACES:
            return
        deadline = time.monotonic() + LEFT_PATIENCE
        backoff = Backoff()
        while True:
            try:
                end_descendants(self._isolation["uid"])
            except OSError as error:
                # It goes to `runner.err`.
                sys.stderr.write(f"what is left of the run cannot be ended: {error}\n")
                if time.monotonic() > deadline:
                    raise NotEnded from error
                time.sleep(backoff.after_failure())
            else:
                return

    @property
    def _living(self) -> bool:
        """Whether a rank has not ended."""
        return any(rank.exit_code is None for rank in self._ranks)

    def _kill(self) -> None:
        assert self._sandbox is not None
        self._sandbox.kill()

    def _patience(self, over_at: float | None) -> float:
        """Seconds until something is due though nothing happens."""
        due = [self._looked_at + METRICS_INTERVAL]
        if not self._holding:
            due += [at for pipe in self._pipes if (at := pipe.splitter.due()) is not None]
        due += [at for at in (self._kill_at, over_at) if at is not None]
        return max(min(due) - time.monotonic(), 0.0)

    def _take_signals(self) -> None:
        with suppress(BlockingIOError):
            for number in os.read(self._wakeup, 64):
                if not self._living or self._sandbox is None:
                    continue
                if number == signal.SIGTERM and not self._stopped:
                    self._stopped = True
                    self._kill_at = time.monotonic() + self._grace
                    self._sandbox.ask_to_leave()
                elif number == signal.SIGUSR1:
                    self._stopped = True
                    self._kill()

    def _read_pipe(self, pipe: Pipe) -> list[LogEntry]:
        entries = pipe.read()
        if entries is None:
            self._selector.unregister(pipe.file)
            self._open_pipes.remove(pipe)
            return []
        return entries

    def _say(self, text: str, *, warning: bool = False) -> None:
        level = LogLevel.LOG_LEVEL_WARNING if warning else LogLevel.LOG_LEVEL_INFO
        line = Line(level, text)
        self._recorder.add_own_line(stamped(OWN, line, node_id=self._spec["node_id"]))
        self._notices.send(self._job_id)

    def _write(self, entries: list[LogEntry]) -> None:
        """Write lines of the run's processes, and what waited before."""
        if entries or self._recorder.waits:
            if problem := self._recorder.add_lines(entries):
                self._say(problem, warning=True)
            self._recorder.write()
            if not self._recorder.waits:
                self._notices.send(self._job_id)

    def _look_at_metrics(self, *, last: bool = False) -> None:
        self._looked_at = time.monotonic()
        if self._recorder.waits and not last:
            return
        for snapshots in self._metrics_file.batches(last=last):
            if snapshots:
                for snapshot in snapshots:
                    snapshot.timestamp.CopyFrom(now())
                    self._gpus.fill_in(snapshot)
                if problem := self._recorder.add_snapshots(snapshots):
                    self._say(problem, warning=True)
                self._notices.send(self._job_id)
                if self._recorder.waiting_snapshots:
                    # The next look goes on behind them.
                    break
        for problem in self._metrics_file.take_problems():
            self._say(problem, warning=True)

    def _await_room(self) -> None:
        """Have what was read written, for a bounded time: the run is over."""
        while self._recorder.waits and self._may_wait():
            due = self._recorder.retry_at or 0.0
            select.select([self._wakeup], [], [], max(due - time.monotonic(), 0.0))
            with suppress(BlockingIOError):
                os.read(self._wakeup, 64)
            self._write([])
            if not self._recorder.waits:
                self._look_at_metrics(last=True)

    def _is_lost(self) -> bool:
        """Whether something of the run could not be written in the end."""
        if self._recorder.waiting_lines or self._recorder.waiting_snapshots:
            return True
        return self._holding and any(pipe.unread() for pipe in self._open_pipes)

    def _leave_behind(self) -> None:
        with suppress(OSError):
            for text in self._recorder.left_out():
                self._say(text, warning=True)
        ended = self._failed or (self._ranks[0] if self._ranks else None)
        code = ended.exit_code if ended is not None else None
        if ended is not None and not self._failure:
            who = f"Rank {ended.number}" if len(self._ranks) > 1 else "The training process"
            with suppress(OSError):
                if code is not None and code < 0:
                    name = signal.strsignal(-code)
                    self._say(f"{who} was ended by signal {-code} ({name}).", warning=True)
                elif self._failed is None and len(self._ranks) > 1:
                    self._say("All ranks left with status 0.")
                else:
                    self._say(f"{who} left with status {code}.", warning=code != 0)
        with suppress(OSError):
            self._await_room()
        if self._is_lost():
            lost = f"The end of its log or metrics could not be written: {self._recorder.obstacle}."
            self._transient = self._transient or not self._failure
            self._failure = f"{self._failure} {lost}".lstrip()
        leave_exit(
            self._directory,
            {
                "exit_code": code,
                "stopped": self._stopped,
                "failure": self._failure,
                "transient": self._transient,
                "last_words": ended.last_words if ended is not None else "",
            },
        )


def _raise_limit() -> None:
    """Allow the descriptors that the outputs of many ranks take; the ranks have limits of their
    own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))


def main() -> int:
    """Carry out the run."""
    make_undumpable()
    # What a first process that was killed leaves behind is this process's then.
    become_subreaper()
    _raise_limit()
    directory = RunDir(Path(os.environ[RUN_VARIABLE]))
    # Its default action ends the process: another runner holds the lock and lives.
    signal.alarm(LOCK_PATIENCE)
    with locked(directory.job.lock, wait=True):
        signal.alarm(0)
        spec = read_json(directory.spec)
        if spec is None or directory.exit.exists():
            return 0
        try:
            _carry_out(directory, spec)
        except NotEnded:
            # Without an `exit.json` the coordinator ends the run, and tells its operators.
            return 1
    return 0


def _carry_out(directory: RunDir, spec: dict[str, Any]) -> None:
    """Raises NotEnded."""
    backoff = Backoff()
    while True:
        with ExitStack() as resources:
            try:
                runner = Runner(directory, spec, resources)
            except OSError as error:
                reason = error
            else:
                runner.run()
                return
        asked = None
        if is_disk_full(reason):
            asked = signal.sigtimedwait(RUNNER_SIGNALS, backoff.after_failure())
            if asked is None:
                continue
        end = {
            "exit_code": None,
            "stopped": asked is not None,
            "failure": f"The job's log could not be opened: {reason.strerror}.",
            "transient": is_passing(reason),
        }
        leave_exit(directory, end)
        return


if __name__ == "__main__":
    sys.exit(main())
